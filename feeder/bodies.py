"""Faults of bodies, such as a wrong unit or centre, or gaps, for data preparation and `feeder.check`."""

from collections.abc import Mapping, Sequence

import numpy as np

from feeder.skeleton import SPINE_MID

# The limits are far from real data: the 2,495 clips of UI-PRMD, NW-UCLA and our goldens have sizes of 0.88 to
# 2.8 m (median 1.7), a smallest extent of at least 0.05 of the largest, and offsets up to 0.32 of the size.
SIZE = (0.3, 8.0)  # metres; a curled-up child of 0.9 m is larger, and 0.5 m in inches is 20
SHARE = 0.2  # of the clips; a fault in fewer may be a sensor error
FRAMES = 8  # frames of a clip that are measured

WRONG_SIZE, FLAT = "bodies of an impossible size", "bodies in a plane"
OFFSET, ZERO = "bodies that are not around joint 1, spine mid", "joints that are always zero"
PADDING, GAPS = "empty frames at the end", "empty frames between others"
REMEDIES = {
    WRONG_SIZE: "convert millimetres, centimetres, inches or pixels to metres",
    FLAT: "x, y and z are needed, not two-dimensional poses",
    OFFSET: "fill joint 1 if it is always zero, and centre each clip on it",
    ZERO: "fill each of the 25 joints from a real one (docs/extending.md)",
    PADDING: "do not count padding in the number of frames",
    GAPS: "common if they are few",
}


def body_faults(sample: np.ndarray, num_frame: int) -> dict[str, str] | None:
    """Return the faults of the first body of a clip: kind -> its amount. None if there is no body.

    Args:
        sample: (3, 300, 25, 2), finite.
        num_frame: number of valid frames.
    """
    body = np.ascontiguousarray(sample[:, :num_frame, :, 0])  # (3, T, V)
    present, used = np.flatnonzero(body.any(axis=(0, 2))), body.any(axis=(0, 1))
    zero = [
        joint for joint in np.flatnonzero(~used).tolist() if joint != SPINE_MID
    ]  # spine mid is the centre
    used[SPINE_MID] = False
    if not used.any():
        return None
    measured = present[:: -(-len(present) // FRAMES)]
    joints = body[:, measured][:, :, used].transpose(1, 2, 0)  # (frames, joints, 3)
    mean = joints.mean(axis=1, keepdims=True)
    size = np.median(np.linalg.norm(np.ptp(joints, axis=1), axis=1))  # diagonal of the box around the joints
    squares = np.linalg.eigvalsh(
        (joints - mean).transpose(0, 2, 1) @ (joints - mean)
    )  # (frames, 3), ascending
    depth = np.sqrt(np.median(squares[:, 0].clip(0) / squares[:, 2].clip(1e-12)))
    offset = np.linalg.norm(mean[0, 0] - body[:, measured[0], SPINE_MID])
    padding, gaps = num_frame - 1 - present[-1], present[-1] + 1 - len(present)

    faults = {}
    if not SIZE[0] <= size <= SIZE[1]:
        faults[WRONG_SIZE] = f"{size:,.2f} m across"
    if depth < 0.01:
        faults[FLAT] = f"{depth:.1%} as deep as wide"
    if offset > 0.5 * size:
        faults[OFFSET] = f"{offset:,.2f} m away"
    if zero:
        faults[ZERO] = f"joints {zero}"
    if padding:
        faults[PADDING] = f"{padding} of {num_frame} frames"
    if gaps:
        faults[GAPS] = f"{gaps} of {num_frame} frames"
    return faults


def body_problems(
    names: Sequence[str], faults: Sequence[Mapping[str, str] | None]
) -> tuple[list[str], list[str]]:
    """Return lines for certain faults and lines for suspicions: kind, number of clips, an example, remedy.

    Args:
        names: names of many clips, of a part or of all that are prepared.
        faults: their results of `body_faults`.
    """
    clips = [(name, kinds) for name, kinds in zip(names, faults, strict=True) if kinds is not None]
    problems, notes = [], []
    for kind, remedy in REMEDIES.items():
        examples = [f"{name}, {kinds[kind]}" for name, kinds in clips if kind in kinds]
        certain = kind != GAPS and len(examples) > SHARE * len(clips)
        line = f"{kind}: {len(examples)} of {len(clips)} samples, such as {''.join(examples[:1])}; {remedy}"
        if examples:
            (problems if certain else notes).append(line)
    return problems, notes
