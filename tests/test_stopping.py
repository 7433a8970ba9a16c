"""Pre-training that is stopped and resumed: signals, kills, a full disk, two runs in a folder, copies."""

import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZES, assert_same_training, at_step, classify, failure, metrics, newest, pretrain, saved

KILLS = int(os.environ.get("KILLS", 4))
Process = multiprocessing.get_context("fork").Process  # starts at once: torch is imported


def figures(log):
    """Loss, accuracy and learning rate of each epoch of the only run in a log folder."""
    (folder,) = log.iterdir()
    return [[line[name] for name in ("epoch", "loss", "acc1", "lr")] for line in metrics(folder)]


@pytest.mark.parametrize(
    "workers, number, signum, status, position",
    [(0, 5, signal.SIGTERM, 143, (1, 2)), (2, 7, signal.SIGINT, 130, (2, 0))],  # 7 ends the second epoch
)
def test_a_signal_ends_after_the_step_and_the_same_command_continues(
    data, here, whole, monkeypatch, capsys, workers, number, signum, status, position
):
    def signal_all():  # as a cluster does; it repeats SIGTERM
        workers = [child.pid for child in multiprocessing.active_children()]
        for pid in [*workers, os.getpid(), *[os.getpid()] * (signum == signal.SIGTERM)]:
            os.kill(pid, signum)

    at_step(monkeypatch, number, signal_all)
    flags = f"--epochs 3 --workers {workers} --resume auto --save-freq 3"
    with pytest.raises(SystemExit) as stop:
        pretrain(data, flags)
    assert stop.value.code == status
    assert f"stopped by {signum.name} at epoch {position[0]}" in capsys.readouterr().out
    checkpoint = saved("ck")
    assert (checkpoint["epoch"], checkpoint["step"]) == position
    pretrain(data, flags)
    assert_same_training("ck", whole / "ck")
    assert figures(here / "log") == figures(whole / "log"), "means include the steps before the signal"


def test_a_second_ctrl_c_ends_at_once(data, here, monkeypatch):
    at_step(monkeypatch, 2, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        pretrain(data)
    assert stop.value.code == 130 and os.listdir("ck") == [".lock"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_kills_at_random_moments(data, here):
    """SIGKILL: the checkpoint is whole, at most one step is lost, and the next run continues.

    Half of the kills come at any moment, the others shortly after the run has saved for the first time.
    """
    flags = "--epochs 60 --resume auto --print-freq 1 --save-minutes 1e-9"
    rng, path, done = random.Random(0), Path("ck/checkpoint.pth.tar"), 0

    def written():
        return path.exists() and path.stat().st_mtime_ns

    for kill in range(KILLS):
        before, run = written(), Process(target=pretrain, args=(data, flags))
        run.start()
        while kill % 2 and run.is_alive() and written() == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3 if kill % 2 else 1.0))
        run.kill()
        run.join()
        assert run.exitcode in (-signal.SIGKILL, 0), f"kill {kill}: the run ended by itself"
        if done or path.exists():
            text = "".join(log.read_text() for log in here.glob("log/*/log.txt"))
            lines = re.findall(r"^Epoch: \[(\d+)\]\[(\d)/4\]\t.*\n", text, re.M)
            logged = max(4 * int(epoch) + int(step) + 1 for epoch, step in lines)
            checkpoint = saved(path)
            position = 4 * checkpoint["epoch"] + checkpoint["step"]
            assert position >= max(done, logged - 1), f"kill {kill}: steps are lost"
            done = position
    assert done, "no kill came late enough for a step"


def test_what_a_resumed_run_may_change(data, here, monkeypatch, capsys):
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        pretrain(data)
    shutil.copytree(data / "NTU-RGB-D-60-AGCN", "other/NTU-RGB-D-60-AGCN")
    part = Path("other/NTU-RGB-D-60-AGCN/xsub/train_num_frame.npy")
    np.save(part, np.append(np.load(part)[:-1], 1))
    capsys.readouterr()
    for flags, message in {
        "--batch-size 4": "is at step 2 of an epoch: resume with --batch-size 8 to",
        "--encoder-t 0.1": "another run: --encoder-t 0.2, not --encoder-t 0.1; repeat the flags of that run",
        "--pairs tt": "--pairs ti si it is, not --pairs tt",
        "--no-masks": "--no-masks False, not --no-masks",
        "--num-head 4": "--num-head 2, not --num-head 4",
        "--data-path other": "was started with other data",
    }.items():
        code, line = failure(capsys, pretrain, data, f"--resume auto {flags}")
        assert code == 1 and message in line, line
    pretrain(data, "--resume auto --lr 0.02 --wd 0 --momentum 0.8")
    changes = ("lr 0.02, was 0.01", "momentum 0.8, was 0.9", "weight-decay 0.0, was 0.0001")
    notes = [f"note: resumed with --{change}" for change in changes]
    (group,) = saved("ck")["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.8, 0)
    assert saved("ck")["changes"] == notes and "\n".join(notes) in (newest() / "log.txt").read_text()


def test_a_full_disk_ends_the_run_and_keeps_the_older_checkpoint(data, here, capsys, monkeypatch):
    """Of the checkpoint, which is larger than a log, then of the log."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    pretrain(data)
    old, more = Path("ck/checkpoint.pth.tar").read_bytes(), "--epochs 2 --resume auto --print-freq 1"
    try:
        limit(200_000)
        code, line = failure(capsys, pretrain, data, more)
        assert code == 1 and "cannot write ck/checkpoint.pth.tar" in line and "enforce" not in line
        limit(before[0])
        at_step(monkeypatch, 1, lambda: limit(100))
        code, line = failure(capsys, pretrain, data, more)
        assert code == 1 and "File too large" in line
    finally:
        limit(before[0])
    assert Path("ck/checkpoint.pth.tar").read_bytes() == old
    assert sorted(os.listdir("ck")) == [".lock", "checkpoint.pth.tar"]


def test_a_folder_is_locked_before_its_checkpoint_is_read(data, here, monkeypatch, capsys):
    """The first run of a folder waits in a step; the second meets a checkpoint that cannot be read."""
    reached, wait = multiprocessing.Event(), multiprocessing.Event()
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda: reached.set() or wait.wait())
        first = Process(target=pretrain, args=(data,))
        first.start()
    encoder = f"--random-encoder {SIZES}"
    try:
        assert reached.wait(60)
        Path("ck/checkpoint.pth.tar").write_text("being written")
        for run, flags in [
            (pretrain, "--resume auto"),
            (pretrain, ""),
            (classify, encoder),
            (classify, f"{encoder} --finetune --resume auto"),
        ]:
            code, line = failure(capsys, run, data, flags)
            assert code == 1 and f"ck is used by another run (process {first.pid} on " in line
    finally:
        first.kill()
        first.join()
    Path("ck/checkpoint.pth.tar").unlink()
    pretrain(data, "--resume auto")
    assert saved("ck")["epoch"] == 1


def test_a_log_belongs_to_its_checkpoint_folder(data, here, capsys):
    pretrain(data)
    pretrain(data, f"--epochs 2 --resume {here / 'ck' / 'checkpoint.pth.tar'}")
    (folder,) = (here / "log").iterdir()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "lo')  # truncated by a kill
    pretrain(data, "--epochs 3 --resume auto")
    before = metrics(folder)
    assert [line["epoch"] for line in before] == [0, 1, 2]
    shutil.copytree("ck", "copy")
    pretrain(data, "--epochs 4 --resume auto --checkpoint-path copy")
    assert metrics(folder) == before and len(list((here / "log").iterdir())) == 2
    capsys.readouterr()
    pretrain(data, "--epochs 3 --resume auto")
    assert capsys.readouterr().out == "nothing to do: epoch 3 of --epochs 3 (ck/checkpoint.pth.tar)\n"


def test_nan_is_neither_trained_on_nor_saved(data, here, capsys):
    pretrain(data)
    code, line = failure(capsys, pretrain, data, "--epochs 2 --resume auto --lr 1e30")
    assert code == 1 and "not finite at epoch 1" in line
    assert "stopped: " in (newest() / "log.txt").read_text() and saved("ck")["epoch"] == 1
    each_step = "--save-minutes 1e-9 --print-freq 9 --checkpoint-path new"
    code, line = failure(capsys, pretrain, data, f"--lr 1e38 {each_step}")
    assert code == 1 and "not finite at epoch 0" in line and os.listdir("new") == [".lock"]


def test_a_killed_worker_is_one_line(data, here, monkeypatch, capsys):
    def kill_workers():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    at_step(monkeypatch, 1, kill_workers)
    code, line = failure(capsys, pretrain, data, "--epochs 9 --workers 1")
    assert code == 1 and "use fewer --workers" in line


def test_a_bug_keeps_its_traceback(data, here, monkeypatch):
    at_step(monkeypatch, 1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain(data)
