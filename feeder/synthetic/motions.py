"""Synthetic actions, and the clips that a noisy depth camera records of them.

Classes differ in which limbs move, how fast and with which time course. Every clip starts at a random point of the cycle, and
the posture drifts; so views of a clip share its motion more than its poses, which is what pre-training can learn here.
"""

import numpy as np

from feeder.skeleton import SPINE_MID
from feeder.synthetic.people import FPS, Person, draw_posture, drift, make_person, pose, rise, rotation, sides

CAMERA_YAW = {1: -45.0, 2: 0.0, 3: 45.0}  # degrees, about as in NTU RGB+D

# (part of the body, axis) -> (degrees, lag in cycles)
_ARM = {("shoulder", "z"): (44, 0), ("shoulder", "y"): (44, 0.1), ("elbow", "x"): (40, 0)}
_CLAP = {("shoulder", "y"): (52, 0), ("shoulder", "x"): (20, 0), ("elbow", "x"): (32, 0)}
_LEGS = {("hip", "x"): (42, 0), ("knee", "x"): (-55, 0.04), ("ankle", "x"): (12, 0)}
_PUNCH = {("shoulder", "x"): (50, 0), ("elbow", "x"): (-60, 0), ("spine mid", "y"): (12, 0)}
_DRINK = {("shoulder", "x"): (25, 0), ("elbow", "x"): (50, 0), ("neck", "x"): (16, 0.1)}
_CIRCLE = {("shoulder", "x"): (55, 0), ("shoulder", "z"): (50, 0.25)}
_BOW = {("spine base", "x"): (-26, 0), ("spine mid", "x"): (-22, 0), ("neck", "x"): (-15, 0.05)}

# name, Hz, limbs of a pair ("alternate": both, half a cycle apart), time course ("strike": out quickly, back slowly) and
# swings added to the posture. Several actions have the same poses, at another speed or in another order.
ACTIONS = (
    ("wave", 1.7, "one", "swing", _ARM),
    ("raise one arm", 0.4, "one", "swing", _ARM),
    ("clap", 1.7, "both", "swing", _CLAP),
    ("squat", 0.5, "both", "swing", _LEGS),
    ("walk on the spot", 1.0, "alternate", "swing", _LEGS),
    ("punch", 0.9, "one", "strike", _PUNCH),
    ("drink", 0.5, "one", "swing", _DRINK),
    ("arm circles", 0.8, "both", "swing", _CIRCLE),
    ("kick", 0.9, "one", "strike", _LEGS),
    ("bow", 0.5, "both", "swing", _BOW),
)
IDLE: tuple[str, float, str, str, dict] = ("idle", 0.5, "both", "swing", {})


def make_clip(
    rng: np.random.Generator, action: int, subject: int, camera: int = 2, frames: int = 0
) -> np.ndarray:
    """Return a recorded clip, (T, 25, 3) metres in the camera's frame, zeros where the sensor lost the body.

    Args:
        rng: source of everything that varies; the same state gives the same performance to every camera.
        action: index into `ACTIONS`, or -1 for an idle person.
        frames: T, at least 12; 0 draws it.
    """
    frames = frames or int(rng.integers(60, 111))  # NTU RGB+D has about 80
    rng.integers(1000, 2000)  # unused; keeps the clips of earlier versions
    world = _perform(rng, action, make_person(subject), frames)
    turn = rng.uniform(-40, 40) + 5 * drift(rng, frames)
    return _record(np.random.default_rng([int(rng.integers(2**32)), camera]), _turn(world, turn), camera)


def _perform(rng: np.random.Generator, action: int, person: Person, frames: int) -> np.ndarray:
    """Return a performance, (T, 25, 3) metres, in the person's own frame."""
    _, hertz, limbs, course, swings = ACTIONS[action] if action >= 0 else IDLE
    angles = draw_posture(rng, person, frames)
    cycles = hertz * person.tempo * rng.uniform(0.97, 1.03) * np.arange(frames) / FPS + rng.random()
    # half of a swing: small compared with the drift of the posture
    strength = 0.5 * person.amplitude * rng.uniform(0.95, 1.05) * _presence(rng, frames)
    right = rng.random() < person.right_handed
    for (part, axis), (degrees, lag) in swings.items():
        joints = sides(part)
        if limbs == "one" and len(joints) == 2:
            joints = [joints[int(right)]]
        for side, joint in enumerate(joints):
            shift = lag + (0.5 if limbs == "alternate" and side else 0)
            angles[:, joint, "xyz".index(axis)] += degrees * strength * _course(course, cycles + shift)
    return pose(person, angles) @ person.skew


def _presence(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Return the share of the motion that is visible, (T,), 0 in the first frame; some clips have a pause at either end."""
    pauses = rng.uniform(0, 0.3, 2) * (rng.random(2) < 0.25)
    time = np.linspace(0, 1, frames)
    ramp = np.minimum((time - pauses[0]) / 0.06, (1 - pauses[1] - time) / 0.06)
    return (ramp + 0.5).clip(0, 1) * rise(frames)


def _course(course: str, cycles: np.ndarray) -> np.ndarray:
    """Return the displacement, -1 .. 1, at times given in cycles; above 0 as often as below."""
    if course == "swing":
        return np.sin(2 * np.pi * cycles)
    time, out = cycles % 1, 0.2  # out: share of the cycle on the way out
    return np.where(time < out, -np.cos(np.pi * time / out), np.cos(np.pi * (time - out) / (1 - out)))


def _turn(joints: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Turn (T, 25, 3) about the vertical axis by (T,) degrees."""
    radians = np.zeros((len(degrees), 3))
    radians[:, 1] = np.radians(degrees)
    return joints @ rotation(radians).swapaxes(-1, -2)


def _record(rng: np.random.Generator, world: np.ndarray, camera: int) -> np.ndarray:
    """Return what a camera with a body tracker records: its view, with noise and lost frames."""
    frames = len(world)
    origin = np.stack([0.1 * drift(rng, frames), np.zeros(frames), 3.2 + 0.1 * drift(rng, frames)], axis=-1)
    origin[:, 1] -= rng.uniform(0.6, 1.1)  # height of the camera
    seen = _turn(world, CAMERA_YAW[camera] * np.ones(frames)) + origin[:, None]
    # noise, three times as much on the far side of the body
    behind = (seen[..., 2:] - seen[:, SPINE_MID, None, 2:]).clip(0, 0.2) / 0.2
    seen += rng.normal(0, 0.001, seen.shape) * (1 + 2 * behind)
    if rng.random() < 0.05:  # no body in a few frames
        start = int(rng.integers(0, frames - 5))
        seen[start : start + int(rng.integers(1, 5))] = 0
    return seen
