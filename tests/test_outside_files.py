"""Fuzzing of each reader: a valid file with one entry replaced, cut or mutated is read or refused in one line, nothing else."""

import os
import pickle
import random
import tracemalloc

import numpy as np
import pytest
from raw_files import random_bodies, skeleton_text

from feeder.arrays import DATA, LABEL, NUM_FRAME, SAMPLE_SHAPE, open_split, path_of
from feeder.cli import UserError
from feeder.preparation import ntu, pku

# MUTATIONS=2000 python -m pytest tests/test_outside_files.py
MUTATIONS = int(os.environ.get("MUTATIONS", 200))
WORDS = [
    "",
    "nan",
    "-inf",
    "1e999",
    "-1",
    "0",
    "26",
    "9" * 30,
    "1_0",
    "0x10",
    "1.2.3",
    "x",
    "\u0663",
    "\0",
    "\n",
    " 1 1 ",
]
NAMES = ["a.skeleton", "b.skeleton", "c.skeleton"]
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
    """Return the bytes of a file after one to three small accidents: something replaced, inserted, deleted or doubled."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(raw) + 1), rng.choice((0, 1, rng.randint(2, 40)))
        words = (
            b"",
            b"nan",
            b"\n",
            b" ",
            b"1e999",
            b"9" * 30,
            b"-",
            b"\n25\n",
            b"\n1\n",
            b"\n300\n",
            b"\n-1\n",
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


def store(folder, data=None, num_frame=(5, 300, 7), labels=None):
    """Store the arrays of a part as a sister repository would."""
    data = np.ones((3, *SAMPLE_SHAPE), np.float32) if data is None else data
    np.save(path_of(folder, "train", DATA), data, allow_pickle=True)
    np.save(path_of(folder, "train", NUM_FRAME), np.asarray(num_frame), allow_pickle=True)
    labels = labels if isinstance(labels, bytes) else pickle.dumps(labels or (NAMES, [0, 1, 2]), 2)
    path_of(folder, "train", LABEL).write_bytes(labels)
    return folder


class Trap:
    def __reduce__(self):
        return (open, ("trap", "w"))


ARRAYS = [
    (
        dict(data=np.zeros((3, 3, 50, 25, 2), np.float32)),
        r"float32 \(3, 3, 50, 25, 2\), not float32 \(N, 3, 300, 25, 2\)",
    ),
    (dict(data=np.zeros((3, *SAMPLE_SHAPE), np.float16)), "float16"),
    (dict(data=np.zeros((3, *SAMPLE_SHAPE), np.float32, order="F")), "in C order"),
    (dict(data=np.float32(1)), r"float32 \(\)"),
    (dict(data=np.array([Trap()] * 3)), "not a complete .npy array"),
    (dict(num_frame=[5.0, 6, 7]), "float64"),
    (dict(num_frame=[[5], [6], [7]]), r"int64 \(3, 1\), not integers \(N,\)"),
    (dict(num_frame=[5, 0, 7]), "sample 1 has 0"),
    (dict(num_frame=[5, -1, 7]), "sample 1 has -1"),
    (dict(num_frame=["5", "6", "7"]), "<U1"),
    (dict(num_frame=[5, Trap(), 7]), "not a complete .npy array"),
    (dict(num_frame=[5, 6]), "3 in train_data_joint.npy, 2 in train_num_frame.npy, 3 in train_label.pkl"),
    (dict(labels=(NAMES[:2], [0, 1])), "2 in train_label.pkl"),
    (
        dict(data=np.zeros((0, *SAMPLE_SHAPE), np.float32), num_frame=np.zeros(0, int), labels=([], [])),
        "no samples",
    ),
    (dict(labels=b""), "not a readable label file"),
    (dict(labels=b"\x80\x04garbage"), "not a readable label file"),
    (dict(labels=pickle.dumps((NAMES, [0, Trap(), 2]))), "it contains _?io.open"),
    (dict(labels=pickle.dumps((NAMES, np.zeros(3)))), "it contains numpy"),
    (dict(labels=[0, 1]), "not a pair"),
    (dict(labels={"names": NAMES}), "not a pair"),
    (dict(labels=(NAMES, (0, 1, 2))), "not a pair"),
    (dict(labels=(NAMES, [0, 1])), "3 names but 2 labels"),
    *(
        (dict(labels=(NAMES, [0, wrong, 2])), "sample 1: label")
        for wrong in (0.5, -1, float("nan"), "0", None, True, 2**40, [1])
    ),
    *((dict(labels=(["a", wrong, "c"], [0, 1, 2])), "sample 1: the name is") for wrong in (7, None, ["b"])),
]


@pytest.mark.parametrize("change, reason", ARRAYS)
def test_arrays_that_are_refused(tmp_path, monkeypatch, change, reason):
    monkeypatch.chdir(tmp_path)
    store(tmp_path, **change)
    with pytest.raises(UserError, match=reason) as error:
        open_split(tmp_path, "train")
    assert "\n" not in str(error.value) and not (tmp_path / "trap").exists()


@pytest.mark.parametrize("kind", [DATA, NUM_FRAME, LABEL])
def test_truncated_lengthened_and_missing_files(tmp_path, kind):
    path = path_of(store(tmp_path), "train", kind)
    whole = path.read_bytes()
    changes = [whole[:-1], whole[: len(whole) // 2], whole[:20], b"", b"\x93NUMPY" * 9]
    changes += [
        b"PK\x05\x06" + bytes(18),
        b"PK\x03\x04" + bytes(99),
        *([whole + b"\0"] if kind.endswith("npy") else []),
    ]
    for content in changes:
        path.write_bytes(content)
        with pytest.raises(UserError, match=kind) as error:
            open_split(tmp_path, "train")
        assert "\n" not in str(error.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"{kind}: no such file"):
        open_split(tmp_path, "train")


def test_arrays_of_sister_repositories_open(tmp_path):
    labels = (NAMES, [np.float64(0), np.int64(1), np.float32(2)])
    data = np.ones((3, *SAMPLE_SHAPE), np.float32)
    data[0] = 0
    split = open_split(store(tmp_path, data, (0, 400, 301), labels), "train")
    assert (
        split.names == NAMES
        and split.labels == [0, 1, 2]
        and all(type(label) is int for label in split.labels)
    )
    assert split.num_frame.tolist() == [1, 300, 300]
    assert [note.split(": ", 1)[1] for note in split.notes] == [
        "frame counts above 300 are read as 300: 2 of 3",
        "frame counts of 0 are read as 1: 1 of 3",
    ]
    assert split.data.shape == (3, *SAMPLE_SHAPE)
