"""Recorded bodies -> the array of a sample: two bodies ranked, looped to 300 frames, centred and rotated.

The arithmetic, oddities included, is that of the reference's `data_gen/ntu_gendata.py`, `preprocess.py` and
`rotation.py`, because published results depend on it. A joint or frame is empty if its coordinates sum to 0.
"""

import numpy as np

from feeder.skeleton import (
    LEFT_SHOULDER,
    MAX_FRAMES,
    NUM_BODIES,
    NUM_JOINTS,
    RIGHT_SHOULDER,
    SPINE_BASE,
    SPINE_MID,
)


def to_sample(bodies: np.ndarray) -> np.ndarray:
    """Return the array of one recording: the two most active bodies, looped, centred and rotated.

    Oddities kept: all empty frames of a body whose first frame is empty are removed, so it starts at frame 0;
    each body is looped with its own period; the second body is not centred where the first is empty.

    Args:
        bodies: (B, T, 25, 3) in metres, zeros where a body is absent; T in 1..300.

    Returns:
        (3, 300, 25, 2) float32; all zeros if no body is present.

    Raises:
        ValueError: `bodies` has another shape.
    """
    if bodies.ndim != 4 or bodies.shape[2:] != (NUM_JOINTS, 3) or not 1 <= bodies.shape[1] <= MAX_FRAMES:
        raise ValueError(f"bodies {bodies.shape} are not (B, T, {NUM_JOINTS}, 3) with T in 1..{MAX_FRAMES}")
    sample = np.zeros((NUM_BODIES, 3, MAX_FRAMES, NUM_JOINTS), np.float32)
    for joints, body in zip(sample, rank_bodies(bodies), strict=False):
        there = body.sum((1, 2), dtype=np.float32) != 0
        if there.any():
            # drop empty frames, at the end or, if the first one is empty, anywhere; then loop the others
            kept = body[: len(there) - there[::-1].argmax()] if there[0] else body[there]
            joints[:] = kept.astype(np.float32).transpose(2, 0, 1)[:, np.arange(MAX_FRAMES) % len(kept)]
    people = [joints for joints in sample if joints.any()]
    centre = sample[0, :, :, SPINE_MID, None].copy()  # (3, 300, 1)
    for joints in people:
        x, y, z = joints
        there = x + y + z != 0  # joints.sum(0) takes ten times as long
        joints -= centre
        joints *= there
    # align the spine of frame 0 with +z, then the shoulders with +x, which moves the spine off +z again
    posture = sample[0, :, 0].astype(np.float64)  # (3, 25)
    turn = _turn(posture[:, SPINE_MID] - posture[:, SPINE_BASE], (0, 0, 1))
    turn = _turn(turn @ (posture[:, RIGHT_SHOULDER] - posture[:, LEFT_SHOULDER]), (1, 0, 0)) @ turn
    for joints in people:
        joints[:] = (turn.astype(np.float32) @ joints.reshape(3, -1)).reshape(joints.shape)
    return np.stack(sample, axis=-1)


def rank_bodies(bodies: np.ndarray) -> np.ndarray:
    """Return the two bodies of (B, T, 25, 3) that move most, the most active first; the later wins a tie."""
    order = np.argsort([_energy(body) for body in bodies], kind="stable")[::-1]
    return bodies[order[:NUM_BODIES]]


def _energy(body: np.ndarray) -> float:
    """Return std(x) + std(y) + std(z) over all joints of the frames (T, 25, 3) that are not empty."""
    there = body.sum((1, 2)) != 0
    if not there.any():
        return 0.0
    axes = body[there].reshape(-1, 3).T.copy()  # (3, T * V)
    axes -= axes.mean(1, keepdims=True)
    return float(np.sqrt((axes * axes).mean(1)).sum())


def _turn(source: np.ndarray, target: tuple[float, float, float]) -> np.ndarray:
    """Return the (3, 3) rotation that aligns `source` (3,) with the unit vector `target`.

    As in the reference, it is the identity if `source` is shorter than 1e-6 or points the opposite way.
    """
    axis = _skew_matrix(source) @ target
    if np.abs(source).sum() < 1e-6 or np.abs(axis).sum() < 1e-6:
        return np.eye(3)
    cosine = max(-1, min(1, source @ target / np.sqrt(source @ source)))
    skew = _skew_matrix(axis / np.sqrt(axis @ axis))
    # Rodrigues: 1 + sin(a) K + (1 - cos(a)) K^2
    return np.eye(3) + np.sqrt(1 - cosine**2) * skew + (1 - cosine) * (skew @ skew)


def _skew_matrix(vector: np.ndarray) -> np.ndarray:
    """Return K (3, 3) with K @ w the cross product of `vector` and w."""
    x, y, z = vector
    return np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
