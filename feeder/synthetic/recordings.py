"""Synthetic actions as a depth camera records them, in raw files of NTU RGB+D.

Classes differ in which limbs move, how, and how fast. All else is drawn for each clip, whatever its class:
posture, side, tempo, phase, direction and distortion of the view, joints that the tracker loses.
"""

import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from feeder.cli import UserError
from feeder.preparation.ntu import SUFFIX
from feeder.skeleton import JOINT_NAMES, NUM_JOINTS, SPINE_MID
from feeder.synthetic.bodies import make_body, pose, rotation

FPS = 30
# the tracker: noise of each joint in metres; probability that it mistakes a joint for the middle of the spine
NOISE = [[0.12 if name.endswith(("tip", "thumb", "foot")) else 0.003] for name in JOINT_NAMES]
LOST = [[0 if "spine" in name or "shoulder" in name else 0.25] for name in JOINT_NAMES]
CAMERAS = {2: 0, 3: 45, 1: -45}  # yaw in degrees; the cross-view protocol trains on 2 and 3

# Hz, limbs of a pair that move ("alternate": both, half a cycle apart), swing of each (part, axis): degrees,
# lag in cycles
ACTIONS = {
    "wave": (1.5, "one", {("elbow", "x"): (25, 0), ("shoulder", "z"): (20, 0), ("wrist", "z"): (25, 0.1)}),
    "raise both arms": (0.6, "both", {("shoulder", "z"): (40, 0), ("elbow", "x"): (25, 0)}),
    "clap": (1.5, "both", {("shoulder", "y"): (30, 0), ("elbow", "x"): (12, 0)}),
    "squat": (0.6, "both", {("hip", "x"): (36, 0), ("knee", "x"): (-50, 0), ("ankle", "x"): (14, 0)}),
    "walk": (
        1,
        "alternate",
        {("hip", "x"): (30, 0), ("knee", "x"): (-36, 0.1), ("shoulder", "x"): (25, 0.5)},
    ),
    "box": (1.4, "alternate", {("shoulder", "x"): (30, 0), ("elbow", "x"): (-45, 0)}),
    "jumping jack": (1, "both", {("shoulder", "z"): (45, 0), ("hip", "z"): (28, 0)}),
    "twist": (0.8, "both", {("spine mid", "y"): (32, 0), ("neck", "y"): (-20, 0.1)}),
    "kick": (1, "one", {("hip", "x"): (36, 0), ("knee", "x"): (40, 0.25)}),
    "bow": (0.5, "both", {("spine base", "x"): (-22, 0), ("spine mid", "x"): (-20, 0)}),
}
# middle and half-width of the posture about which a clip swings, degrees about x, y, z
POSTURES = {
    "spine base": ((-5, 0, 0), (4, 0, 2)),
    "spine mid": ((-5, 0, 0), (4, 6, 3)),
    "neck": ((-5, 0, 0), (6, 10, 3)),
    "shoulder": ((40, 20, 35), (28, 18, 21)),
    "elbow": ((60, 0, 0), (32, 14, 0)),
    "wrist": ((0, 0, 0), (10, 0, 7)),
    "hip": ((25, 0, 8), (8, 3, 4)),
    "knee": ((-40, 0, 0), (14, 0, 0)),
    "ankle": ((10, 0, 0), (4, 0, 0)),
}
# one body: its id and state, 25 joints; no projections, no orientation; tracked (2)
BODY = "72057594037931101 0 1 0 1 0 0 0.01 -0.2 2\n25\n" + "%.7g %.7g %.7g 0 0 0 0 1 0 0 0 2\n" * NUM_JOINTS


def write_ntu(
    out: Path, classes: int = 10, subjects: int = 12, repetitions: int = 5, cameras: int = 1, seed: int = 0
) -> int:
    """Write `.skeleton` files into a new folder, which appears once it is complete; return their number.

    Subjects 1, 2, ... repeat each of the first `classes` actions; all cameras record the same performances.
    Another seed gives other performances by the same people.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; remove it or choose a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    takes = list(product(range(classes), range(1, subjects + 1), range(repetitions)))
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.tmp-", dir=out.parent) as temporary:
        folder = Path(temporary, out.name)
        folder.mkdir()
        for (action, subject, take), camera in product(takes, list(CAMERAS)[:cameras]):
            # two takes in each setup; no sample of replication 3 or 4 is on NTU's list of missing skeletons
            place = f"S{1 + take // 2:03d}C{camera:03d}P{subject:03d}R{3 + take % 2:03d}A{action + 1:03d}"
            clip = make_clip([seed, action, subject, take], action, subject, camera)
            frames = ["1\n" + BODY % tuple(joints.ravel()) for joints in clip]
            (folder / f"{place}{SUFFIX}").write_text(f"{len(clip)}\n{''.join(frames)}")
        folder.rename(out)
    return len(takes) * cameras


def make_clip(seed: list[int], action: int, subject: int, camera: int = 2) -> np.ndarray:
    """Return a recording of one person, (T, 25, 3) metres in the camera's frame.

    Args:
        seed: seed of all that varies; each camera records the same performance, with errors of its own.
        action: index into `ACTIONS`.
        subject: number of the person.
        camera: 1, 2 or 3.
    """
    rng = np.random.default_rng(seed)
    degrees = draw_motion(rng, action)
    yaw = rng.uniform(-40, 40) + CAMERAS[camera]
    skew = np.eye(3) + rng.uniform(-0.6, 0.6, (3, 3)) * (1 - np.eye(3))  # a camera that is not calibrated
    place = rng.uniform((-0.5, -1.1, 2.6), (0.5, -0.6, 3.8))
    joints = pose(make_body(subject), degrees) @ rotation(np.array((0, yaw, 0))).T @ skew.T + place
    rng = np.random.default_rng([*seed, camera])
    joints += rng.normal(0, NOISE, joints.shape)
    guess = joints[:, [SPINE_MID]] + rng.normal(0, 0.003, joints.shape)
    return np.where(rng.random((NUM_JOINTS, 1)) < LOST, guess, joints)


def draw_motion(rng: np.random.Generator, action: int) -> np.ndarray:
    """Return joint angles for `pose`, (T, 25, 3) degrees: the swings of an action about a posture."""
    hertz, limbs, swings = list(ACTIONS.values())[action]
    frames, side = int(rng.integers(60, 111)), int(rng.integers(2))  # NTU RGB+D has about 80 frames
    degrees = np.zeros((frames, NUM_JOINTS, 3))
    for part, (middle, width) in POSTURES.items():
        degrees[:, sides(part)] = middle + rng.uniform(-1, 1, (len(sides(part)), 3)) * width
    cycles = hertz * rng.uniform(0.85, 1.15) * np.arange(frames) / FPS + rng.random()
    amplitude = rng.uniform(0.9, 1.1)
    for (part, axis), (size, lag) in swings.items():
        joints = sides(part)[side:][:1] if limbs == "one" else sides(part)
        for number, joint in enumerate(joints):
            shift = lag + 0.5 * number * (limbs == "alternate")
            degrees[:, joint, "xyz".index(axis)] += amplitude * size * np.sin(2 * np.pi * (cycles + shift))
    return degrees


def sides(part: str) -> list[int]:
    """Return the joints of a part of the body: left and right of "elbow", one of "neck"."""
    names = (part, f"left {part}", f"right {part}")
    return [joint for joint, name in enumerate(JOINT_NAMES) if name in names]
