"""ntu_gendata.py as a user runs it: goldens, flags, what is skipped, damage, interruption, full disk."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import GOLDENS, ROOT
from raw_files import random_bodies, sample_names, skeleton_text, write_raw

import ntu_gendata
from feeder import arrays
from feeder.arrays import open_split
from feeder.preparation import ntu

EMPTY = "S017C001P038R002A049"  # the golden without any body: the reference keeps it as zeros, the script leaves it out
COMMAND = [sys.executable, str(ROOT / "ntu_gendata.py")]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


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
    for benchmark in ntu.BENCHMARKS[dataset]:
        for part in arrays.PARTS:
            split = open_split(tmp_path / benchmark, part)
            names = [name for name in expected[f"{benchmark}_{part}"] if name != EMPTY]
            assert split.names == [f"{name}.skeleton" for name in sorted(names)]
            for row, name in enumerate(sorted(names)):
                data = golden[f"data_{name}"]
                assert np.abs(split.data[row][:, : data.shape[1]] - data).max() < 1e-5
                assert (split.num_frame[row], split.labels[row]) == (
                    golden[f"num_frame_{name}"],
                    golden[f"label_{name}"],
                )
    out = capsys.readouterr().out
    assert (
        f"without any body: {EMPTY}.skeleton" in out
        and "1 without any body" in out
        and "the full set has" in out
    )


def test_flags_and_defaults(tmp_path, monkeypatch, capsys):
    names = [*sample_names(3), *sorted(ntu.missing_samples("ntu60"))[:2]]
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "data/nturgbd_raw/nturgb+d_skeletons", names)
    write_raw(tmp_path / "data/nturgbd_raw_120/nturgb+d_skeletons", [*names, "S018C001P041R001A061"])
    (tmp_path / "ignored.txt").write_text("Heading\n\n" + names[0])
    run("--ignored_sample_path", "ignored.txt")
    assert (
        "5 files; skipped: 2 listed as missing skeletons, 1 listed by --ignored-sample-path"
        in capsys.readouterr().out
    )
    assert len(open_split("data/NTU-RGB-D-60-AGCN/xview", "train").names) == 2
    run("--dataset", "ntu120", "--benchmark", "xsetup")
    assert len(open_split("data/NTU-RGB-D-120-AGCN/xsetup", "train").names) == 1
    assert not os.path.exists("data/NTU-RGB-D-120-AGCN/xsub")


def test_wrong_command_lines(capsys):
    for words in (
        "--benchmark xsetup",
        "--dataset ntu120 --benchmark xview",
        "--workers 0",
        "--dataset ntu61",
        "--skip-bads",
    ):
        code, err = fails(words.split(), capsys)
        assert code == 2 and err.count("\n") == 1 and "error: " in err


def test_workers_and_protocols_do_not_change_a_byte(tmp_path, raw):
    run("--data-path", raw, "--out-folder", tmp_path / "a", "--workers", 1)
    run("--data-path", raw, "--out-folder", tmp_path / "b", "--workers", 2, "--benchmark", "xview", "xsub")
    run("--data-path", raw, "--out-folder", tmp_path / "c", "--workers", 2, "--benchmark", "xsub")
    run("--data-path", raw, "--out-folder", tmp_path / "c", "--benchmark", "xview")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_damaged_files_are_reported_together(tmp_path, raw, capsys):
    good = [path.name for path in sorted(raw.iterdir())]
    lines = (raw / good[5]).read_text().split("\n")
    (raw / good[5]).write_text("\n".join([*lines[:7], "a b c", *lines[8:]]))
    (raw / good[9]).write_text("")
    (raw / "notes.skeleton").write_text("no sample")
    (raw / "S001C001P001R001A099.skeleton").write_text("another data set")
    (raw / "readme.txt").write_text("not looked at")
    os.mkfifo(raw / "S017C003P040R002A059.skeleton")
    other = tmp_path / "other"
    write_raw(other, [good[0][:20], "S017C003P040R002A060"])
    command = ["--data-path", raw, other, "--out-folder", tmp_path / "out", "--workers", 2]
    code, err = fails(command, capsys)
    assert code == 1 and "Traceback" not in err
    for line in (f"{raw}/{good[5]}: line 8: could not convert", f"{raw}/{good[9]}: line 1: the file is empty",
                 f"{raw}/notes.skeleton: not a sample name", f"{raw}/S001C001P001R001A099.skeleton: action 99 is outside ntu60",
                 f"{other}/{good[0]}: the sample is also in {raw}", f"{raw}/S017C003P040R002A059.skeleton: not a regular file",
                 "error: 6 files or samples cannot be used"):  # fmt: skip
        assert line in err
    assert not contents(tmp_path / "out")
    run(*command, "--skip-bad")
    out = capsys.readouterr().out
    assert "6 damaged" in out and out.count("damaged: ") == 6
    names = [name for part in arrays.PARTS for name in open_split(tmp_path / "out/xsub", part).names]
    assert sorted(names) == sorted(set(good) - {good[5], good[9]} | {"S017C003P040R002A060.skeleton"})


def test_names_that_the_terminal_cannot_show(tmp_path, raw):
    """An ASCII-only terminal and a path that is not UTF-8: escapes instead of a traceback."""
    folder = os.fsencode(tmp_path) + b"/gr\xfc\xdfe \xe2\x82\xac"
    os.rename(raw, folder)
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for path, status in ((folder, 0), (folder + b"/nowhere", 1)):
        command = [
            *map(os.fsencode, COMMAND),
            b"--data-path",
            path,
            b"--out-folder",
            folder + b"/out",
            b"--workers",
            b"1",
        ]
        done = subprocess.run(command, env=environment, capture_output=True)
        assert done.returncode == status and b"Traceback" not in done.stderr, done.stderr


def test_nothing_to_write(tmp_path, capsys):
    raw, command = tmp_path / "raw", ["--data-path", tmp_path / "raw", "--out-folder", tmp_path / "out"]
    assert "no such folder" in fails(command, capsys)[1]
    raw.mkdir()
    assert "no .skeleton files in it" in fails(command, capsys)[1]
    write_raw(raw, sorted(ntu.missing_samples("ntu60"))[:1])
    (raw / f"{EMPTY}.skeleton").write_text("1\n0\n")
    assert "no samples to write: 0 damaged, 1 empty" in fails(command, capsys)[1] and not contents(
        tmp_path / "out"
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 240 samples in 12 different files, and the arrays that come of it."""
    folder = tmp_path_factory.mktemp("many")
    templates = [skeleton_text(random_bodies(np.random.default_rng(n), 20, 1)) for n in range(12)]
    (folder / "raw").mkdir()
    for number, name in enumerate(sample_names(240)):
        (folder / "raw" / f"{name}.skeleton").write_text(templates[number % 12])
    run("--data-path", folder / "raw", "--out-folder", folder / "whole", "--workers", 2)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "workers, number", [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_killed_and_started_again(many, tmp_path, workers, number):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    command = [
        *COMMAND,
        "--data-path",
        str(many / "raw"),
        "--out-folder",
        str(tmp_path / "out"),
        "--workers",
        str(workers),
    ]
    delays = random.Random(seed)
    for _ in range(3):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        while not list((tmp_path / "out").glob("*.tmp-*/*")) and process.poll() is None:
            time.sleep(0.005)  # until it has begun to write
        time.sleep(delays.uniform(0, 0.25))
        # a terminal sends Ctrl-C to the whole group
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        err = process.communicate(timeout=20)[1].decode()
        if len(list((tmp_path / "out").glob("*/*_label.pkl"))) == 4:
            break  # all was done: the signal met the interpreter on its way out, whose handlers are gone
        assert process.returncode in (-signal.SIGKILL, 143, 130) and "Traceback" not in err, err
        assert number == signal.SIGKILL or not list((tmp_path / "out").iterdir())
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "out") == contents(many / "whole")
    assert no_worker_is_left(many)


def no_worker_is_left(folder):
    """Return whether, within some seconds, no process has that folder on its command line."""
    for _ in range(100):
        lines = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True).stdout.splitlines()
        if not any("ntu_gendata.py" in line and str(folder) in line for line in lines):
            return True
        time.sleep(0.05)
    return False


def test_a_disk_that_fills_up(many, tmp_path):
    """A limit on the size of files in place of a full disk: the same error from the same call."""
    command = [
        *COMMAND,
        "--data-path",
        str(many / "raw"),
        "--out-folder",
        str(tmp_path / "out"),
        "--workers",
        "2",
    ]
    limit = (20 * arrays.SAMPLE_BYTES,) * 2
    full = subprocess.run(command, capture_output=True, text=True, timeout=60,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))  # fmt: skip
    assert full.returncode == 1 and "out: File too large" in full.stderr and full.stderr.count("\n") == 1
    assert not contents(tmp_path / "out")


def test_a_worker_that_is_killed(tmp_path, raw, monkeypatch, capsys):
    monkeypatch.setattr(ntu, "read_clips", die)
    code, err = fails(["--data-path", raw, "--out-folder", tmp_path / "out", "--workers", 2], capsys)
    assert code == 1 and "a worker process was killed" in err and not contents(tmp_path / "out")


def die(source):  # a reader
    os.kill(os.getpid(), signal.SIGKILL)
