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
WORDS = [*"nan -inf 1e999 -1 0 26 1_0 0x10 1.2.3 x".split(), "", "9" * 30, "\u0663", "\0", "\n", " 1 1 "]
VIDEO_LINE = " ".join(f"{number / 7:.6f}" for number in range(150))
TEXTS = {  # kind: reader, check of what it returns, text of a whole file
    "skeleton": (
        ntu.read_bodies,
        lambda bodies: (
            bodies.shape[::2] == (4, 25) and 1 <= bodies.shape[1] <= 300 and np.abs(bodies).max() <= 1e6
        ),
        skeleton_text(random_bodies(np.random.default_rng(0), 3, 2)),
    ),
    "names": (ntu.read_names, lambda names: True, "Heading\n\nS001C002P003R002A013\nS001C002P003R002A014\n"),
    "video": (
        pku.read_video,
        lambda video: video.shape[::2] == (2, 25) and video.shape[1] and np.abs(video).max() <= 1e6,
        f"{VIDEO_LINE}\n" * 3,
    ),
    "rows": (
        pku.read_rows,
        lambda rows: all(1 <= action <= 51 and start >= 0 and end >= 0 for _, action, start, end in rows),
        "32,182,235,2\n1,4925,4036,2\n51,0,7,0\n",
    ),
    "split": (
        lambda path: pku.read_split(path, 1),
        lambda lists: lists.keys() == {"train", "val"} and not lists["train"] & lists["val"],
        "Training videos: \n0002-L, 0002-M, \nValidataion videos: \n0291-L, 0292-L,",
    ),
}


def variants(raw, rng):
    """Yield the bytes of a file with one word replaced by each of WORDS, cut anywhere, and mutated."""
    words = raw.decode().split(" ")
    for place in {0, 1, 2, *rng.sample(range(len(words)), min(12, len(words)))} & set(range(len(words))):
        for word in WORDS:
            yield " ".join([*words[:place], word, *words[place + 1 :]]).encode()
    for end in rng.sample(range(len(raw)), min(40, len(raw))):
        yield raw[:end]
    for _ in range(MUTATIONS):
        yield mutated(rng, raw)


def mutated(rng, raw):
    """Return the bytes of a file after one to three accidents: parts replaced, deleted or doubled."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(raw) + 1), rng.choice((0, 1, rng.randint(2, 40)))
        words = (
            b"",
            b" ",
            b"nan",
            b"-",
            b"1e999",
            b"9" * 30,
            b"\n",
            *(b"\n%d\n" % n for n in (25, 1, 300, -1)),
        )
        doubled = raw[at : at + 40] * 2
        raw[at : at + length] = rng.choice(
            (*words, doubled, bytes([rng.randrange(256)]), bytes([rng.choice(b"09.eE\t_")]))
        )
    return bytes(raw)


@pytest.mark.parametrize("kind", TEXTS)
def test_text_files_are_read_or_refused(tmp_path, kind):
    read, check, text = TEXTS[kind]
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {MUTATIONS} mutations")
    path, refused = tmp_path / "file.txt", 0
    tracemalloc.start()
    for raw in [text.encode(), *variants(text.encode(), random.Random(seed))]:
        path.write_bytes(raw)
        try:
            assert check(read(path))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(f"{path}: "), str(error)
            str(error).encode("ascii", "backslashreplace")
            assert raw != text.encode()
    assert refused and tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_what_is_not_a_readable_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    reasons = {
        "none": "No such file",
        "folder": "not a regular file",
        "fifo": "not a regular file",
        "large": "larger than",
    }
    for kind in TEXTS.keys() - {"names"}:
        for name, reason in reasons.items():
            with pytest.raises(UserError, match=reason):
                TEXTS[kind][0](tmp_path / name)
