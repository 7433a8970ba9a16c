"""feeder.check: whole arrays are whole; of others it says what is wrong. And how a command ends."""

import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import GOLDENS, ROOT

import ntu_gendata
from feeder.arrays import DATA, LABEL, NUM_FRAME, PARTS, path_of
from feeder.check import count_verdict, main
from feeder.cli import UserError, script

NAMES, LABELS = 0, 1  # the lists of a label pickle


@pytest.fixture
def folder(data, tmp_path):
    """A copy of the arrays of synthetic people: 32 clips for training, 16 for testing."""
    return shutil.copytree(data / "NTU-RGB-D-60-AGCN/xsub", tmp_path / "xsub")


def check(folder, capsys):
    """Return the exit status, the lines of problems, and what was printed."""
    capsys.readouterr()
    status = 0
    try:
        main([str(folder)])
    except SystemExit as end:
        status = end.code
    output = capsys.readouterr()
    return status, output.err.splitlines(), output.out


def change(folder, kind, function, parts=("train",)):
    """Replace the arrays, the names or the labels of parts by what a function returns for them."""
    for part in parts:
        path = path_of(folder, part, LABEL if kind in (NAMES, LABELS) else kind)
        if kind in (NAMES, LABELS):
            content = list(pickle.loads(path.read_bytes()))
            content[kind] = function(content[kind])
            path.write_bytes(pickle.dumps(tuple(content)))
        else:
            np.save(path, function(np.load(path)))


def put(*assignments):
    """Return a function that assigns values to entries of an array or a list."""

    def assign(values):
        for index, value in assignments:
            values[index] = value
        return values

    return assign


def unfilled(data):
    """Return what becomes of recordings whose spine mid is zero: the body stays where it was."""
    data[:, [0, 2]] += 3
    data[:, :, :, 1] = 0
    return data


def pixels(data):
    return data * np.float32([200, 200, 0]).reshape(3, 1, 1, 1)


def test_whole_arrays(data, tmp_path, capsys):
    for folder in (data / "NTU-RGB-D-60-AGCN", data / "NTU-RGB-D-60-AGCN/xsub"):
        status, _, out = check(folder, capsys)
        assert status == 0 and "no problems found" in out and "xsub train" in out
        assert "32 / 16 samples; the full set has 40,091 / 16,487" in out and len(out.splitlines()) < 12
    ntu_gendata.main(["--data-path", str(GOLDENS / "raw"), "--out-folder", str(tmp_path)])
    assert check(tmp_path, capsys)[0] == 0


ALL = slice(None)
NAN = [((index, 0, 5, 24, 0), np.inf) for index in range(3)]
OFF = [((index, 2, 0, 1, 0), 3.0) for index in (4, 5)]
SIZE, PLANE = "an impossible size: 32 of 32", "in a plane: 32 of 32"
OFFSET = "not around joint 1, spine mid: 32 of 32"
OUTSIDE = "outside the 60 classes of ntu60: 1 of 32"
TWICE = ["several times: 1 of 32", "differ from the name: 2"]
PROBLEMS = [
    (DATA, put(*NAN, *OFF), ["infinite coordinates: 3 of 32", "not centred on the spine: 2 of 32"]),
    (DATA, lambda data: data[:-1], ["train has 31 clips, 32 frame counts, 32 labels"]),
    (NUM_FRAME, put((1, 0)), ["sample 1 has 0 frames"]),
    (LABELS, put((1, 59), (2, 58), (3, 60)), ["differ from the name: 2 of 32", OUTSIDE]),
    (NAMES, put((0, "S001C001P003R003A001")), ["samples that do not belong to this part of xsub: 1 of 32"]),
    (NAMES, lambda names: [*names[:1] * 3, *names[3:]], TWICE),
    *((DATA, lambda data, unit=unit: data * unit, [SIZE]) for unit in (1000, 100, 39.37)),
    (DATA, pixels, [SIZE, PLANE]),
    (DATA, unfilled, [OFFSET]),
    (DATA, lambda data: pixels(unfilled(data)), [SIZE, PLANE, OFFSET]),
    (DATA, put(((ALL, ALL, ALL, [3, 24]), 0)), ["always zero: 32 of 32 samples, such as S0"]),
    (DATA, put(((ALL, ALL, slice(30, None)), 0)), ["empty frames at the end: 32 of 32"]),
]


@pytest.mark.parametrize("kind, function, reasons", PROBLEMS)
def test_problems_are_named_once_with_a_count(folder, capsys, kind, function, reasons):
    change(folder, kind, lambda values: np.float32(function(values)) if kind == DATA else function(values))
    status, lines, _ = check(folder, capsys)
    assert status == 1 and len(lines) == len(reasons) and all(str(folder) in line for line in lines)
    for reason in reasons:
        assert any(reason in line for line in lines), (reason, lines)


@pytest.mark.parametrize(
    "kind, function, note",
    [
        (DATA, lambda data: np.concatenate([data[:4] * 1000, data[4:]]), "an impossible size: 4 of 32"),
        (DATA, put(((ALL, ALL, slice(5, 8)), 0)), "empty frames between others: 32 of 32"),
        (DATA, put((2, 0)), "samples without a body: 1 of 32"),
        (NUM_FRAME, put((0, 400)), "frame counts above 300 are read as 300: 1 of 32"),
        (NUM_FRAME, lambda frames: frames * 0 + 60, "all samples have 60 frames"),
        (LABELS, lambda labels: [label + 1 for label in labels], "labels start at 1"),
        (LABELS, lambda labels: [4 * (label > 1) for label in labels], "3 of 5, such as label 1"),
    ],
)
def test_suspicions_are_notes(folder, capsys, kind, function, note):
    if kind == LABELS:  # names of an unknown data set
        change(folder, NAMES, lambda names: [f"my {name}" for name in names], PARTS)
    change(folder, kind, function, PARTS if kind == LABELS else ["train"])
    status, _, out = check(folder, capsys)
    assert status == 0 and any("note: " in line and note in line for line in out.splitlines()), out


@pytest.mark.parametrize(
    "people",
    [lambda data: data * 0.5, lambda data: data * 1.2, lambda data: data[:, [0, 2, 1]]],
    ids=["children of 0.9 m", "giants", "lying on the floor"],
)
def test_unusual_people_are_right(folder, capsys, people):
    before = check(folder, capsys)
    change(folder, DATA, people, PARTS)
    assert check(folder, capsys) == before


def test_names_of_pku_and_of_nobody(folder, capsys):
    for part, video in zip(PARTS, ("0043-L", "0044-R"), strict=True):
        names = [f"{video}_r{row:02d}_c51" for row in range(32)]
        change(folder, NAMES, lambda old, names=names: names[: len(old)], [part])
        change(folder, LABELS, lambda labels: [50] * len(labels), [part])
    status, _, out = check(folder, capsys)
    assert status == 0 and "pku_part1: 32 / 16 samples; the full set has 18,840 / 2,704" in out
    change(folder, LABELS, put((0, 51), (1, 3)))
    outside, differing = check(folder, capsys)[1]
    assert "outside the 51 classes of pku_part1: 1 of 32" in outside and "label 3, not 50" in differing
    change(folder, NAMES, lambda names: [f"{index}_c51" for index in range(len(names))])
    status, _, out = check(folder, capsys)
    assert status == 0 and "names of an unknown data set" in out


def test_samples_in_both_parts(folder, capsys):
    for kind in (DATA, NUM_FRAME, LABEL):
        shutil.copy(path_of(folder, "train", kind), path_of(folder, "val", kind))
    assert "samples in both parts: 32, such as S0" in check(folder, capsys)[1][-1]
    change(folder, LABELS, lambda labels: labels[1:], PARTS)
    assert len(check(folder, capsys)[1]) == 2  # neither part opens


@pytest.mark.parametrize(
    "found, verdict",
    [
        ((90, 20), "complete: 90 / 20 samples"),
        ((20, 5), "20 / 5 samples; the full set has 90 / 20"),
        ((89, 20), "WARNING: 89 / 20 samples, but the full set has 90 / 20; those"),
    ],
)
def test_verdict_on_numbers_of_samples(found, verdict):
    assert count_verdict(found, (90, 20)).startswith(verdict)
    assert count_verdict(found, None) == "the size of the full set is not known"


FULL = OSError(28, "No space left on device", "b")


@pytest.mark.parametrize(
    "error, status, message",
    [
        (UserError("a.npy: damaged"), 1, "error: a.npy: damaged"),
        (FULL, 1, "error: b: No space left on device; free some space"),
        (OSError(20, "Not a directory", "c"), 1, "error: c: Not a directory; check the path"),
        (MemoryError(), 1, "error: out of memory: use a smaller --batch-size"),
        (torch.cuda.OutOfMemoryError("CUDA"), 1, "error: out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't\nallocate"), 1, "error: out of memory"),
        (ConnectionResetError(104, "Connection reset by peer"), 1, "use fewer --workers"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 1, "use fewer --workers"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_how_a_command_ends(capsys, error, status, message):
    @script
    def command(argv):
        raise error

    with pytest.raises(SystemExit) as end:
        command([])
    err = capsys.readouterr().err.strip()
    assert end.value.code == status and message in err and err.count("\n") == 0


def test_a_bug_keeps_its_traceback_and_sigterm_runs_finally():
    @script
    def command(argv):
        if argv:
            signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("our own mistake")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="our own mistake"):
        command([])
    with pytest.raises(SystemExit, match="143"):
        command(["stop"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_windows_is_refused_in_one_line():
    code = "import sys; sys.platform = 'win32'; import feeder.cli"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Linux and macOS" in done.stderr
