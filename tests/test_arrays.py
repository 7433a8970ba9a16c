"""The array files: opened with cheap checks, theirs as well as ours; written whole or not at all."""

import pickle

import numpy as np
import pytest

from feeder import arrays
from feeder.arrays import SAMPLE_SHAPE, SplitWriter, check_space, open_split, publish, remove_stale
from feeder.cli import UserError
from feeder.labels import load_labels

NAMES = ["a.skeleton", "b.skeleton", "c.skeleton"]


def sample(number):
    return np.full(SAMPLE_SHAPE, number, np.float32)


def store(folder, data=None, num_frame=(5, 300, 7), labels=None, part="train"):
    """Store arrays as a sister repository would."""
    np.save(folder / f"{part}_data_joint.npy", np.stack([sample(n) for n in range(3)]) if data is None else data)
    np.save(folder / f"{part}_num_frame.npy", np.asarray(num_frame))
    (folder / f"{part}_label.pkl").write_bytes(pickle.dumps((NAMES, [0, 1, 2]) if labels is None else labels, 2))
    return folder


def test_written_arrays_are_plain_numpy_and_pickle(tmp_path):
    writer = SplitWriter(tmp_path, "val", 3)
    for row in (2, 0, 1):
        writer.write(row, sample(row))
    writer.finish([0, 1, 2], NAMES, [4, 5, 6], [1, 2, 300])
    assert not (tmp_path / "val_label.pkl").exists()
    publish([writer])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val_data_joint.npy", "val_label.pkl", "val_num_frame.npy"]
    data = np.load(tmp_path / "val_data_joint.npy")
    assert data.dtype == np.float32 and data.shape == (3, *SAMPLE_SHAPE) and (data[:, 0, 0, 0, 0] == [0, 1, 2]).all()
    num_frame = np.load(tmp_path / "val_num_frame.npy")
    assert num_frame.dtype == np.int64 and num_frame.tolist() == [1, 2, 300]
    assert pickle.loads((tmp_path / "val_label.pkl").read_bytes()) == (NAMES, [4, 5, 6])


def test_gaps_are_closed(tmp_path):
    writer = SplitWriter(tmp_path, "train", 9)
    for row in (1, 4, 8):
        writer.write(row, sample(row))
    writer.finish([1, 4, 8], NAMES, [0, 0, 0], [9, 9, 9])
    publish([writer])
    assert open_split(tmp_path, "train").data[:, 2, 299, 24, 1].tolist() == [1, 4, 8]


def test_discarded_and_stale_files_go_others_stay(tmp_path):
    writer = SplitWriter(tmp_path, "train", 3)
    writer.write(0, sample(0))
    (tmp_path / "train_notes.tmp").touch()
    writer.discard()
    SplitWriter(tmp_path, "val", 1).close()  # as a killed run leaves it
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train_notes.tmp"]


def test_stale_files_are_told_from_those_of_another_run(tmp_path):
    writers = [SplitWriter(tmp_path, "train", 1) for _ in range(2)]
    for number, writer in enumerate(writers):
        writer.write(0, sample(number))
        remove_stale(tmp_path)
        writer.finish([0], NAMES[:1], [number], [9])
        remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    for number, writer in enumerate(writers):
        publish([writer])
        writer.discard()
        split = open_split(tmp_path, "train")
        assert split.labels == [number] and (split.data == number).all()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, removed = arrays._lock, []

    def remove_first(file, wait=True):
        if not removed:
            removed.append(next(tmp_path.iterdir()))
            removed[0].unlink()
        lock(file, wait)

    monkeypatch.setattr(arrays, "_lock", remove_first)
    writer = SplitWriter(tmp_path, "train", 1)
    assert removed == [writer.temporary(arrays.DATA)] and removed[0].exists()


def test_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "fcntl", None)
    writer = SplitWriter(tmp_path, "train", 1)
    writer.write(0, sample(1))
    writer.finish([0], NAMES[:1], [0], [9])
    publish([writer])
    assert open_split(tmp_path, "train").names == NAMES[:1]


def test_an_older_split_never_mixes_with_a_new_one(tmp_path, monkeypatch):
    store(tmp_path)
    writer = SplitWriter(tmp_path, "train", 1)
    writer.write(0, sample(9))
    writer.finish([0], ["z.skeleton"], [0], [4])
    replace, moved = arrays.os.replace, []

    def replace_two(source, target):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target)
        replace(source, target)

    assert len(open_split(tmp_path, "train").names) == 3
    monkeypatch.setattr(arrays.os, "replace", replace_two)
    with pytest.raises(KeyboardInterrupt):
        publish([writer])
    with pytest.raises(UserError, match="train_label.pkl: no such file"):
        open_split(tmp_path, "train")


def test_opens_theirs(tmp_path):
    labels = (NAMES, [np.float64(0), np.int64(1), np.float32(2)])
    split = open_split(store(tmp_path, num_frame=(5, 400, 301), labels=labels), "train")
    assert split.names == NAMES and split.labels == [0, 1, 2] and all(type(label) is int for label in split.labels)
    assert split.num_frame.tolist() == [5, 300, 300] and "2 frame counts above 300" in split.notes[0]
    assert isinstance(split.data, np.memmap) and split.data[1, 0, 0, 0, 0] == 1


@pytest.mark.parametrize("protocol", range(6))
def test_label_pickles_of_all_protocols(tmp_path, protocol):
    path = tmp_path / "label.pkl"
    for labels in ([3, 0], [np.float64(3), np.float64(0)], [np.int32(3), np.int64(0)]):
        for content in ((["a", "b"], labels), [("a", "b"), tuple(labels)]):
            path.write_bytes(pickle.dumps(content, protocol))
            assert load_labels(path) == (["a", "b"], [3, 0])


def test_label_pickle_of_python_2(tmp_path):
    text = b"((lp0\nS'a.skeleton'\np1\naS'b.skeleton'\np2\na(lp3\nI3\naI0\natp4\n."
    scalar = b"cnumpy.core.multiarray\nscalar\np5\n(cnumpy\ndtype\np6\n(S'f8'\nI0\nI1\ntRp7\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbS"
    scalar += rb"'\x00\x00\x00\x00\x00\x00\x08@'" + b"\ntR"
    for content in (text, text.replace(b"I3\na", scalar + b"a", 1)):
        (tmp_path / "label.pkl").write_bytes(content)
        assert load_labels(tmp_path / "label.pkl") == (["a.skeleton", "b.skeleton"], [3, 0])


class Trap:
    def __reduce__(self):
        return (open, ("trap", "w"))


@pytest.mark.parametrize(
    "content, reason",
    [(b"", "no label file"), (b"\x80\x04garbage", "no label file"), (pickle.dumps((NAMES, [0, 1, 2]))[:-9], "no label file"),
     (pickle.dumps((["a"], [Trap()])), "it holds _?io.open"), (pickle.dumps((["a"], np.zeros(1))), "it holds numpy"),
     (pickle.dumps([0, 1]), "not a pair"), (pickle.dumps({}), "not a pair"), (pickle.dumps((["a"], [0, 1])), "1 names but 2"),
     (pickle.dumps((["a"], [0.5])), "sample 0: label 0.5"), (pickle.dumps((["a"], [-1])), "label -1"),
     (pickle.dumps((["a"], [float("nan")])), "label nan"), (pickle.dumps((["a"], ["0"])), "label '0'"),
     (pickle.dumps(([7], [0])), "the name is 7")],
)  # fmt: skip
def test_label_files_that_are_refused(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "label.pkl").write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        load_labels(tmp_path / "label.pkl")
    assert "\n" not in str(error.value) and not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "change, reason",
    [(dict(data=np.zeros((3, 3, 50, 25, 2), np.float32)), r"float32 \(3, 3, 50, 25, 2\), not float32 \(N, 3, 300, 25, 2\)"),
     (dict(data=np.zeros((3, *SAMPLE_SHAPE))), "float64"),
     (dict(data=np.zeros((3, *SAMPLE_SHAPE), np.float32, order="F")), "in C order"), (dict(num_frame=[5.0, 6, 7]), "float64"),
     (dict(num_frame=[[5], [6], [7]]), r"int64 \(3, 1\), not integers \(N,\)"), (dict(num_frame=[5, 0, 7]), "sample 1 has 0"),
     (dict(num_frame=[5, 6]), "3 in train_data_joint.npy, 2 in train_num_frame.npy, 3 in train_label.pkl"),
     (dict(labels=(NAMES[:2], [0, 1])), "2 in train_label.pkl"),
     (dict(data=np.zeros((0, *SAMPLE_SHAPE), np.float32), num_frame=np.zeros(0, int), labels=([], [])), "no samples")],
)  # fmt: skip
def test_arrays_that_are_refused(tmp_path, change, reason):
    store(tmp_path, **change)
    with pytest.raises(UserError, match=reason) as error:
        open_split(tmp_path, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["data_joint.npy", "num_frame.npy", "label.pkl"])
def test_truncated_lengthened_and_absent_files(tmp_path, kind):
    path = store(tmp_path) / f"train_{kind}"
    whole = path.read_bytes()
    changes = [whole[:-1], whole[: len(whole) // 2], whole[:20], b"", b"\x93NUMPY" * 9]
    changes += [b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + bytes(99), *([whole + b"\0"] if kind.endswith("npy") else [])]
    for content in changes:
        path.write_bytes(content)
        with pytest.raises(UserError, match=kind) as error:
            open_split(tmp_path, "train")
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=f"{kind}: no such file"):
        open_split(tmp_path, "train")


def test_too_small_a_disk_is_told_before(tmp_path):
    check_space(tmp_path, 1)
    with pytest.raises(UserError, match=r"180000.00 GB needed, [\d.]+ GB free"):
        check_space(tmp_path, 10**9)
