"""Pre-training that is stopped and resumed: signals, kills, a full disk, two runs in one folder, checkpoints that are kept."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, failure
from test_scripts import pretrain, records

import pretraining
from engine.checkpoint import load_checkpoint
from engine.checkpoint_folder import CheckpointFolder
from engine.meters import Meter
from engine.training import StopSignals
from feeder.dataset import Batches


def at_step(monkeypatch, number, act):
    """Have `act` done within the step of that number, counted from 0 over all epochs of this process."""
    steps = iter(range(10**6))
    inside = pretraining.mean_accuracy

    def mean_accuracy(logits):
        if next(steps) == number:
            act()
        return inside(logits)

    monkeypatch.setattr(pretraining, "mean_accuracy", mean_accuracy)


def assert_same_training(a, b):
    a, b = load_checkpoint(a), load_checkpoint(b)
    assert (a["epoch"], a["step"]) == (b["epoch"], b["step"])
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    for number, state in a["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], b["optimizer"]["state"][number]["momentum_buffer"])
    assert torch.equal(a["views"], b["views"]) and torch.equal(a["random"][0]["torch"], b["random"][0]["torch"])


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
    "workers, number, signum, status, position",
    [
        ("0", 5, signal.SIGTERM, 143, (1, 2)),
        ("2", 5, signal.SIGTERM, 143, (1, 2)),
        ("0", 4, signal.SIGINT, 130, (1, 1)),
        ("2", 7, signal.SIGINT, 130, (2, 0)),  # the last step of its epoch
    ],
)
def test_a_signal_ends_after_the_step_and_the_same_command_goes_on(
    data, here, whole, monkeypatch, capsys, workers, number, signum, status, position
):
    at_step(monkeypatch, number, lambda: os.kill(os.getpid(), signum))
    flags = ["--epochs", "3", "--workers", workers, "--resume", "auto", "--save-freq", "3"]
    with pytest.raises(SystemExit) as stop:
        pretrain(data, *flags)
    assert stop.value.code == status
    assert f"stopped by {signal.Signals(signum).name} at epoch {position[0]}" in capsys.readouterr().out
    checkpoint = load_checkpoint("ck")
    assert (checkpoint["epoch"], checkpoint["step"]) == position
    pretrain(data, *flags)
    assert_same_training("ck", whole / "ck")
    assert figures(here / "log") == figures(whole / "log"), "the epoch's means are over all its steps"


def test_a_signal_before_the_first_step_ends_as_ever(data, here, monkeypatch):
    monkeypatch.setattr(pretraining, "SkeletonDataset", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        pretrain(data, "--epochs", "1")
    assert stop.value.code == 143 and not (here / "ck").exists()


def test_a_second_signal_ends_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.signum, stop.name, stop.status) == (signal.SIGINT, "SIGINT", 130)
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is before


def test_a_signal_to_the_workers_too_loses_nothing(data, here, whole, monkeypatch):
    def end_all():
        workers = [child.pid for child in multiprocessing.active_children()]
        assert len(workers) == 2 and all(os.getsid(pid) == pid for pid in workers), "out of reach of Ctrl-C"
        for pid in [*workers, os.getpid()]:
            os.kill(pid, signal.SIGTERM)

    at_step(monkeypatch, 1, end_all)
    with pytest.raises(SystemExit) as stop:
        pretrain(data, "--epochs", "3", "--workers", "2")
    assert stop.value.code == 143
    pretrain(data, "--epochs", "3", "--resume", "auto")
    assert_same_training("ck", whole / "ck")


def test_kills_at_random_moments(data, here, whole):
    """SIGKILL, 20 times: see the script."""
    flags = ["--workers", "0", "--data-path", str(data), "--epochs", "60", "--kills", "20"]
    result = subprocess.run([sys.executable, ROOT / "tests" / "kill_pretraining.py", *flags], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "20 kills, no broken checkpoint" in result.stdout


def test_time_to_save_within_an_epoch(data, here, monkeypatch):
    seen = []
    inside = CheckpointFolder.save

    def save(self, *args, **kwargs):
        inside(self, *args, **kwargs)
        seen.append(tuple(load_checkpoint("ck")[key] for key in ("epoch", "step")))

    monkeypatch.setattr(CheckpointFolder, "save", save)
    pretrain(data, "--epochs", "2", "--save-minutes", "1e-9", "--save-freq", "2")
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert load_checkpoint("ck")["meters"]["Loss"] == [0.0, 0.0, 0]


def test_batches_begin_where_they_are_told():
    batches = Batches(23, 4, seed=3, drop_last=True)
    batches.epoch = 2
    whole = list(batches)
    batches.start = 3
    assert list(batches) == whole[3:] and len(whole) == len(batches) == 5
    assert list(Batches(5, 2, rows=slice(1, None, 2))) == [[1, 3]]


def test_a_meter_restores():
    meter, other = Meter("Loss", ".4e"), Meter("Loss", ".4e")
    meter.update(torch.tensor(2.0), 3)
    other.restore(meter.state())
    for m in (meter, other):
        m.update(4.0)
        assert (m.value, m.mean, m.total) == (4.0, 2.5, 10.0)


def test_within_an_epoch_the_batches_must_be_the_same(data, here, capsys, monkeypatch):
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        pretrain(data, "--epochs", "2")
    capsys.readouterr()
    code, line = failure(capsys, pretrain, data, "--epochs", "2", "--resume", "auto", "--batch-size", "4")
    assert code == 1 and "stands at step 2 of 4 of --batch-size 8, this run has 8 of 4" in line


def test_checkpoints_are_kept(data, here):
    (here / "ck").mkdir()
    for name in ("checkpoint_0009.pth.tar", "checkpoint_x.pth.tar"):
        (here / "ck" / name).write_text("another run's")
    pretrain(data, "--epochs", "4", "--keep-checkpoints", "2")
    names = sorted(path.name for path in (here / "ck").glob("checkpoint*"))
    assert names == ["checkpoint.pth.tar", "checkpoint_0003.pth.tar", "checkpoint_0004.pth.tar", "checkpoint_0009.pth.tar",
                     "checkpoint_x.pth.tar"]  # fmt: skip
    assert [load_checkpoint(here / "ck" / f"checkpoint_000{n}.pth.tar")["epoch"] for n in (3, 4)] == [3, 4]
    assert os.path.samefile("ck/checkpoint.pth.tar", "ck/checkpoint_0004.pth.tar"), "takes no room"
    pretrain(data, "--epochs", "5", "--keep-checkpoints", "2", "--resume", "ck/checkpoint_0003.pth.tar", "--log-dir", "log2")
    assert load_checkpoint("ck/checkpoint_0004.pth.tar")["epoch"] == 4
    assert not os.path.exists("ck/checkpoint_0003.pth.tar") and load_checkpoint("ck/checkpoint_0005.pth.tar")["epoch"] == 5


def test_checkpoints_are_kept_without_hard_links(tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with CheckpointFolder(tmp_path, keep=1) as folder:
        for epoch in (1, 2):
            folder.connect(lambda epoch=epoch: dict(state_dict={}, epoch=epoch), print)
            folder.save(epoch_done=True)
    assert load_checkpoint(tmp_path / "checkpoint_0002.pth.tar")["epoch"] == 2
    assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoint.pth.tar", "checkpoint_0002.pth.tar"]


@pytest.fixture
def full_disk():
    """No file may grow beyond 200 kB, which a checkpoint of these runs does and a log does not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    set_limit = lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))  # noqa: E731
    yield lambda: set_limit(200_000), lambda: set_limit(before[0])
    set_limit(before[0])


def test_a_full_disk_stops_or_not_as_asked(data, here, capsys, full_disk, whole, monkeypatch):
    fill, free = full_disk
    pretrain(data, "--epochs", "1")
    old = (here / "ck" / "checkpoint.pth.tar").read_bytes()
    assert len(old) > 200_000
    capsys.readouterr()
    fill()
    code, line = failure(capsys, pretrain, data, "--epochs", "3", "--resume", "auto")
    assert code == 1 and "cannot write ck/checkpoint.pth.tar: File too large; any older one is whole" in line
    assert (here / "ck" / "checkpoint.pth.tar").read_bytes() == old
    assert sorted(os.listdir("ck")) == [".lock", "checkpoint.pth.tar"]

    at_step(monkeypatch, 5, free)  # after an epoch that could not be saved there is room again
    pretrain(data, "--epochs", "3", "--resume", "auto", "--on-failed-save", "continue")
    assert "cannot write ck/checkpoint.pth.tar" in capsys.readouterr().out
    assert_same_training("ck", whole / "ck")
    fill()
    code, line = failure(capsys, pretrain, data, "--epochs", "4", "--resume", str(here / "ck"), "--on-failed-save", "continue")
    assert code == 1 and "cannot write" in line, "the last one must be written"


def test_a_second_run_in_a_folder_is_refused(data, here, capsys):
    (here / "ck").mkdir()
    hold = (
        "import sys; from engine.checkpoint_folder import CheckpointFolder\n"
        "with CheckpointFolder('ck'): print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    other.stdout.readline()
    code, line = failure(capsys, pretrain, data, "--epochs", "1")
    assert code == 1 and f"ck is another run's (process {other.pid} on " in line
    other.kill()
    other.communicate()
    pretrain(data, "--epochs", "1")
    assert len(records(here, "pretraining")) == 1


def test_a_run_that_starts_anew_keeps_the_earlier_checkpoint(data, here, capsys):
    pretrain(data, "--epochs", "2")
    pretrain(data, "--epochs", "1", "--log-dir", "log2")
    assert "--resume with that path goes on with it" in capsys.readouterr().out
    assert load_checkpoint("ck")["epoch"] == 1 and load_checkpoint("ck/earlier_checkpoint.pth.tar")["epoch"] == 2


def test_a_run_is_continued_however_its_folder_is_spelled(data, here):
    pretrain(data, "--epochs", "1")
    for epochs, spelling in ((2, "ck"), (3, str(here / "ck" / "checkpoint.pth.tar"))):
        pretrain(data, "--epochs", str(epochs), "--resume", spelling)
    (folder,) = (here / "log").iterdir()
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]
    assert not list((here / "ck").glob("earlier*"))


def test_resuming_from_elsewhere_keeps_what_stands_there(data, here, capsys):
    pretrain(data, "--epochs", "1", "--checkpoint-path", "a")
    pretrain(data, "--epochs", "2", "--checkpoint-path", "b")
    pretrain(data, "--epochs", "3", "--checkpoint-path", "b", "--resume", "a")
    assert [load_checkpoint(f"b/{name}checkpoint.pth.tar")["epoch"] for name in ("", "earlier_")] == [3, 2]
    pretrain(data, "--epochs", "4", "--checkpoint-path", "b", "--resume", "b/earlier_checkpoint.pth.tar")
    assert [load_checkpoint(f"b/{name}checkpoint.pth.tar")["epoch"] for name in ("", "earlier_", "other_")] == [4, 2, 3]
    code, line = failure(capsys, pretrain, data, "--epochs", "5", "--checkpoint-path", "b", "--resume", "auto", "--no-masks")
    assert code == 1 and "is of another run: no_masks False, not True" in line


def test_processes_that_do_not_write_touch_nothing(tmp_path):
    with CheckpointFolder(tmp_path / "ck", writes=False, save_minutes=1e-9, keep=1) as folder:
        folder.claim()
        folder.save()
        assert not folder.due
    assert os.listdir(tmp_path) == []


def test_weights_that_are_not_finite_are_not_saved(data, here, capsys):
    code, line = failure(capsys, pretrain, data, "--epochs", "1", "--lr", "1e38", "--save-minutes", "1e-9", "--print-freq", "9")
    assert code == 1 and "not finite at epoch 0, step 1" in line
    assert not (here / "ck" / "checkpoint.pth.tar").exists()


def test_a_claim_says_who_has_the_folder(tmp_path):
    with CheckpointFolder(tmp_path) as folder:
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        folder.claim()  # again: nothing to do
