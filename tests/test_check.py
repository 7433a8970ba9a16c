"""feeder.check: says that whole arrays are whole, and what is wrong with others."""

import pickle

import numpy as np
import pytest
import torch
from raw_files import sample_names, write_raw

import ntu_gendata
import pku_gendata
from feeder.check import count_verdict, main
from feeder.cli import UserError, script
from feeder.preparation import pku
from feeder.synthetic import write_pku


@pytest.fixture
def folder(tmp_path):
    raw = write_raw(tmp_path / "raw", sample_names(12))
    ntu_gendata.main(["--data-path", str(raw), "--out-folder", str(tmp_path / "out")])
    return tmp_path / "out"


def problems(folder, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(folder)])
    assert end.value.code not in (0, None)
    captured = capsys.readouterr()
    return captured.err or str(end.value.code)


def test_whole_arrays(folder, capsys):
    capsys.readouterr()
    for path in (folder, folder / "xsub"):
        main([str(path)])
        out = capsys.readouterr().out
        assert (
            "no problems found" in out
            and "xsub train" in out
            and "9 / 3 samples; the full set has 40,091" in out
        )
        assert ("xview val" in out) == (path == folder) and len(out.splitlines()) < 15


def change_array(path, index, value):
    array = np.load(path)
    array[index] = value
    np.save(path, array)


def change_label(path, names=None, labels=None):
    old = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps((names(old[0]) if names else old[0], labels(old[1]) if labels else old[1])))


@pytest.mark.parametrize(
    "change, reason",
    [(lambda f: change_array(f / "train_data_joint.npy", (1, 0, 299, 24, 1), np.nan), "NaN or infinite"),
     (lambda f: change_array(f / "train_data_joint.npy", (1, 2, 0, 1, 0), 3.0), "first frame is not centred"),
     (lambda f: change_array(f / "train_num_frame.npy", 1, 0), "sample 1 has 0 frames"),
     (lambda f: change_label(f / "train_label.pkl", labels=lambda labels: [59, *labels[1:]]), "has label 59, not 0"),
     (lambda f: change_label(f / "train_label.pkl", lambda names: ["S001C001P041R001A001", *names[1:]]), "subject 41 is"),
     (lambda f: change_label(f / "train_label.pkl", names=lambda names: [names[1], *names[1:]]), "occurs 2 times"),
     (lambda f: [path.replace(f / path.name.replace("train", "val")) for path in f.glob("train*")], "not belong to this part"),
     (lambda f: (f / "val_label.pkl").unlink(), "val_label.pkl: no such file"),
     (lambda f: (f / "val_data_joint.npy").write_bytes((f / "val_data_joint.npy").read_bytes()[:-5]), "not a complete .npy")],
)  # fmt: skip
def test_what_is_wrong(folder, capsys, change, reason):
    change(folder / "xsub")
    assert reason in problems(folder, capsys)


def test_every_problem_is_named_once_with_a_count(folder, capsys):
    data, label = folder / "xsub/train_data_joint.npy", folder / "xsub/train_label.pkl"
    change_array(data, (slice(0, 3), 0, 5, 24, 0), np.inf)
    change_array(data, (slice(4, 6), 2, 0, 1, 0), 3.0)
    change_label(label, lambda names: [names[1], *names[1:]], lambda labels: [labels[0], 59, 58, *labels[3:]])
    lines = problems(folder, capsys).splitlines()
    assert len(lines) == 4 and all(line.startswith(f"{folder}/xsub: train: ") for line in lines)
    for kind, count in (
        ("NaN", 3),
        ("not centred", 2),
        ("differ from the name", 2),
        ("occur several times", 1),
    ):
        assert [line for line in lines if kind in line and f": {count} of 9 samples, such as " in line], (
            kind,
            lines,
        )


def test_counts_above_300_and_zeros_are_noted(folder, capsys):
    change_array(folder / "xsub/train_num_frame.npy", 0, 400)
    change_array(folder / "xsub/val_data_joint.npy", (slice(None), slice(None), slice(None), [3, 24]), 0)
    change_array(folder / "xsub/train_data_joint.npy", 2, 0)
    main([str(folder / "xsub")])
    out = capsys.readouterr().out
    assert (
        "note: " in out
        and "frame counts above 300 are read as 300: 1 of" in out
        and "1 samples are all zeros" in out
    )
    assert out.count("note: joints [3, 24] are zero in every sample") == 1


@pytest.mark.parametrize(
    "found, expected, verdict",
    [((90, 20), (90, 20), "complete: 90 / 20 samples"), ((20, 5), (90, 20), "20 / 5 samples; the full set has 90 / 20"),
     ((89, 20), (90, 20), "WARNING: 89 / 20 samples, but the full set has 90 / 20; those without any body are skipped"),
     ((90, 20), None, "the size of the full set is not known")],
)  # fmt: skip
def test_verdict_on_numbers_of_samples(found, expected, verdict):
    assert count_verdict(found, expected) == verdict


def test_names_of_pku():
    names = ("0043-L_r21_c51", "A01N01-R_r21_c51", "43-L_r21_c51", "0043-L", "S001C001P001R001A001.skeleton")
    assert [pku.part_number(name) for name in names] == [1, 2, None, None, None]


def test_labels_outside_pku(tmp_path, capsys):
    write_pku(tmp_path / "raw", classes=4, subjects=3)
    pku_folder = tmp_path / "pku_v1"
    pku_gendata.main(["--data-path", str(tmp_path / "raw"), "--out-folder", str(pku_folder)])
    path = pku_folder / "xsub/train_label.pkl"
    change_label(path, labels=lambda labels: [51, *labels[1:]])
    assert "labels outside the 51 classes of PKU-MMD part 1: 1 of" in problems(pku_folder, capsys)
    change_label(path, lambda names: [f"{names[0][:-2]}52", *names[1:]])
    assert "labels outside the 51 classes of PKU-MMD part 1: 1 of" in problems(pku_folder, capsys)
    change_label(path, lambda names: ["mine_c52", *names[1:]])
    main([str(pku_folder)])  # names of nobody's: no number of classes is known
    assert "names of an unknown data set" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error, status, message",
    [(UserError("a.npy: damaged"), 1, "error: a.npy: damaged"),
     (OSError(28, "No space left on device", "b.npy"), 1, "error: b.npy: No space left on device; free some space"),
     (RuntimeError("our own mistake"), None, ""),
     (MemoryError(), 1, "error: out of memory"), (KeyboardInterrupt(), 130, "interrupted"),
     (torch.cuda.OutOfMemoryError("CUDA"), 1, "error: out of memory: use a smaller --batch-size"),
     (RuntimeError("[enforce fail] DefaultCPUAllocator: can't\nallocate"), 1, "error: out of memory: use a smaller --batch")],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)  # fmt: skip
def test_how_a_command_ends(capsys, error, status, message):
    def fail(argv):
        raise error

    with pytest.raises(type(error) if status is None else SystemExit) as end:
        script(fail)([])
    if status is None:  # our own mistake keeps its traceback
        return
    err = capsys.readouterr().err
    assert end.value.code == status and message in err and err.strip().count("\n") == 0


def test_folders_without_arrays(tmp_path, capsys):
    assert "no arrays in it" in problems(tmp_path, capsys)
    assert "no such folder" in problems(tmp_path / "nowhere", capsys)
