"""The normalisation once more, frame by frame, to hold the vectorised one against."""

import math

import numpy as np


def slow_sample(bodies):
    """Return (3, 300, 25, 2) for bodies (B, T, 25, 3)."""
    chosen = sorted(range(len(bodies)), key=lambda i: (energy(bodies[i]), i), reverse=True)[:2]
    people = [loop([frame.astype(np.float32) for frame in bodies[i]]) for i in chosen]
    if any(person is not None for person in people):
        centre(people)
        turn(people, 0, 1, (0, 0, 1))
        turn(people, 4, 8, (1, 0, 0))
    sample = np.zeros((3, 300, 25, 2), np.float32)
    for place, person in enumerate(people):
        for t, frame in enumerate(person or []):
            sample[:, t, :, place] = frame.T
    return sample


def energy(body):
    joints = [joint for frame in body if frame.sum() != 0 for joint in frame.tolist()]
    total = 0.0
    for values in zip(*joints, strict=True):
        mean = math.fsum(values) / len(values)
        total += math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return total


def loop(frames):
    """Return 300 frames, or None if nobody is there."""
    if all(frame.sum() == 0 for frame in frames):
        return None
    if frames[0].sum() == 0:
        frames = [frame for frame in frames if frame.sum() != 0]
    while frames[-1].sum() == 0:
        frames = frames[:-1]
    return [frames[t % len(frames)].copy() for t in range(300)]


def centre(people):
    for t in range(300):
        spine = np.zeros(3, np.float32) if people[0] is None else people[0][t][1].copy()
        for person in people:
            if person is not None:
                x, y, z = person[t].T
                person[t] = np.where((x + y + z != 0)[:, None], person[t] - spine, 0)


def turn(people, start, end, target):
    """Turn everybody so that the first body's bone from `start` to `end` points to `target` in frame 0."""
    if people[0] is None:
        return
    bone = (people[0][0][end] - people[0][0][start]).astype(np.float64)
    axis = np.cross(bone, target)
    if abs(bone).sum() < 1e-6 or abs(axis).sum() < 1e-6:
        return
    angle = math.acos(max(-1, min(1, np.dot(bone, target) / np.linalg.norm(bone))))
    turned_axes = [about(axis / np.linalg.norm(axis), angle, unit) for unit in np.eye(3)]
    for person in people:
        for t, frame in enumerate(person or []):
            person[t] = (frame @ turned_axes).astype(np.float32)


def about(axis, angle, point):
    """Rodrigues' formula for one point."""
    along = axis * np.dot(axis, point) * (1 - math.cos(angle))
    return point * math.cos(angle) + np.cross(axis, point) * math.sin(angle) + along
