"""Synthetic actions: what the people of feeder/synthetic/people.py do, and the clip that a camera records of it."""

from typing import NamedTuple

import numpy as np

from feeder.skeleton import SPINE_MID
from feeder.synthetic.people import (
    CAMERA_YAW,
    CLIP_FRAMES,
    FPS,
    draw_posture,
    drift,
    joint_indices,
    make_person,
    pose,
    rise,
    rotation,
)


class Action(NamedTuple):
    """A motion: which angles swing about the posture, how far, how fast and with which course over a cycle.

    `sides`: "one" limb of a pair, "both" alike, or "alternate" (half a cycle apart). `course`: "swing" (there and back
    alike), "strike" (out quickly, back slowly), "draw" (out slowly, back quickly). `swings` maps a part and an axis to
    (degrees, lag in cycles). `walk`: +1 for two who come together, -1 for two who part, 0 for two who stay, None alone.
    """

    name: str
    hertz: float
    sides: str
    course: str
    swings: dict[tuple[str, str], tuple[float, float]]
    walk: int | None = None


_ONE_ARM = {("shoulder", "z"): (44, 0), ("shoulder", "y"): (44, 0.1), ("elbow", "x"): (40, 0)}
_BOTH_ARMS = {("shoulder", "y"): (52, 0), ("shoulder", "x"): (20, 0), ("elbow", "x"): (32, 0)}
_REACH = {("shoulder", "x"): (50, 0), ("elbow", "x"): (-60, 0), ("spine mid", "y"): (12, 0)}
_CIRCLE = {("shoulder", "x"): (55, 0), ("shoulder", "z"): (50, 0.25)}
_CIRCLE_BACK = {("shoulder", "x"): (55, 0), ("shoulder", "z"): (50, -0.25)}
_LEGS = {("hip", "x"): (42, 0), ("knee", "x"): (-55, 0.04), ("ankle", "x"): (12, 0)}
_STEP = {("hip", "x"): (30, 0), ("knee", "x"): (-40, 0.15), ("shoulder", "x"): (-12, 0)}
_BOW = {("spine base", "x"): (-26, 0), ("spine mid", "x"): (-22, 0), ("neck", "x"): (-15, 0.05)}
_DRINK = {("shoulder", "x"): (25, 0), ("elbow", "x"): (50, 0), ("neck", "x"): (16, 0.1)}

# The first ten are a single person's. Several share their poses and differ in speed or in the order of the poses.
ACTIONS = (
    Action("wave", 1.7, "one", "swing", _ONE_ARM),
    Action("raise one arm", 0.4, "one", "swing", _ONE_ARM),
    Action("clap", 1.7, "both", "swing", _BOTH_ARMS),
    Action("squat", 0.5, "both", "swing", _LEGS),
    Action("walk on the spot", 1.0, "alternate", "swing", _LEGS),
    Action("punch", 0.9, "one", "strike", _REACH),
    Action("drink", 0.5, "one", "swing", _DRINK),
    Action("arm circles forwards", 0.8, "both", "swing", _CIRCLE),
    Action("kick", 0.9, "one", "strike", _LEGS),
    Action("bow", 0.5, "both", "swing", _BOW),
    Action("pull", 0.9, "one", "draw", _REACH),
    Action("open both arms", 0.4, "both", "swing", _BOTH_ARMS),
    Action("walk apart", 0.9, "alternate", "swing", _STEP, walk=-1),
    Action("arm circles backwards", 0.8, "both", "swing", _CIRCLE_BACK),
    Action("walk towards each other", 0.9, "alternate", "swing", _STEP, walk=1),
    Action("handshake", 1.7, "one", "swing", _REACH, walk=0),
    Action("push", 0.9, "both", "strike", _REACH, walk=0),
)
_STRENGTH = 0.5  # of the swings above: small against the wandering posture, so that no pose tells the action
IDLE = Action("idle", 0.5, "both", "swing", {})


def make_clip(rng: np.random.Generator, action: int, subject: int, camera: int = 2, frames: int = 0) -> np.ndarray:
    """Return one recorded clip; with the same generator state and another camera, the same performance seen from there.

    Args:
        rng: everything that varies from clip to clip.
        action: 0 .. len(ACTIONS) - 1, or -1 for a person who does nothing in particular.
        subject: number of the performer, 0 or more.
        camera: 1, 2 or 3.
        frames: length at 30 frames a second, 12 or more; 0 draws 60 to 110.

    Returns:
        (bodies, T, 25, 3) metres in the camera's frame (x to its left, y up, z away from it), bodies 1 or 2; zeros
        where the sensor lost a body.
    """
    act = ACTIONS[action] if action >= 0 else IDLE
    frames = frames or int(rng.integers(CLIP_FRAMES[0], CLIP_FRAMES[1] + 1))
    partner = int(rng.integers(1000, 2000))
    world = _perform(rng, act, subject, frames)[None]
    if act.walk is not None:
        world = np.stack([world[0], _perform(rng, act, partner, frames)])
        world = _face_each_other(rng, world, act.walk)
    turn = rng.uniform(-40, 40) + 5 * drift(rng, frames)  # the pair turns slowly as a whole
    return _record(np.random.default_rng([int(rng.integers(2**32)), camera]), _turned(world, turn), camera)


def _perform(rng: np.random.Generator, act: Action, subject: int, frames: int) -> np.ndarray:
    """One person's performance, (T, 25, 3) metres, in the person's own frame."""
    person = make_person(subject)
    angles = draw_posture(rng, person, frames)
    cycles = act.hertz * person.tempo * rng.uniform(0.97, 1.03) * np.arange(frames) / FPS + rng.random()
    strength = _STRENGTH * person.amplitude * rng.uniform(0.95, 1.05) * _presence(rng, frames)
    right = rng.random() < person.right_handed
    for (part, axis), (degrees, lag) in act.swings.items():
        joints = joint_indices(part)
        for side, joint in enumerate(joints):
            if len(joints) == 2 and act.sides == "one" and side != right:
                continue
            shift = lag + (0.5 if act.sides == "alternate" and side else 0)
            angles[:, joint, "xyz".index(axis)] += degrees * strength * _course(act.course, cycles + shift)
    return pose(person, angles) @ person.skew


def _presence(rng: np.random.Generator, frames: int) -> np.ndarray:
    """How much of the motion is there, (T,) in 0 .. 1: none in the first frame; some clips begin or end with a pause."""
    pauses = rng.uniform(0, 0.3, 2) * (rng.random(2) < 0.25)
    place = np.linspace(0, 1, frames)
    ramp = np.minimum((place - pauses[0]) / 0.06, (1 - pauses[1] - place) / 0.06)
    return (ramp + 0.5).clip(0, 1) * rise(frames)


def _course(course: str, cycles: np.ndarray) -> np.ndarray:
    """A cycle's course, -1 .. 1, as often above as below its middle."""
    if course == "swing":
        return np.sin(2 * np.pi * cycles)
    place = (cycles if course == "strike" else -cycles) % 1
    out = 0.2  # share of the cycle on the way out
    return np.where(place < out, -np.cos(np.pi * place / out), np.cos(np.pi * (place - out) / (1 - out)))


def _face_each_other(rng: np.random.Generator, world: np.ndarray, walk: int) -> np.ndarray:
    """Place two people, (2, T, 25, 3), face to face."""
    frames = world.shape[1]
    distance = np.full(frames, rng.uniform(0.8, 2.6))
    if walk:
        course = np.linspace(-0.5, 0.5, frames) * rng.uniform(1.0, 1.8) * -walk
        distance = distance + course - min(0, (distance + course).min() - 0.6)
    facing = 180 + rng.uniform(-20, 20)
    bearing = np.radians(rng.uniform(-25, 25))
    ahead = np.stack([np.sin(bearing) * distance, 0 * distance, -np.cos(bearing) * distance], axis=-1)
    placed = np.stack([world[0], _turned(world[1], np.full(frames, facing)) + ahead[:, None]])
    return placed - ahead[:, None] / 2


def _turned(joints: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Turn (..., T, 25, 3) about the vertical axis by (T,) degrees."""
    radians = np.zeros((len(degrees), 3))
    radians[:, 1] = np.radians(degrees)
    return joints @ rotation(radians).swapaxes(-1, -2)


def _record(rng: np.random.Generator, world: np.ndarray, camera: int) -> np.ndarray:
    """What the camera's body tracker makes of it: a view, noise (more on the far side), lost bodies."""
    bodies, frames = world.shape[:2]
    place = np.stack([0.1 * drift(rng, frames), np.zeros(frames), 3.2 + 0.1 * drift(rng, frames)], axis=-1)
    place[:, 1] -= rng.uniform(0.6, 1.1)  # the camera's height above the ground
    seen = _turned(world, np.full(frames, CAMERA_YAW[camera])) + place[:, None]
    behind = (seen[..., 2:] - seen[:, :, SPINE_MID, None, 2:]).clip(0, 0.2) / 0.2  # hidden by the body itself
    seen += rng.normal(0, 0.001, seen.shape) * (1 + 2 * behind)
    if rng.random() < 0.05:  # nobody is found in a few frames
        start = int(rng.integers(0, frames - 5))
        seen[:, start : start + int(rng.integers(1, 5))] = 0
    if bodies == 2 and rng.random() < 0.15:  # the second person is found late
        seen[1, : int(rng.integers(2, frames // 4))] = 0
    return seen
