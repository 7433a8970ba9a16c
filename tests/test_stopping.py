"""Pre-training that is stopped and resumed: signals, kills, a full disk, two runs in one folder, copied folders."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SIZES, assert_same_training, failure
from torch.utils.data import get_worker_info

import action_classification
import pretraining
from engine.checkpoint import load_checkpoint, lock_folder
from engine.training import StopSignals
from feeder.cli import script
from feeder.dataset import Batches, SkeletonDataset


def pretrain(data, *flags):
    contrast = ["--encoder-dim", "8", "--encoder-k", "24", "--batch-size", "8", "--checkpoint-path", "ck"]
    pretraining.main(
        [
            "--data-path",
            str(data),
            *SIZES,
            *contrast,
            "--workers",
            "0",
            "--device",
            "cpu",
            "--seed",
            "1",
            *flags,
        ]
    )


def at_step(monkeypatch, number, act):
    """Call `act` within the step of that number, counted from 0 over all epochs of this process."""
    inside, count = pretraining.train_step, iter(range(10**6))

    def train_step(*args):
        if next(count) == number:
            act()
        return inside(*args)

    monkeypatch.setattr(pretraining, "train_step", train_step)


def figures(folder):
    lines = next(folder.glob("pretraining_*/metrics.jsonl")).read_text().splitlines()
    return [(r["epoch"], r["loss"], r["acc1"], r["lr"]) for r in map(json.loads, lines)]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an uninterrupted run: 3 epochs of 4 steps."""
    folder = tmp_path_factory.mktemp("whole")
    pretrain(data, "--epochs", "3", "--checkpoint-path", str(folder / "ck"), "--log-dir", str(folder / "log"))
    return folder


@pytest.mark.parametrize(
    "case", [("0", 5, signal.SIGTERM, 143, (1, 2)), ("2", 7, signal.SIGINT, 130, (2, 0))]
)
def test_a_signal_ends_after_the_step_and_the_same_command_continues(
    data, here, whole, monkeypatch, capsys, case
):
    workers, number, signum, status, position = case  # in the second, after the last step of an epoch

    def signal_all():
        workers = [child.pid for child in multiprocessing.active_children()]
        for pid in [*workers, os.getpid()]:  # as a cluster does
            os.kill(pid, signum)

    at_step(monkeypatch, number, signal_all)
    flags = ["--epochs", "3", "--workers", workers, "--resume", "auto", "--save-freq", "3"]
    with pytest.raises(SystemExit) as stop:
        pretrain(data, *flags)
    assert stop.value.code == status
    assert f"stopped by {signal.Signals(signum).name} at epoch {position[0]}" in capsys.readouterr().out
    checkpoint = load_checkpoint("ck")
    assert (checkpoint["epoch"], checkpoint["step"]) == position
    pretrain(data, *flags)
    assert_same_training("ck", whole / "ck")
    assert figures(here / "log") == figures(whole / "log"), (
        "the means of the epoch include the steps before the signal"
    )


def test_only_a_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, StopSignals() as stop:
        for _ in range(2):  # as clusters and torchrun send it, possibly while the last checkpoint is written
            os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signum, stop.name, stop.status) == (signal.SIGTERM, "SIGTERM", 143)
        os.kill(os.getpid(), signal.SIGINT)
    assert ended.value.code == 130 and signal.getsignal(signal.SIGTERM) is before


def test_kills_at_random_moments(data, here):
    """SIGKILL, 5 times: see the script."""
    flags = ["--data-path", str(data), "--kills", "5"]
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "kill_pretraining.py", *flags], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "5 kills, no broken checkpoint" in result.stdout


def test_checkpoints_within_an_epoch(data, here, monkeypatch):
    positions, inside = [], pretraining.checkpoints.save_checkpoint

    def save_checkpoint(path, checkpoint):
        inside(path, checkpoint)
        positions.append((checkpoint["epoch"], checkpoint["step"]))

    monkeypatch.setattr(pretraining.checkpoints, "save_checkpoint", save_checkpoint)
    pretrain(data, "--epochs", "2", "--save-minutes", "1e-9", "--save-freq", "2")
    assert positions == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert load_checkpoint("ck")["meters"]["Loss"] == [0.0, 0.0, 0]


def test_batches_continue_within_an_epoch():
    batches = Batches(23, 4, seed=3, drop_last=True)
    batches.epoch = 2
    whole = list(batches)
    batches.start = 3
    assert list(batches) == whole[3:] and len(whole) == len(batches) == 5


def test_what_a_resumed_run_may_change(data, here, monkeypatch, capsys):
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        pretrain(data, "--epochs", "2")
    capsys.readouterr()
    same = ["--epochs", "2", "--resume", "auto"]
    other = here / "other" / "NTU-RGB-D-60-AGCN"
    shutil.copytree(data / "NTU-RGB-D-60-AGCN", other)
    part = other / "xsub" / "train_num_frame.npy"
    part.write_bytes(part.read_bytes()[:-8] + (1).to_bytes(8, "little"))
    for flags, message in [
        (
            ["--batch-size", "4"],
            "ck/checkpoint.pth.tar is at step 2 of 4, with --batch-size 8: resume with the same",
        ),
        (
            ["--encoder-t", "0.1"],
            "belongs to another run: --encoder-t 0.2, not --encoder-t 0.1; repeat the flags of that run",
        ),
        (["--encoder-m", "0.5"], "--encoder-m 0.999, not --encoder-m 0.5"),
        (["--encoder-k", "48"], "--encoder-k 24, not --encoder-k 48"),
        (["--pairs", "tt"], "--pairs ti si it is, not --pairs tt"),
        (["--no-masks"], "--no-masks False, not --no-masks True"),
        (["--seed", "2"], "--seed 1, not 2"),
        (
            ["--skeleton-representation", "bone"],
            "cross_subject joint, not pretraining ntu60 cross_subject bone",
        ),
        (["--hidden-size", "32"], "has --hidden-size 16, this run 32"),
        (["--num-head", "4"], "has --num-head 2, this run 4"),
        (["--data-path", str(here / "other")], "was trained on other data of the same name"),
    ]:
        code, line = failure(capsys, pretrain, data, *same, *flags)
        assert code == 1 and message in line, line
    pretrain(data, *same, "--lr", "0.02", "--wd", "0", "--momentum", "0.8")
    out = capsys.readouterr().out
    for name, now, was in (("lr", 0.02, 0.01), ("weight_decay", 0.0, 0.0001), ("momentum", 0.8, 0.9)):
        assert f"note: resumed with {name} {now}, was {was}" in out
    assert "note: resumed with lr" in next((here / "log").glob("*/log.txt")).read_text()
    assert load_checkpoint("ck")["options"]["changes"][0] == "note: resumed with lr 0.02, was 0.01"


@pytest.fixture
def full_disk():
    """Limit the size of a file to 200 kB, which a checkpoint of these runs exceeds and a log does not, or to another size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=200_000: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_older_checkpoint(data, here, capsys, full_disk):
    pretrain(data, "--epochs", "1")
    old = (here / "ck" / "checkpoint.pth.tar").read_bytes()
    assert len(old) > 200_000
    capsys.readouterr()
    full_disk()
    code, line = failure(capsys, pretrain, data, "--epochs", "3", "--resume", "auto")
    assert code == 1 and "cannot write ck/checkpoint.pth.tar" in line and "enforce" not in line
    assert (here / "ck" / "checkpoint.pth.tar").read_bytes() == old
    assert sorted(os.listdir("ck")) == [".lock", "checkpoint.pth.tar"]


def test_a_full_log_disk_does_not_end_training(data, here, capsys, monkeypatch, full_disk):
    unlimited, inside = resource.getrlimit(resource.RLIMIT_FSIZE)[0], pretraining.checkpoints.save_checkpoint

    def save_checkpoint(*args):
        full_disk(unlimited)
        inside(*args)
        full_disk(5_000)

    monkeypatch.setattr(pretraining.checkpoints, "save_checkpoint", save_checkpoint)
    at_step(monkeypatch, 2, lambda: full_disk(5_000))
    pretrain(data, "--epochs", "6", "--print-freq", "1")
    output = capsys.readouterr()
    warning, *rest = output.err.strip().splitlines()
    assert warning.startswith("warning: cannot write the log in ") and not rest, output.err
    assert load_checkpoint("ck")["epoch"] == 6 and "Epoch: [5][3/4]" in output.out


def test_a_second_run_in_a_folder_is_refused(data, here, capsys):
    hold = "from engine.checkpoint import lock_folder\nx = lock_folder('ck'); print(flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    other.stdout.readline()
    classify = [
        "--data-path",
        str(data),
        "--random-encoder",
        *SIZES,
        "--checkpoint-path",
        "ck",
        "--epochs",
        "1",
    ]
    for run, *flags in ((pretrain, data, "--epochs", "1"), (action_classification.main, classify)):
        code, line = failure(capsys, run, *flags)
        assert code == 1 and f"ck is used by another run (process {other.pid} on " in line
    other.kill()
    other.communicate()
    pretrain(data, "--epochs", "1")
    assert len(figures(here / "log")) == 1


def test_a_link_named_lock_is_not_followed(here):
    Path("precious").write_text("text")
    Path("ck").mkdir()
    Path("ck/.lock").symlink_to("../precious")
    with pytest.raises(OSError):
        lock_folder("ck")
    assert Path("precious").read_text() == "text"


def test_a_log_belongs_to_its_checkpoint_folder(data, here, capsys):
    pretrain(data, "--epochs", "1")
    for epochs, spelling in ((2, "auto"), (3, str(here / "ck" / "checkpoint.pth.tar"))):
        pretrain(data, "--epochs", str(epochs), "--resume", spelling)
    (folder,) = (here / "log").iterdir()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')  # truncated by a kill
    pretrain(data, "--epochs", "4", "--resume", "auto")
    before = (folder / "metrics.jsonl").read_text()
    assert [json.loads(line)["epoch"] for line in before.splitlines()] == [0, 1, 2, 3]
    shutil.copytree("ck", "copy")
    pretrain(data, "--epochs", "5", "--resume", "auto", "--checkpoint-path", "copy")
    pretrain(data, "--epochs", "6", "--resume", "copy", "--checkpoint-path", "elsewhere")
    assert (folder / "metrics.jsonl").read_text() == before and len(list((here / "log").iterdir())) == 3
    capsys.readouterr()
    pretrain(data, "--epochs", "4", "--resume", "auto")
    assert capsys.readouterr().out == "nothing to do: epoch 4 of --epochs 4 (ck/checkpoint.pth.tar)\n"


def test_nan_is_neither_trained_on_nor_saved(data, here, capsys):
    pretrain(data, "--epochs", "1")
    code, line = failure(capsys, pretrain, data, "--epochs", "2", "--resume", "auto", "--lr", "1e30")
    assert code == 1 and "not finite at epoch 1" in line
    assert "stopped: " in next((here / "log").glob("*/log.txt")).read_text()
    assert load_checkpoint("ck")["epoch"] == 1
    save_each_step = ["--save-minutes", "1e-9", "--print-freq", "9", "--checkpoint-path", "new"]
    code, line = failure(capsys, pretrain, data, "--epochs", "1", "--lr", "1e38", *save_each_step)
    assert (
        code == 1 and "not finite at epoch 0, step 1" in line and not Path("new/checkpoint.pth.tar").exists()
    )


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_coordinate_that_is_not_finite_is_named(data, here, capsys, workers):
    shutil.copytree(data / "NTU-RGB-D-60-AGCN", here / "data" / "NTU-RGB-D-60-AGCN")
    path = here / "data" / "NTU-RGB-D-60-AGCN" / "xsub" / "train_data_joint.npy"
    content = bytearray(path.read_bytes())
    content[128:132] = b"\x00\x00\xc0\x7f"  # the first coordinate becomes NaN
    path.write_bytes(content)
    code, line = failure(capsys, pretrain, here / "data", "--epochs", "1", "--workers", workers)
    assert code == 1 and "train sample 0 (S0" in line and "is not finite" in line
    assert not Path("ck/checkpoint.pth.tar").exists()


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "Connection reset by peer"), ConnectionRefusedError()]
)
def test_a_worker_killed_while_it_sends_is_one_line(capsys, error):
    @script
    def main(argv):
        raise error

    code, line = failure(capsys, main, [])
    assert code == 1 and "use fewer --workers" in line


def test_a_bug_in_a_worker_keeps_its_traceback(data, here, monkeypatch):
    """torch words it as "Caught ZeroDivisionError in DataLoader worker process 0", with the worker's traceback."""
    inside = SkeletonDataset.__getitem__
    monkeypatch.setattr(
        SkeletonDataset, "__getitem__", lambda *args: 1 / 0 if get_worker_info() else inside(*args)
    )
    with pytest.raises(ZeroDivisionError, match="(?s)Caught .* DataLoader worker process 0.*lambda"):
        pretrain(data, "--epochs", "1", "--workers", "1")


def test_a_killed_worker_is_one_line(data, here, monkeypatch, capsys):
    def kill_workers():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    at_step(monkeypatch, 1, kill_workers)
    code, line = failure(capsys, pretrain, data, "--epochs", "9", "--workers", "1")
    assert code == 1 and "use fewer --workers" in line
