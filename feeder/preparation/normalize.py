"""Bodies as recorded -> the array that the networks read: two bodies ranked, looped to 300 frames, centred, turned.

The same arithmetic as the reference's `data_gen/ntu_gendata.py`, `preprocess.py` and `rotation.py`, its oddities included,
because published results rest on them. A joint or frame counts as empty where its coordinates add up to exactly 0.
"""

import numpy as np

from feeder.skeleton import LEFT_SHOULDER, MAX_FRAMES, NUM_BODIES, NUM_JOINTS, RIGHT_SHOULDER, SPINE_BASE, SPINE_MID

_TINY = 1e-6


def to_sample(bodies: np.ndarray) -> np.ndarray:
    """Return the normalised array of one recording: `normalize(rank_bodies(bodies))`.

    Args:
        bodies: (B, T, 25, 3) in metres, zeros where a body is absent; T in 1..300.

    Returns:
        (3, 300, 25, 2) float32; all zeros if nobody is there.
    """
    return normalize(rank_bodies(bodies))


def rank_bodies(bodies: np.ndarray) -> np.ndarray:
    """Return the two bodies that move most, the most active first; ties go to the later one.

    Args:
        bodies: (B, T, 25, 3), zeros where absent.

    Returns:
        (min(B, 2), T, 25, 3).
    """
    order = np.argsort([_energy(body) for body in bodies], kind="stable")[::-1]
    return bodies[order[:NUM_BODIES]]


def _energy(body: np.ndarray) -> float:
    """Return std(x) + std(y) + std(z) over all joints of the frames (T, 25, 3) in which the body is there."""
    there = body.sum((1, 2)) != 0
    if not there.any():
        return 0.0
    axes = body[there].reshape(-1, 3).T.copy()  # (3, T * V)
    axes -= axes.mean(1, keepdims=True)
    return float(np.sqrt((axes * axes).mean(1)).sum())


def normalize(bodies: np.ndarray) -> np.ndarray:
    """Return bodies looped to 300 frames, centred on the first one's spine and turned by its posture in frame 0.

    Oddities kept: a body whose first frame is empty loses all its empty frames, so that it starts at frame 0, out of
    step with the other one; each body is looped with its own period; where the first body has a gap the second is
    not centred.

    Args:
        bodies: (M, T, 25, 3) in metres, M up to 2, T in 1..300, zeros where a body is absent.

    Returns:
        (3, 300, 25, 2) float32.
    """
    sample = np.zeros((3, MAX_FRAMES, NUM_JOINTS, NUM_BODIES), np.float32)
    looped = {}
    for place, body in enumerate(bodies):
        there = body.sum((1, 2), dtype=np.float32) != 0
        if there.any():
            looped[place] = _loop(body.astype(np.float32), there)
    if not looped:
        return sample
    main = looped.get(0, np.zeros((3, MAX_FRAMES, NUM_JOINTS), np.float32))
    centre = main[:, :, SPINE_MID, None].copy()  # (3, 300, 1)
    for joints in looped.values():
        x, y, z = joints
        there = x + y + z != 0  # joints.sum(0) takes ten times as long
        joints -= centre
        joints *= there
    turn = _posture_turn(main[:, 0].astype(np.float64)).astype(np.float32)
    for place, joints in looped.items():
        sample[..., place] = (turn @ joints.reshape(3, -1)).reshape(joints.shape)
    return sample


def _loop(body: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return a body (T, 25, 3) without empty frames at the end, repeated to (3, 300, 25)."""
    kept = body[: len(there) - there[::-1].argmax()] if there[0] else body[there]
    return kept.transpose(2, 0, 1).copy().take(np.arange(MAX_FRAMES) % len(kept), axis=1)  # (3, 300, 25)


def _posture_turn(joints: np.ndarray) -> np.ndarray:
    """Return the (3, 3) turn that rotates the spine of one frame (3, 25) on +z and then the shoulders on +x.

    The second turn is a general one, not one about z: it rotates the spine away from z again by some degrees.
    """
    spine = joints[:, SPINE_MID] - joints[:, SPINE_BASE]
    upright = _turn(spine, np.array((0.0, 0.0, 1.0)))
    shoulders = upright @ (joints[:, RIGHT_SHOULDER] - joints[:, LEFT_SHOULDER])
    return _turn(shoulders, np.array((1.0, 0.0, 0.0))) @ upright


def _turn(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation that takes the direction of `source` to the unit vector `target`.

    As in the reference it is the identity where there is no direction or no axis: for a vector shorter than 1e-6 and
    for one that points the opposite way.
    """
    axis = _skew_matrix(source) @ target
    if np.abs(source).sum() < _TINY or np.abs(axis).sum() < _TINY:
        return np.eye(3)
    cosine = np.clip(source @ target / np.sqrt(source @ source), -1, 1)
    skew = _skew_matrix(axis / np.sqrt(axis @ axis))
    # Rodrigues: 1 + sin(a) K + (1 - cos(a)) K^2
    return np.eye(3) + np.sqrt(1 - cosine**2) * skew + (1 - cosine) * (skew @ skew)


def _skew_matrix(vector: np.ndarray) -> np.ndarray:
    """Return K (3, 3) with K @ w the cross product of `vector` and w."""
    x, y, z = vector
    return np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
