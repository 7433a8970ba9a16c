"""Fuzzing of each reader of raw files: a damaged file is read, or refused in one line, nothing else."""

import os
import random
import tracemalloc

import numpy as np
import pytest
from raw_files import random_bodies, skeleton_text

from feeder.cli import UserError
from feeder.preparation import ntu, pku

# MUTATIONS=2000 python -m pytest tests/test_outside_files.py
MUTATIONS = int(os.environ.get("MUTATIONS", 200))
WORDS = ["", "nan", "-inf", "1e999", "-1", "0", "26", "9" * 30, "1_0", "0x10", "1.2.3", "x", "\u0663", "\0"]
WORDS += ["\n", " 1 1 ", " ", "-", "\n25\n", "\n1\n", "\n300\n", "\n-1\n", "\r", "\t", "\x1c", "\xff"]


def is_video(bodies, count):
    return bodies.shape[0] <= count and bodies.shape[2:] == (25, 3) and np.abs(bodies).max(initial=0) <= 1e6


LISTS = "Training videos: \n0002-L, 0002-M, \nValidataion videos: \n0291-L, 0292-L,"
TEXTS = {  # kind: reader, check of what it returns, text of a whole file
    "skeleton": (
        ntu.read_bodies,
        lambda bodies: is_video(bodies, 4),
        skeleton_text(random_bodies(np.random.default_rng(0), 3, 2)),
    ),
    "video": (
        pku.read_video,
        lambda bodies: is_video(bodies, 2),
        f"{' '.join(f'{number / 7:.6f}' for number in range(150))}\n" * 3,
    ),
    "rows": (
        pku.read_rows,
        lambda rows: all(1 <= action <= 51 and start >= 0 and end >= 0 for _, action, start, end in rows),
        "32,182,235,2\n1,4925,4036,2\n51,0,7,0\n",
    ),
    "split": (pku.read_split, lambda videos: set(videos.values()) <= {"train", "val"}, LISTS),
}


def mutated(rng, raw):
    """Return the bytes of a file after one to three accidents: replaced, inserted, deleted, doubled, cut."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at, length = (
            rng.randrange(len(raw) + 1),
            rng.choice((0, 1, rng.randint(2, 40), rng.choice((0, len(raw))))),
        )
        word = rng.choice(WORDS).encode()
        raw[at : at + length] = rng.choice((word, word, raw[at : at + 40] * 2, bytes([rng.randrange(256)])))
    return bytes(raw)


@pytest.mark.parametrize("kind", TEXTS)
def test_text_files_are_read_or_refused(tmp_path, kind):
    read, check, text = TEXTS[kind]
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {MUTATIONS} mutations")
    rng, path, refused = random.Random(seed), tmp_path / "file.txt", 0
    path.write_text(text)
    assert check(read(path))
    tracemalloc.start()
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(rng, text.encode()))
        try:
            assert check(read(path))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(f"{path}: "), str(error)
    assert refused and tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
