"""Normalisation: equal to the reference on its goldens, and to a slow version of our own on random cases."""

import numpy as np
import pytest
from conftest import GOLDENS
from slow_normalize import slow_sample

from feeder.preparation import ntu
from feeder.preparation.normalize import to_sample

RAW = sorted((GOLDENS / "raw").glob("*.skeleton"))


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.stem)
def test_equals_the_reference(path):
    golden = np.load(GOLDENS / "gendata.npz")
    bodies = ntu.read_bodies(path)
    sample = to_sample(bodies)
    expected = golden[f"data_{path.stem}"]
    assert sample.shape == (3, 300, 25, 2) and sample.dtype == np.float32
    assert bodies.shape[1] == golden[f"num_frame_{path.stem}"]
    assert np.abs(sample[:, : expected.shape[1]] - expected).max() < 1e-5
    for found, key in ((sample, "sum"), (np.abs(sample), "abs")):
        assert abs(found.sum(dtype=np.float64) - golden[f"{key}_{path.stem}"]) < 1e-6 * sample.size


def random_case(rng):
    """Return bodies (B, T, 25, 3) with gaps anywhere, absent joints, still bodies, sometimes no direction."""
    count, frames = (
        int(rng.integers(1, 5)),
        int(rng.choice((1, 2, 7, 30, 300), p=(0.1, 0.2, 0.4, 0.27, 0.03))),
    )
    bodies = rng.normal(0, 0.5, (count, 1, 25, 3)) + rng.normal(0, 1, (count, 1, 1, 3)) + (0, 0, 3)
    bodies = bodies + rng.normal(0, rng.choice((0, 0.01, 0.1)), (count, frames, 25, 3)).cumsum(1)
    for body in bodies:
        late, early = sorted(rng.integers(0, frames + 1, 2))
        places = (slice(late), slice(early, None), slice(late, early), rng.random(frames) < 0.4)
        gaps = (..., *places, rng.random((frames, 25)) < 0.1)
        if (kind := rng.integers(8)) < len(gaps):
            body[gaps[kind]] = 0
        elif kind == 6:
            body[:, 1] = body[:, 0] + rng.choice((0, 1e-8, 0.3)) * np.array((0, 0, rng.choice((-1, 1))))
    return bodies


def test_equals_the_slow_version():
    seed = np.random.SeedSequence().entropy % 2**32
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    cases = [random_case(rng) for _ in range(300)]
    differences = np.array([np.abs(to_sample(bodies) - slow_sample(bodies)).max() for bodies in cases])
    # A turn by nearly 180 degrees has an ill-conditioned axis: there alone the two roundings may drift apart.
    assert np.quantile(differences, 0.99) < 1e-5, f"seed {seed}"
    assert differences.max() < 1e-3, f"seed {seed} case {differences.argmax()}"


def person(frames, seed=0):
    return np.random.default_rng(seed).normal(0, 0.4, (frames, 25, 3)) + (0, 0, 3)


def test_late_second_body_moves_to_frame_0_and_has_its_own_period():
    first, second = person(10), person(10, 1) * 0.5
    second[:4] = 0
    sample = to_sample(np.stack((first, second)))
    moved = to_sample(np.stack((first, np.concatenate((second[4:], np.zeros((4, 25, 3)))))))
    assert np.array_equal(sample, moved) and np.array_equal(sample[:, 10, :, 0], sample[:, 0, :, 0])
    assert np.linalg.norm(sample[:, 6, 0, 1] - sample[:, 0, 0, 1]) > 1e-3  # its frame 0, centred elsewhere


def test_second_body_is_not_centred_where_the_first_is_absent():
    bodies = np.stack((person(9), person(9, 1)))
    bodies[0, 4] = 0
    sample = to_sample(bodies)
    assert not sample[:, 4, :, 0].any()
    assert abs(np.linalg.norm(sample[:, 4, :, 1], axis=0) - np.linalg.norm(bodies[1, 4], axis=1)).max() < 1e-5
