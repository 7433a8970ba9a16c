"""Synthetic people that move: bodies of a person's proportions, posed by joint angles, seen by a noisy depth camera.

An action is told by its motion: which limbs swing, how fast, in which course. A still frame or a mean pose says little,
since the swing rides on a posture that wanders far within a clip, and begins anywhere in its cycle, with either side.
Every clip begins at rest, as those of NTU RGB+D do: a clip is turned by its first frame when it is normalised, so that a
bent beginning would mark all of it. Another part of the same clip, which is what SCD-Net's augmentations show, has the
motion and not the posture: that makes pre-training worth while on this data, where raw coordinates and an untrained encoder
are misled.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from feeder.skeleton import JOINT_NAMES, NUM_JOINTS

FPS = 30
CLIP_FRAMES = (60, 110)  # NTU RGB+D's mean is about 80
CAMERA_YAW = {1: -45.0, 2: 0.0, 3: 45.0}  # degrees, about where the cameras of NTU RGB+D stood

_INDEX = {name: joint for joint, name in enumerate(JOINT_NAMES)}

# The right half and the middle of a body of unit stature: joint -> (parent, offset at rest), in a frame with x to the
# person's right, y up and z to the back. It hangs from the pelvis; the left half is its mirror image.
_TREE = {
    "spine base": (None, (0, 0, 0)),
    "spine mid": ("spine base", (0, 0.165, 0.01)),
    "spine": ("spine mid", (0, 0.14, 0.01)),
    "neck": ("spine", (0, 0.045, 0)),
    "head": ("neck", (0, 0.085, -0.02)),
    "right shoulder": ("spine", (0.105, -0.02, 0)),
    "right elbow": ("right shoulder", (0, -0.165, 0)),
    "right wrist": ("right elbow", (0, -0.145, 0)),
    "right hand": ("right wrist", (0, -0.045, 0)),
    "right hand tip": ("right hand", (0, -0.045, 0)),
    "right thumb": ("right hand", (-0.015, -0.02, -0.02)),
    "right hip": ("spine base", (0.05, -0.02, 0)),
    "right knee": ("right hip", (0, -0.24, 0)),
    "right ankle": ("right knee", (0, -0.235, 0)),
    "right foot": ("right ankle", (0, -0.035, -0.065)),
}

# Joint angles about x, y, z, given for the right side: x lifts an arm or thigh to the front and bends the elbow, y
# turns it inwards, z lifts it sideways. Lowest and highest angle of each, in degrees.
_LIMITS = {
    "spine base": ((-45, 20), (-180, 180), (-25, 25)),
    "spine mid": ((-45, 15), (-35, 35), (-20, 20)),
    "neck": ((-40, 25), (-60, 60), (-25, 25)),
    "shoulder": ((-45, 170), (-60, 90), (-15, 160)),
    "elbow": ((0, 145), (-60, 60), (0, 0)),
    "wrist": ((-50, 50), (0, 0), (-20, 20)),
    "hip": ((-20, 115), (-30, 30), (-15, 45)),
    "knee": ((-135, 0), (0, 0), (0, 0)),
    "ankle": ((-30, 40), (0, 0), (0, 0)),
}

# Middle and half-width of the one distribution of postures, in degrees: joint -> (x, y, z).
_POSTURE = {
    "spine base": ((-8, 0, 0), (0.9, 0, 0.6)),
    "spine mid": ((-5, 0, 0), (0.6, 1.4, 0.6)),
    "neck": ((-5, 0, 0), (1, 2, 0.6)),
    "shoulder": ((45, 20, 40), (1.4, 1.2, 1.2)),
    "elbow": ((70, 0, 0), (1.4, 0.8, 0)),
    "wrist": ((0, 0, 0), (1, 0, 0.6)),
    "hip": ((34, 0, 8), (1, 0.5, 0.5)),
    "knee": ((-50, 0, 0), (1.2, 0, 0)),
    "ankle": ((10, 0, 0), (0.5, 0, 0)),
}

_WANDER = 9  # how far idle motion goes within a clip, in half-widths of the posture
REST_FRAMES = 15  # until motion is whole: a clip begins at rest


class Person(NamedTuple):
    """One performer: joint offsets at rest in metres (25, 3), and manners."""

    offsets: np.ndarray
    tempo: float
    amplitude: float
    posture: np.ndarray  # (25, 3) degrees, a habit added to every posture
    right_handed: float  # share of the clips in which the right side acts
    skew: np.ndarray  # (3, 3), of the sensor that recorded this person


@cache
def make_person(subject: int) -> Person:
    """Return the performer of a subject number; the same one for the same number, whatever the data's seed.

    Args:
        subject: 0 or more.
    """
    rng = np.random.default_rng([2023, subject])
    offsets = np.zeros((NUM_JOINTS, 3))
    for name, (_, offset) in _TREE.items():
        scaled = np.array(offset) * rng.normal(1, (0.05, 0.04, 0.05)).clip(0.6, 1.4)
        for joint, sign in _sides(name):
            offsets[joint] = scaled * (sign, 1, 1)
    return Person(
        offsets=offsets * rng.uniform(1.6, 1.8),
        tempo=rng.uniform(0.85, 1.18),
        amplitude=rng.uniform(0.8, 1.2),
        posture=rng.normal(0, 1, (NUM_JOINTS, 3)),
        right_handed=rng.choice([0.1, 0.9], p=[0.4, 0.6]),
        skew=np.eye(3) + 0.05 * rng.uniform(-1, 1, (3, 3)) * (1 - np.eye(3)),
    )


def draw_posture(rng: np.random.Generator, person: Person, frames: int) -> np.ndarray:
    """Return joint angles of a person who does nothing in particular: a posture that wanders slowly.

    Returns:
        (frames, 25, 3) degrees about x, y, z, for the right side's convention on both sides.
    """
    middle, width = _spread("middle"), _spread("width")
    drawn = rng.uniform(-1, 1, (NUM_JOINTS, 3))
    legs = [_INDEX[f"{side} {part}"] for part in ("hip", "knee", "ankle") for side in ("left", "right")]
    drawn[legs[::2]] = drawn[legs[1::2]] + rng.normal(0, 0.2, (3, 3))  # nobody stands on one bent leg for long
    return middle + drawn * width + (width > 0) * person.posture + drift(rng, frames, (NUM_JOINTS, 3)) * width * _WANDER


def drift(rng: np.random.Generator, frames: int, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return slow smooth noise of about unit size that begins at 0, (frames, *shape): three sines of 0.05 to 0.25 Hz each."""
    seconds = np.arange(frames) / FPS
    hertz = rng.uniform(0.05, 0.25, (3, *shape))
    phase = rng.uniform(0, 2 * np.pi, (3, *shape))
    size = rng.normal(0, 0.8, (3, *shape))
    waves = np.sin(2 * np.pi * np.multiply.outer(seconds, hertz) + phase)  # (frames, 3, *shape)
    return (waves * size).sum(axis=1) * rise(frames).reshape(-1, *([1] * len(shape)))


def rise(frames: int) -> np.ndarray:
    """Return how much of a motion is there as a clip begins, (frames,): 0 .. 1 within `REST_FRAMES`."""
    return (np.arange(frames) / REST_FRAMES).clip(0, 1)


def pose(person: Person, angles: np.ndarray) -> np.ndarray:
    """Return the joints of a body whose lowest joint is on the ground, by forward kinematics from the pelvis outwards.

    Args:
        person: whose proportions.
        angles: (T, 25, 3) degrees about x, y, z; brought into the joints' limits here.

    Returns:
        (T, 25, 3) metres: x to the person's right, y up, z to the back.
    """
    low, high = _bounds()
    local = rotation(np.radians(angles.clip(low, high)) * _mirror_signs())  # (T, 25, 3, 3)
    turned, joints = np.empty_like(local), np.zeros(angles.shape)
    for name, (above, _) in _TREE.items():
        for joint, _ in _sides(name):
            if above is None:
                turned[:, joint] = local[:, joint]
                continue
            parent = _parent(joint, above)
            turned[:, joint] = turned[:, parent] @ local[:, joint]
            joints[:, joint] = joints[:, parent] + turned[:, parent] @ person.offsets[joint]
    joints[..., 1] -= joints[..., 1].min(axis=1, keepdims=True)
    return joints


def rotation(radians: np.ndarray) -> np.ndarray:
    """Return the matrices Rx Rz Ry, (..., 3, 3), of angles (..., 3) about x, y, z."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(part(radians), -1, 0) for part in (np.cos, np.sin))
    entries = (
        cz * cy, -sz, cz * sy,
        cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy,
        sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy,
    )  # fmt: skip
    return np.stack(entries, axis=-1).reshape(*radians.shape[:-1], 3, 3)


def joint_indices(part: str) -> tuple[int, int] | tuple[int]:
    """Return the (left, right) joints of a limb's part such as "elbow", or the one joint of the middle."""
    return (_INDEX[part],) if part in _INDEX else (_INDEX[f"left {part}"], _INDEX[f"right {part}"])


def _sides(name: str) -> list[tuple[int, int]]:
    """The joints that an entry of the tree stands for, each with the sign of its x."""
    if not name.startswith("right"):
        return [(_INDEX[name], 1)]
    return [(_INDEX[name], 1), (_INDEX[name.replace("right", "left")], -1)]


def _parent(joint: int, above: str) -> int:
    left = JOINT_NAMES[joint].startswith("left")
    return _INDEX[above.replace("right", "left") if left else above]


@cache
def _mirror_signs() -> np.ndarray:
    """(25, 3): rotations about y and z run the other way round on the left side."""
    left = np.array([name.startswith("left") for name in JOINT_NAMES])
    return np.where(left[:, None], (1, -1, -1), (1, 1, 1))


@cache
def _bounds() -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest angles, (25, 3) each; joints without limits of their own do not turn."""
    bounds = np.zeros((2, NUM_JOINTS, 3))
    for part, ranges in _LIMITS.items():
        for joint in joint_indices(part):
            bounds[:, joint] = np.transpose(ranges)
    return bounds[0], bounds[1]


@cache
def _spread(which: str) -> np.ndarray:
    """(25, 3) degrees: the middle or the half-width of the postures."""
    values = np.zeros((NUM_JOINTS, 3))
    for part, pair in _POSTURE.items():
        for joint in joint_indices(part):
            values[joint] = pair[which == "width"]
    return values
