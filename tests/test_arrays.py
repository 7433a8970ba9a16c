"""Writing arrays: complete or not at all, older ones kept until then; label pickles of all kinds."""

import itertools
import os
import pickle
import shutil
import signal

import numpy as np
import pytest

from feeder import arrays
from feeder.arrays import SAMPLE_SHAPE, check_space, open_split, write_splits
from feeder.cli import UserError
from feeder.labels import load_labels

BOTH = ["xsub", "xview"]
FILES = sorted(
    f"{part}_{kind}" for part in arrays.PARTS for kind in (arrays.DATA, arrays.NUM_FRAME, arrays.LABEL)
)


def sample(number):
    return np.full(SAMPLE_SHAPE, number, np.float32)


def write(root, label, benchmarks=BOTH):
    """Write one sample to both parts of each benchmark, with that label and value."""
    with write_splits(root, benchmarks) as writer:
        for part in arrays.PARTS:
            writer.add(dict.fromkeys(benchmarks, part), f"{part}{label}", label, 9, sample(label))


def label_of(folder):
    """Return the one label and value of arrays that are complete, None where none open."""
    try:
        splits = [open_split(folder, part) for part in arrays.PARTS]
    except UserError:
        return None
    values = {split.labels[0] for split in splits} | {float(split.data[0, 2, 299, 24, 1]) for split in splits}
    assert len(values) == 1  # never a mixture
    return int(values.pop())


def entries(root):
    return sorted(path.name for path in root.iterdir())


def test_written_arrays_are_plain_numpy_and_pickle(tmp_path):
    with write_splits(tmp_path / "new", ["xsub", "xview"]) as writer:
        for number in range(3):
            writer.add(
                {"xsub": "train", "xview": "val"},
                f"s{number}",
                number + 4,
                100 * (number + 1),
                sample(number),
            )
        assert not (tmp_path / "new/xsub").exists()
    folder = tmp_path / "new/xsub"
    assert entries(tmp_path / "new") == ["xsub", "xview"] and entries(folder) == FILES
    data, num_frame = np.load(folder / "train_data_joint.npy"), np.load(folder / "train_num_frame.npy")
    assert (
        data.dtype == np.float32
        and data.shape == (3, *SAMPLE_SHAPE)
        and (data[:, 0, 0, 0, 0] == [0, 1, 2]).all()
    )
    assert num_frame.dtype == np.int64 and num_frame.tolist() == [100, 200, 300]
    assert pickle.loads((folder / "train_label.pkl").read_bytes()) == (["s0", "s1", "s2"], [4, 5, 6])
    assert np.load(folder / "val_data_joint.npy").shape == (0, *SAMPLE_SHAPE)


def test_an_error_leaves_older_arrays_and_nothing_else(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(RuntimeError), write_splits(tmp_path, BOTH) as writer:
        writer.add({"xsub": "train"}, "a", 2, 9, sample(2))
        raise RuntimeError
    assert [label_of(tmp_path / name) for name in BOTH] == [1, 1] and entries(tmp_path) == BOTH
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: a file exists where a folder is needed"):
        write(tmp_path, 2, ["file"])
    assert entries(tmp_path) == ["file", *BOTH]


def test_foreign_files_and_other_parts_stay(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "xsub/notes.txt").write_text("mine")
    (tmp_path / "xsub/train_data_bone.npy").write_text("mine")
    (tmp_path / "xsub/folder/below").mkdir(parents=True)
    for name in ("xsub.tmp-notes", "xsub.tmp-0123456", "xsub.old-012345678", "xsub2"):
        (tmp_path / name).mkdir()
    before = entries(tmp_path)
    write(tmp_path, 2, ["xsub"])
    assert entries(tmp_path) == before and entries(tmp_path / "xsub/folder") == ["below"]
    assert (
        (tmp_path / "xsub/notes.txt").read_text()
        == (tmp_path / "xsub/train_data_bone.npy").read_text()
        == "mine"
    )
    assert label_of(tmp_path / "xsub") == 2 and label_of(tmp_path / "xview") == 1


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk", 1, ["xsub"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/xsub").symlink_to(tmp_path / "disk/xsub")
    write(tmp_path / "data", 2, ["xsub"])
    assert (tmp_path / "data/xsub").is_symlink() and entries(tmp_path / "disk") == ["xsub"]
    assert label_of(tmp_path / "disk/xsub") == 2


def kill_at(number, count, after):
    """Have the process send itself a signal before or after the call `count` (from 0) of os.rename."""
    rename, calls = os.rename, itertools.count()

    def rename_and_kill(source, target):
        due = next(calls) == count
        if due and not after:
            os.kill(os.getpid(), number)
        rename(source, target)
        if due and after:
            os.kill(os.getpid(), number)

    arrays.os.rename = rename_and_kill


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_or_after_each_rename(tmp_path, number):
    """With older arrays of both splits, one of them with notes, there are five renames."""
    write(tmp_path / "older", 1)
    (tmp_path / "older/xview/notes.txt").touch()
    for count in range(5):
        for after in (False, True):
            root = tmp_path / f"{count}{after}"
            shutil.copytree(tmp_path / "older", root)
            if not (child := os.fork()):
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                kill_at(number, count, after)
                try:
                    write(root, 2)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            if number != signal.SIGKILL:  # deferred until all is done
                assert [label_of(root / name) for name in BOTH] == [2, 2] and entries(root) == BOTH
            for name in BOTH:  # killed: what is not there can be restored
                assert label_of(root / name) or label_of(next(root.glob(f"{name}.old-*"))) == 1
            with pytest.raises(RuntimeError), write_splits(root, BOTH):
                assert {label_of(root / name) for name in BOTH} <= {
                    1,
                    2,
                }  # restored before anything is written
                raise RuntimeError
            write(root, 3)
            assert [label_of(root / name) for name in BOTH] == [3, 3] and entries(root) == BOTH
            assert (root / "xview/notes.txt").exists()
            shutil.rmtree(root)


def test_a_second_run_may_win_but_mixes_nothing(tmp_path):
    with (
        pytest.raises(UserError, match="another run removed the files"),
        write_splits(tmp_path, ["xsub"]) as writer,
    ):
        for part in arrays.PARTS:
            writer.add({"xsub": part}, "a", 1, 9, sample(1))
        write(tmp_path, 2, ["xsub"])  # takes the first for one that was killed
    assert label_of(tmp_path / "xsub") == 2 and entries(tmp_path) == ["xsub"]


def test_too_small_a_disk_is_an_error_before(tmp_path):
    check_space(tmp_path, 1)
    with pytest.raises(UserError, match=r"180000.00 GB needed, [\d.]+ GB free"):
        check_space(tmp_path, 10**9)


@pytest.mark.parametrize("protocol", range(6))
def test_label_pickles_of_all_protocols(tmp_path, protocol):
    path = tmp_path / "label.pkl"
    for labels in ([3, 0], [np.float64(3), np.float64(0)], [np.int32(3), np.array(0, ">i8")[()]]):
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
