"""ntu_gendata.py as a user runs it: goldens, flags, what is skipped, damage, interruption, full disk."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from subprocess import DEVNULL
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import GOLDENS, ROOT
from raw_files import random_bodies, sample_names, skeleton_text, write_raw

import ntu_gendata
from feeder import arrays
from feeder.arrays import open_split
from feeder.data_sets import DATA_SETS
from feeder.preparation import ntu

SAMPLE_BYTES = 4 * 3 * 300 * 25 * 2
EMPTY = "S017C001P038R002A049"  # the golden without any body, which the reference keeps as zeros


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*argv):
    ntu_gendata.main([str(word) for word in argv])


def fails(argv, capsys):
    """Return exit status and standard error of a run that fails."""
    with pytest.raises(SystemExit) as end:
        run(*argv)
    return end.value.code, capsys.readouterr().err


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw", sample_names(30))


@pytest.mark.parametrize("dataset, workers", [("ntu60", 1), ("ntu60", 2), ("ntu120", 2)])
def test_goldens(tmp_path, capsys, dataset, workers):
    run("--data-path", GOLDENS / "raw", "--out-folder", tmp_path, "--dataset", dataset, "--workers", workers)
    golden = np.load(GOLDENS / "gendata.npz")
    expected = json.loads(bytes(golden["splits"]))
    for benchmark in DATA_SETS[dataset].counts:
        for part in arrays.PARTS:
            split = open_split(tmp_path / benchmark, part)
            names = sorted(name for name in expected[f"{benchmark}_{part}"] if name != EMPTY)
            assert split.names == [f"{name}.skeleton" for name in names]
            for row, name in enumerate(names):
                data = golden[f"data_{name}"]
                assert np.abs(split.data[row][:, : data.shape[1]] - data).max() < 1e-5
                assert split.num_frame[row] == golden[f"num_frame_{name}"]
                assert split.labels[row] == golden[f"label_{name}"]
    out = capsys.readouterr().out
    assert f"without any body, skipped: 1\n  {EMPTY}.skeleton\n" in out
    assert "the full set has" in out and "WARNING" not in out


def test_flags_and_defaults(here, capsys):
    names = [*sample_names(3), *sorted(ntu.missing_samples("ntu60"))[:2]]
    write_raw(here / "data/nturgbd_raw/nturgb+d_skeletons", names)
    write_raw(here / "data/nturgbd_raw_120/nturgb+d_skeletons", [*names, "S018C001P041R001A061"])
    (here / "ignored.txt").write_text("Heading\n\n" + names[0])
    run("--ignored_sample_path", "ignored.txt")
    skipped = "skipped: 2 listed as missing skeletons, 1 listed by --ignored-sample-path"
    assert f"5 files; {skipped}" in capsys.readouterr().out
    assert len(open_split("data/NTU-RGB-D-60-AGCN/xview", "train").names) == 2
    run("--dataset", "ntu120", "--benchmark", "xsetup")
    assert len(open_split("data/NTU-RGB-D-120-AGCN/xsetup", "train").names) == 1
    assert not os.path.exists("data/NTU-RGB-D-120-AGCN/xsub")
    for words in ("--benchmark xsetup", "--dataset ntu120 --benchmark xview", "--workers 0", "--skip-bads"):
        code, err = fails(words.split(), capsys)
        assert code == 2 and err.count("\n") == 1 and "error: " in err


def test_workers_and_protocols_do_not_change_a_byte(tmp_path, raw):
    run("--data-path", raw, "--out-folder", tmp_path / "a", "--workers", 1)
    run("--data-path", raw, "--out-folder", tmp_path / "b", "--workers", 2, "--benchmark", "xview", "xsub")
    run("--data-path", raw, "--out-folder", tmp_path / "c", "--workers", 2, "--benchmark", "xsub")
    run("--data-path", raw, "--out-folder", tmp_path / "c", "--benchmark", "xview")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_damaged_files_are_reported_together(tmp_path, raw, capsys):
    good = sorted(path.name for path in raw.iterdir())
    lines = (raw / good[5]).read_text().split("\n")
    (raw / good[5]).write_text("\n".join([*lines[:7], "a b c", *lines[8:]]))
    (raw / good[9]).write_text("")
    (raw / "notes.skeleton").write_text("no sample")
    (raw / "S001C001P001R001A121.skeleton").write_text("another data set")
    (raw / good[11]).write_text(skeleton_text(random_bodies(np.random.default_rng(0), 301)))
    (raw / "readme.txt").write_text("not looked at")
    command = ["--data-path", raw, "--out-folder", tmp_path / "out", "--workers", 2]
    code, err = fails(command, capsys)
    assert code == 1 and "Traceback" not in err and not contents(tmp_path / "out")
    for line in (
        f"{good[5]}: line 8: expected 12 numbers, found 3: 'a b c'",
        f"{good[9]}: line 1: the file is empty",
        "notes is not a sample of ntu60",
        "S001C001P001R001A121 is not a sample of ntu60",
        f"{good[11]}: 301 frames; a sample has 1 to 300: cut or resample it (the network sees 64 frames)",
        "(and 4 more, see above or --skip-bad)",
    ):
        assert line in err
    run(*command, "--skip-bad")
    assert "damaged, skipped: 5\n" in capsys.readouterr().out
    names = [name for part in arrays.PARTS for name in open_split(tmp_path / "out/xsub", part).names]
    assert sorted(names) == sorted(set(good) - {good[5], good[9], good[11]})


def test_the_wrong_folder_is_one_line(tmp_path, capsys):
    names = ["S001C001P001R003A001", "S018C001P001R001A061"]
    raw, other = write_raw(tmp_path / "raw", names), write_raw(tmp_path / "other", names[:1])
    out, empty = ["--out-folder", tmp_path / "out"], tmp_path / "empty"
    write_raw(tmp_path / "missing", sorted(ntu.missing_samples("ntu60"))[:1])
    (tmp_path / f"missing/{EMPTY}.skeleton").write_text("1\n0\n")
    empty.mkdir()
    for folders, reason in (
        ([raw], "1 samples of ntu120, not ntu60; set --dataset ntu120"),
        ([raw, other], f"{other}/{names[0]}.skeleton: the sample is also in {raw}; keep one"),
        ([tmp_path / "nowhere"], "no such folder"),
        ([empty], "no .skeleton files in it"),
        ([tmp_path / "missing"], "no samples to write: 0 damaged, 1 empty"),
    ):
        code, err = fails(["--data-path", *folders, *out, "--workers", 1], capsys)
        assert code == 1 and reason in err and not contents(tmp_path / "out")
        assert err.count("\n") == 1
    run("--data-path", raw, *out, "--dataset", "ntu120")


def test_arrays_of_other_recordings_are_not_replaced(here, raw, capsys):
    run("--data-path", raw)
    before = contents(here / "data")
    own = write_raw(here / "own", ["S001C001P001R003A001", "S001C001P003R003A002"])
    code, err = fails(["--data-path", own], capsys)
    assert code == 1 and err.count("\n") == 1 and "--overwrite" in err
    assert "data/NTU-RGB-D-60-AGCN/xsub: has 30 samples of other recordings" in err
    assert contents(here / "data") == before
    run("--data-path", raw)  # the same again
    assert contents(here / "data") == before
    run("--data-path", raw, own)  # more of them
    run("--data-path", own, "--overwrite")
    assert len(open_split("data/NTU-RGB-D-60-AGCN/xsub", "val").names) == 1


def test_bodies_in_millimetres_are_named(tmp_path, capsys):
    bodies = random_bodies(np.random.default_rng(0), 20)
    (tmp_path / "S001C001P001R003A001.skeleton").write_text(skeleton_text(1000 * bodies))
    run("--data-path", tmp_path, "--out-folder", tmp_path / "out")
    assert "WARNING: bodies of an impossible size: 1 of 1 samples" in capsys.readouterr().out


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 240 samples in 12 different files, and the arrays that come of it."""
    folder = tmp_path_factory.mktemp("many")
    templates = [skeleton_text(random_bodies(np.random.default_rng(n), 20, 1)) for n in range(12)]
    (folder / "raw").mkdir()
    for number, name in enumerate(sample_names(240)):
        (folder / "raw" / f"{name}.skeleton").write_text(templates[number % 12])
    run("--data-path", folder / "raw", "--out-folder", folder / "whole", "--workers", 2)
    return folder


def command(many, out, workers):
    paths = ["--data-path", many / "raw", "--out-folder", out, "--workers", workers]
    return [sys.executable, *map(str, [ROOT / "ntu_gendata.py", *paths])]


@pytest.mark.parametrize("workers, sent", [(1, "SIGKILL"), (2, "SIGKILL"), (2, "SIGTERM"), (2, "SIGINT")])
def test_killed_and_started_again(many, tmp_path, workers, sent):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    delays, out = random.Random(seed), tmp_path / "out"
    for _ in range(3):
        process = subprocess.Popen(
            command(many, out, workers), stdout=DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        while process.poll() is None:  # until it has begun to write
            if any(path.stat().st_size > SAMPLE_BYTES for path in out.glob("*.tmp-*/*")):
                break
            time.sleep(0.005)
        time.sleep(delays.uniform(0, 0.25))
        # a terminal sends Ctrl-C to the whole group
        (os.killpg if sent == "SIGINT" else os.kill)(process.pid, signal.Signals[sent])
        err = process.communicate(timeout=20)[1].decode()  # returns when no worker has standard error open
        if len(list(out.glob("*/*_label.pkl"))) == 4:
            break  # all was done: the signal met the interpreter on its way out, whose handlers are gone
        assert process.returncode in (-signal.SIGKILL, 143, 130) and "Traceback" not in err, err
        assert sent == "SIGKILL" or not list(out.iterdir())
    subprocess.run(command(many, out, workers), check=True, stdout=DEVNULL)
    assert contents(out) == contents(many / "whole")


def test_a_disk_that_fills_up(many, tmp_path):
    """A limit on the size of files in place of a full disk: the same error from the same call."""
    limit = (20 * SAMPLE_BYTES,) * 2
    full = subprocess.run(
        command(many, tmp_path / "out", 2),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert full.returncode == 1 and "out: File too large" in full.stderr and full.stderr.count("\n") == 1
    assert not contents(tmp_path / "out")


def test_a_worker_that_is_killed(tmp_path, raw, monkeypatch, capsys):
    monkeypatch.setattr(ntu, "read_clips", die)
    code, err = fails(["--data-path", raw, "--out-folder", tmp_path / "out", "--workers", 2], capsys)
    assert code == 1 and "a worker process was killed" in err and not contents(tmp_path / "out")


def die(source):  # a reader
    os.kill(os.getpid(), signal.SIGKILL)


def test_too_small_a_disk_is_an_error_before_reading(tmp_path, capsys, monkeypatch):
    raw = write_raw(tmp_path / "raw", ["S001C001P001R003A001"])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    code, err = fails(["--data-path", raw, "--out-folder", tmp_path / "out", "--workers", 1], capsys)
    assert code == 1 and "out: 0.00 GB needed, 0.00 GB free; free some space" in err
