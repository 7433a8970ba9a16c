"""feeder.check: says that whole arrays are whole, and what is wrong with others."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from raw_files import sample_names, write_raw

import ntu_gendata
from feeder.check import main


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


def test_whole(folder, capsys):
    capsys.readouterr()
    for path in (folder, folder / "xsub"):
        main([str(path)])
        out = capsys.readouterr().out
        assert "whole" in out and "xsub train" in out and "a subset of the full set's 40,091" in out
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
     (lambda f: change_label(f / "train_label.pkl", names=lambda names: [names[1], *names[1:]]), "is there 2 times"),
     (lambda f: [path.replace(f / path.name.replace("train", "val")) for path in f.glob("train*")], "not belong to this part"),
     (lambda f: (f / "val_label.pkl").unlink(), "val_label.pkl: no such file"),
     (lambda f: (f / "val_data_joint.npy").write_bytes((f / "val_data_joint.npy").read_bytes()[:-5]), "no whole .npy")],
)  # fmt: skip
def test_what_is_wrong(folder, capsys, change, reason):
    change(folder / "xsub")
    assert reason in problems(folder, capsys)


def test_counts_above_300_and_zeros_are_noted(folder, capsys):
    change_array(folder / "xsub/train_num_frame.npy", 0, 400)
    change_array(folder / "xsub/train_data_joint.npy", 2, 0)
    main([str(folder / "xsub")])
    out = capsys.readouterr().out
    assert "note: " in out and "1 frame counts above 300" in out and "1 samples are all zeros" in out


def test_the_command(folder, tmp_path):
    command = [sys.executable, "-m", "feeder.check"]
    assert subprocess.run([*command, str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    failed = subprocess.run([*command, str(tmp_path / "nowhere")], cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1 and "no such folder" in failed.stderr and failed.stderr.count("\n") == 1
    assert "no arrays in it" in subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True).stderr
