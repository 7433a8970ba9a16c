"""Raw `.skeleton` files made up for the tests."""

import numpy as np


def skeleton_text(bodies):
    """Return the text of a file; bodies (B, T, 25, 3), a body that is all zeros in a frame is not written there."""
    lines = [str(bodies.shape[1])]
    for frame in range(bodies.shape[1]):
        present = [body[frame] for body in bodies if body[frame].any()]
        lines.append(str(len(present)))
        for place, joints in enumerate(present):
            lines += [f"7205759403793{place:04d} 0 1 1 1 1 0 0.0112 -0.256 2", "25"]
            lines += [
                f"{x:.7g} {y:.7g} {z:.7g} 257.1 -191.9 965.6 479.7 0.1 0.2 0.3 0.4 2" for x, y, z in joints
            ]
    return "\n".join(lines) + "\n"


def random_bodies(rng, frames, bodies=1):
    """Return bodies (B, T, 25, 3) that stand about 3 m away and wander."""
    stand = rng.normal(0, 0.4, (bodies, 1, 25, 3)) + (0, 0, 3)
    return stand + rng.normal(0, 0.02, (bodies, frames, 25, 3)).cumsum(1)


def write_raw(folder, names, seed=0, frames=(2, 9)):
    """Write a small file for each name (no suffix) and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        text = skeleton_text(random_bodies(rng, int(rng.integers(*frames)), int(rng.integers(1, 3))))
        (folder / f"{name}.skeleton").write_text(text)
    return folder


def sample_names(count):
    """Return names of NTU-60 samples that fall into both parts of both protocols, none on the missing lists."""
    names = (
        f"S017C{c:03d}P{p:03d}R001A{a:03d}" for a in range(1, 61) for p in range(1, 41) for c in (1, 2, 3)
    )
    return [next(names) for _ in range(count)]
