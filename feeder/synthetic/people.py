"""Synthetic people: bodies with individual proportions, posed by joint angles, and their postures.

Each clip starts at rest and its posture drifts far from there, so that neither the first frame, which aligns a clip in
`feeder.preparation.normalize`, nor any other single pose shows the class: only the motion added to it does.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from feeder.skeleton import JOINT_NAMES, MIRROR, NUM_JOINTS

FPS = 30
REST_FRAMES = 15  # until a motion has its full size: a clip starts at rest
_WANDER = 9  # drift of the posture within a clip, in half-widths of `_ANGLES`

# The middle and the right half of a body of unit height, from the pelvis outwards: joint -> (parent, offset at rest), with
# x to the person's right, y up and z to the back. The left half is its mirror image.
_TREE = {
    "spine base": ("spine base", (0, 0, 0)),
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

# Joint angles about x, y, z in degrees: lowest, highest, middle and half-width of the postures. On the right side, x lifts
# an arm or thigh to the front and bends the elbow, y turns it inwards, z lifts it sideways. Other joints do not turn.
_ANGLES = {
    "spine base": ((-45, -180, -25), (20, 180, 25), (-8, 0, 0), (0.9, 0, 0.6)),
    "spine mid": ((-45, -35, -20), (15, 35, 20), (-5, 0, 0), (0.6, 1.4, 0.6)),
    "neck": ((-40, -60, -25), (25, 60, 25), (-5, 0, 0), (1, 2, 0.6)),
    "shoulder": ((-45, -60, -15), (170, 90, 160), (45, 20, 40), (1.4, 1.2, 1.2)),
    "elbow": ((0, -60, 0), (145, 60, 0), (70, 0, 0), (1.4, 0.8, 0)),
    "wrist": ((-50, 0, -20), (50, 0, 20), (0, 0, 0), (1, 0, 0.6)),
    "hip": ((-20, -30, -15), (115, 30, 45), (34, 0, 8), (1, 0.5, 0.5)),
    "knee": ((-135, 0, 0), (0, 0, 0), (-50, 0, 0), (1.2, 0, 0)),
    "ankle": ((-30, 0, 0), (40, 0, 0), (10, 0, 0), (0.5, 0, 0)),
}


def sides(part: str) -> list[int]:
    """Return the joints of a part of the body: left and right of "elbow", one of "neck"."""
    return [
        joint for joint, name in enumerate(JOINT_NAMES) if name in (part, f"left {part}", f"right {part}")
    ]


# joint -> its parent, parents before their children
PARENTS = {
    side[JOINT_NAMES.index(name)]: side[JOINT_NAMES.index(above)]
    for name, (above, _) in _TREE.items()
    for side in (MIRROR, range(NUM_JOINTS))
}
LOWEST, HIGHEST, MIDDLE, WIDTH = _LIMITS = np.zeros((4, NUM_JOINTS, 3))
for _part, _rows in _ANGLES.items():
    _LIMITS[:, sides(_part)] = np.array(_rows)[:, None]
# rotations about y and z are mirrored on the left side
SIGNS = np.array([(1, -1, -1) if name.startswith("left") else (1, 1, 1) for name in JOINT_NAMES])


class Person(NamedTuple):
    """The body and habits of one performer."""

    offsets: np.ndarray  # (25, 3) metres, of each joint from its parent at rest
    tempo: float
    amplitude: float
    posture: np.ndarray  # (25, 3) degrees, added to every posture
    right_handed: float  # share of the clips in which the right side acts
    skew: np.ndarray  # (3, 3), distortion of the sensor that recorded this person


@cache
def make_person(subject: int) -> Person:
    """Return the performer with a subject number (0 or more): the same in every data set."""
    rng = np.random.default_rng([2023, subject])
    stretch = rng.normal(1, (0.05, 0.04, 0.05), (len(_TREE), 3)).clip(0.6, 1.4)
    offsets = np.zeros((NUM_JOINTS, 3))
    for (name, (_, offset)), factor in zip(_TREE.items(), stretch, strict=True):
        right = JOINT_NAMES.index(name)
        offsets[MIRROR[right]], offsets[right] = np.multiply(offset, (-1, 1, 1)) * factor, offset * factor
    return Person(
        offsets=offsets * rng.uniform(1.6, 1.8),
        tempo=rng.uniform(0.85, 1.18),
        amplitude=rng.uniform(0.8, 1.2),
        posture=rng.normal(0, 1, (NUM_JOINTS, 3)),
        right_handed=rng.choice([0.1, 0.9], p=[0.4, 0.6]),
        skew=np.eye(3) + 0.05 * rng.uniform(-1, 1, (3, 3)) * (1 - np.eye(3)),
    )


def draw_posture(rng: np.random.Generator, person: Person, frames: int) -> np.ndarray:
    """Return the joint angles of a drifting posture, (frames, 25, 3) degrees."""
    drawn = rng.uniform(-1, 1, (NUM_JOINTS, 3))
    left, right = np.transpose([sides(part) for part in ("hip", "knee", "ankle")])
    drawn[left] = drawn[right] + rng.normal(0, 0.2, (3, 3))  # legs are bent alike
    start = MIDDLE + drawn * WIDTH + (WIDTH > 0) * person.posture
    return start + drift(rng, frames, (NUM_JOINTS, 3)) * WIDTH * _WANDER


def drift(rng: np.random.Generator, frames: int, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return smooth noise that starts at 0, (frames, *shape): sums of three sines of 0.05 to 0.25 Hz, about 1 in size."""
    hertz, phase = rng.uniform(0.05, 0.25, (3, *shape)), rng.uniform(0, 2 * np.pi, (3, *shape))
    size = rng.normal(0, 0.8, (3, *shape))
    waves = np.sin(
        2 * np.pi * np.multiply.outer(np.arange(frames) / FPS, hertz) + phase
    )  # (frames, 3, *shape)
    return ((waves * size).sum(axis=1).T * rise(frames)).T


def rise(frames: int) -> np.ndarray:
    """Return the factor (frames,) by which a motion grows from 0 to its full size within `REST_FRAMES`."""
    return (np.arange(frames) / REST_FRAMES).clip(0, 1)


def pose(person: Person, angles: np.ndarray) -> np.ndarray:
    """Return the joints, (T, 25, 3) metres, of a body on the ground with these angles, (T, 25, 3) degrees, within limits."""
    local = rotation(
        np.radians(angles.clip(LOWEST, HIGHEST)) * SIGNS
    )  # (T, 25, 3, 3), relative to the parent
    turned, joints = local.copy(), np.zeros(angles.shape)
    for joint, parent in PARENTS.items():
        if joint != parent:
            turned[:, joint] = turned[:, parent] @ local[:, joint]
            joints[:, joint] = joints[:, parent] + turned[:, parent] @ person.offsets[joint]
    joints[..., 1] -= joints[..., 1].min(axis=1, keepdims=True)
    return joints


def rotation(radians: np.ndarray) -> np.ndarray:
    """Return the matrices Rx Rz Ry, (..., 3, 3), of angles (..., 3) about x, y, z."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(part(radians), -1, 0) for part in (np.cos, np.sin))
    rows = (
        (cz * cy, -sz, cz * sy),
        (cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy),
        (sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
