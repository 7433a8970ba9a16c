"""The files of a split: written as a whole or not at all; read, or refused in one line."""

import itertools
import os
import pickle
import shutil
import signal

import numpy as np
import pytest

from feeder import arrays
from feeder.arrays import DATA, LABEL, NUM_FRAME, PARTS, SAMPLE_SHAPE, open_split, path_of, write_splits
from feeder.cli import UserError

BOTH = ["xsub", "xview"]
NAMES = ["a.skeleton", "b.skeleton", "c.skeleton"]


def sample(number):
    return np.full(SAMPLE_SHAPE, number, np.float32)


def write(root, label, benchmarks=BOTH):
    """Write one sample to both parts of each benchmark, with that label and value."""
    with write_splits(root, benchmarks) as writer:
        for part in PARTS:
            writer.add(dict.fromkeys(benchmarks, part), f"{part}{label}", label, 9, sample(label))


def label_of(folder):
    """Return the one label and value of complete arrays, None where none open."""
    try:
        splits = [open_split(folder, part) for part in PARTS]
    except UserError:
        return None
    values = {split.labels[0] for split in splits} | {float(split.data[0, 2, 299, 24, 1]) for split in splits}
    assert len(values) == 1, "a mixture"
    return int(values.pop())


def labels_of(root):
    return [label_of(root / name) for name in BOTH]


def entries(root):
    return sorted(path.name for path in root.iterdir())


def test_written_arrays_are_plain_numpy_and_pickle(tmp_path):
    with write_splits(tmp_path / "new", BOTH) as writer:
        for number in range(3):
            places = {"xsub": "train", "xview": "val"}
            writer.add(places, f"s{number}", number + 4, 100 * (number + 1), sample(number))
        assert not (tmp_path / "new/xsub").exists()
    folder = tmp_path / "new/xsub"
    assert entries(tmp_path / "new") == BOTH and len(entries(folder)) == 6
    data, num_frame = np.load(folder / "train_data_joint.npy"), np.load(folder / "train_num_frame.npy")
    assert data.dtype == np.float32 and data.shape == (3, *SAMPLE_SHAPE)
    assert (data[:, 0, 0, 0, 0] == [0, 1, 2]).all()
    assert num_frame.dtype == np.int64 and num_frame.tolist() == [100, 200, 300]
    assert pickle.loads((folder / "train_label.pkl").read_bytes()) == (["s0", "s1", "s2"], [4, 5, 6])
    assert np.load(folder / "val_data_joint.npy").shape == (0, *SAMPLE_SHAPE)


def test_an_error_leaves_the_older_arrays_and_nothing_else(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(RuntimeError), write_splits(tmp_path, BOTH) as writer:
        writer.add({"xsub": "train"}, "a", 2, 9, sample(2))
        raise RuntimeError
    with pytest.raises(ValueError, match="num_frame 301"), write_splits(tmp_path, BOTH) as writer:
        writer.add({"xsub": "train"}, "a", 2, 301, sample(2))
    assert labels_of(tmp_path) == [1, 1] and entries(tmp_path) == BOTH


def test_a_folder_may_be_a_link(tmp_path):
    write(tmp_path / "disk", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/xsub").symlink_to(tmp_path / "disk/xsub")
    write(tmp_path / "data", 2, ["xsub"])
    assert (tmp_path / "data/xsub").is_symlink() and entries(tmp_path / "disk") == BOTH
    assert labels_of(tmp_path / "disk") == [2, 1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("after", [False, True])
def test_a_signal_before_or_after_each_rename(tmp_path, number, after):
    """With older arrays of two splits there are four renames; the next run cleans up after each."""
    write(tmp_path / "older", 1)
    for count in range(4):
        root = tmp_path / str(count)
        shutil.copytree(tmp_path / "older", root)
        if not (child := os.fork()):
            signal_at_rename(number, count, after)
            try:
                write(root, 2)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        if number == signal.SIGINT:
            assert None not in labels_of(root) and entries(root) == BOTH
        for name in BOTH:  # what is not there can be restored
            assert label_of(root / name) or label_of(next(root.glob(f"{name}.old-*"))) == 1
        with pytest.raises(RuntimeError), write_splits(root, BOTH):
            assert set(labels_of(root)) <= {1, 2}, "restored before anything is written"
            raise RuntimeError
        write(root, 3)
        assert labels_of(root) == [3, 3] and entries(root) == BOTH


def signal_at_rename(number, count, after):
    """Have the process send itself a signal before or after the call `count` (from 0) of os.rename."""
    rename, calls = os.rename, itertools.count()

    def rename_and_signal(source, target):
        due = next(calls) == count
        if due and not after:
            os.kill(os.getpid(), number)
        rename(source, target)
        if due and after:
            os.kill(os.getpid(), number)

    arrays.os.rename = rename_and_signal


def test_a_second_run_may_win_but_mixes_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), write_splits(tmp_path, BOTH) as writer:
        writer.add(dict.fromkeys(BOTH, "train"), "a", 1, 9, sample(1))
        write(tmp_path, 2)  # takes the first for one that was killed
    assert labels_of(tmp_path) == [2, 2] and entries(tmp_path) == BOTH


def store(folder, data=None, num_frame=(5, 300, 7), labels=(NAMES, [3, 0, 2]), protocol=2):
    """Store the training part as another repository would."""
    data = np.ones((3, *SAMPLE_SHAPE), np.float32) if data is None else data
    np.save(path_of(folder, "train", DATA), data, allow_pickle=True)
    np.save(path_of(folder, "train", NUM_FRAME), np.asarray(num_frame), allow_pickle=True)
    labels = labels if isinstance(labels, bytes) else pickle.dumps(labels, protocol)
    path_of(folder, "train", LABEL).write_bytes(labels)
    return folder


@pytest.mark.parametrize("protocol", range(6))
def test_label_pickles_that_people_have(tmp_path, protocol):
    """Lists, tuples and arrays of Python's and NumPy's text and numbers."""
    names = [NAMES, tuple(NAMES), [*map(np.str_, NAMES)], np.array(NAMES), np.array(NAMES, object)]
    names += [[*map(np.bytes_, NAMES)], np.array(NAMES, "S")]
    numbers = [[3, 0, 2], (3, 0, 2), [np.float64(3), np.int32(0), np.array(2, ">i8")[()]]]
    numbers += [np.array([3, 0, 2], kind) for kind in ("i8", ">i4", "u1", "f4", object)]
    store(tmp_path)
    for pair in itertools.product(names, numbers):
        path_of(tmp_path, "train", LABEL).write_bytes(pickle.dumps(pair, protocol))
        split = open_split(tmp_path, "train")
        assert (split.names, split.labels) == (NAMES, [3, 0, 2]), pair
        assert {type(value) for value in split.names + split.labels} == {str, int}


def test_label_pickle_of_python_2(tmp_path):
    text = b"((lp0\nS'a.skeleton'\np1\naS'b.skeleton'\naS'c.skeleton'\na(lp3\nI3\naI0\naI2\natp4\n."
    scalar = b"cnumpy.core.multiarray\nscalar\np5\n(cnumpy\ndtype\np6\n(S'f8'\nI0\nI1\ntRp7\n(I3\nS'<'\n"
    scalar += b"NNNI-1\nI-1\nI0\ntbS'" + rb"\x00\x00\x00\x00\x00\x00\x08@" + b"'\ntR"
    for content in (text, text.replace(b"I3\na", scalar + b"a", 1)):
        split = open_split(store(tmp_path, labels=content), "train")
        assert (split.names, split.labels) == (NAMES, [3, 0, 2])


class Trap:
    """An object whose pickle calls a function."""

    def __init__(self, *call):
        self.call = call or (open, ("trap", "w"))

    def __reduce__(self):
        return self.call


class TrapInArray(Trap):
    """An array's pickle with a state that no array has."""

    def __reduce__(self):
        function, arguments, state = np.zeros(3).__reduce__()
        return function, arguments, (1, (3,), Trap(np.dtype, ("O",)), False, [Trap()] * 3)


EMPTY = dict(data=np.zeros((0, *SAMPLE_SHAPE), "f4"), num_frame=np.zeros(0, int), labels=([], []))
WRONG_LABELS = (0.5, -1, "0", None, [1], 2**40, float("nan"), float("inf"))
REFUSED = [
    (dict(data=np.zeros((3, 3, 50, 25, 2), np.float32)), r"\(3, 3, 50, 25, 2\), not float32 \(N, 3, 300"),
    (dict(data=np.zeros((3, *SAMPLE_SHAPE), np.float16)), "float16"),
    (dict(data=np.zeros((3, *SAMPLE_SHAPE), np.float32, order="F")), "in C order"),
    (dict(data=np.array([Trap()] * 3)), "not a complete .npy array"),
    (dict(num_frame=[5.0, 6, 7]), "float64"),
    (dict(num_frame=[[5], [6], [7]]), r"int64 \(3, 1\), not integers \(N,\)"),
    (dict(num_frame=[5, 0, 7]), "sample 1 has 0"),
    (dict(num_frame=[5, -1, 7]), "sample 1 has -1"),
    (dict(num_frame=[5, Trap(), 7]), "not a complete .npy array"),
    (dict(num_frame=[5, 6]), "3 clips, 2 frame counts, 3 labels"),
    (dict(labels=(NAMES[:2], [0, 1])), "3 clips, 3 frame counts, 2 labels"),
    (EMPTY, "no samples"),
    (dict(labels=b""), "not names and labels"),
    (dict(labels=b"\x80\x04garbage"), "not names and labels"),
    (dict(labels=(NAMES, [0, Trap(), 2])), "it contains _?io.open"),
    (dict(labels=(NAMES, TrapInArray())), "it contains _?io.open"),
    (dict(labels=(NAMES, Trap(np.dtype, ("i8", Trap())))), "it contains _?io.open"),
    (dict(labels=(NAMES, Trap(np.ndarray, ((3,), "O")))), "not callable"),
    (dict(labels=(NAMES, np.array([0, 1, 2j]))), "the data type c16"),
    (dict(labels=(NAMES, np.zeros((3, 2)))), "not names and labels"),
    (dict(labels=[0, 1]), "not names and labels"),
    (dict(labels={"names": NAMES}), "not names and labels"),
    (dict(labels=(NAMES, [0, 1])), "3 names but 2 labels"),
    *((dict(labels=(NAMES, [0, label, 2])), "not names and labels") for label in WRONG_LABELS),
]


@pytest.mark.parametrize("change, reason", REFUSED)
def test_arrays_that_are_refused(here, change, reason):
    store(here, **change)
    with pytest.raises(UserError, match=reason) as error:
        open_split(here, "train")
    assert "\n" not in str(error.value) and not (here / "trap").exists()


@pytest.mark.parametrize("kind", [DATA, NUM_FRAME, LABEL])
def test_truncated_and_missing_files(tmp_path, kind):
    path = path_of(store(tmp_path), "train", kind)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:20], b"", b"\x93NUMPY" * 9, b"PK\x05\x06"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=kind) as error:
            open_split(tmp_path, "train")
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=f"{kind}: no such file"):
        open_split(tmp_path, "train")


def test_arrays_of_related_repositories_open(tmp_path):
    data = np.ones((3, *SAMPLE_SHAPE), np.float32)
    data[0] = 0
    split = open_split(store(tmp_path, data, (0, 400, 301)), "train")
    assert split.num_frame.tolist() == [1, 300, 300] and split.data.shape == (3, *SAMPLE_SHAPE)
    assert [note.split("counts ", 1)[1] for note in split.notes] == [
        "above 300 are read as 300: 2 of 3",
        "of 0 are read as 1: 1 of 3",
    ]


def test_folders_of_the_user_stay(tmp_path):
    for name in ("xsub.old-mine", "xsub.tmp-try"):
        (tmp_path / name).mkdir()
    with arrays.write_splits(tmp_path, ["xsub"]) as writer:
        for part in arrays.PARTS:
            writer.add({"xsub": part}, part, 0, 1, np.zeros(SAMPLE_SHAPE, np.float32))
    assert sorted(os.listdir(tmp_path)) == ["xsub", "xsub.old-mine", "xsub.tmp-try"]
