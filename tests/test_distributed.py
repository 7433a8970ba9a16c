"""Several processes (gloo, on the CPU): together they train like one; errors and signals end all of them."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SIZES, assert_same_training, failure
from two_processes import run_steps

import pretraining
from engine import distributed
from engine.checkpoint import load_checkpoint
from feeder.cli import UserError
from feeder.dataset import Batches

SCRIPT = str(ROOT / "tests" / "two_processes.py")


def run_two(*words):
    """Return the finished `tests/two_processes.py` or `pretraining.py` under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *words]
    return subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )


def flags(data, name, *more):
    where = ["--data-path", str(data), "--checkpoint-path", f"{name}/ck", "--log-dir", f"{name}/log"]
    contrast = ["--encoder-dim", "8", "--encoder-k", "24", "--batch-size", "8"]
    return [
        *where,
        *SIZES,
        *contrast,
        "--workers",
        "0",
        "--device",
        "cpu",
        "--seed",
        "1",
        "--print-freq",
        "1",
        *more,
    ]


def test_two_processes_equal_one(here):
    """Compiled, 4 of the same 8 clips in each: the same losses, weights, momentum encoder and queues; without a warning."""
    result = run_two(SCRIPT, "steps", "two.pt")
    assert (here / "two.pt").exists(), result.stderr
    two, (net, losses) = torch.load("two.pt", weights_only=True), run_steps()
    assert two["losses"] == pytest.approx(losses, rel=1e-9)
    assert losses[0] != losses[-1], "nothing was trained"
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(two["state_dict"][name], tensor, rtol=1e-7, atol=1e-9, msg=name)
    assert two["any"] == [[False, True]] * 2


def test_two_processes_stop_at_a_signal_and_resume_exactly(data, here):
    stopped = run_two(SCRIPT, "signal", *flags(data, "parts", "--epochs", "2", "--save-freq", "9"))
    assert stopped.returncode != 0 and stopped.stdout.count("stopped by SIGTERM at epoch 1, step 2;") == 1
    checkpoint = load_checkpoint("parts/ck")
    assert (checkpoint["epoch"], checkpoint["step"], len(checkpoint["random"])) == (1, 2, 2)
    assert not torch.equal(*(states["generator"] for states in checkpoint["random"])), (
        "each process has its own views"
    )
    for name, more in (("parts", ["--resume", "auto"]), ("whole", [])):
        result = run_two(str(ROOT / "pretraining.py"), *flags(data, name, "--epochs", "2", *more))
        assert f"checkpoint in {name}/ck" in result.stdout, result.stderr
    assert_same_training("parts/ck", "whole/ck")


def test_an_error_in_one_process_ends_all(data, here):
    result = run_two(SCRIPT, "fail", *flags(data, "two", "--epochs", "2"))
    assert result.returncode == 1 and "two_processes.py: error: rank 1 gives up" in result.stderr
    assert not (here / "two" / "ck" / "checkpoint.pth.tar").exists()


def test_each_process_reads_its_rows_of_every_batch():
    whole = list(Batches(23, 4, seed=3, drop_last=True))
    parts = [list(Batches(23, 4, seed=3, drop_last=True, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole and len(whole) == 5


def test_the_launcher_and_the_batch_must_fit(data, here, monkeypatch, capsys):
    for text, message in (
        ("3", "WORLD_SIZE=3 without RANK"),
        ("many", "WORLD_SIZE=many"),
        ("-1", "WORLD_SIZE=-1"),
    ):
        monkeypatch.setenv("WORLD_SIZE", text)
        code, line = failure(capsys, pretraining.main, flags(data, "x"))
        assert code == 1 and message in line
    for name in distributed.LAUNCHER:
        monkeypatch.setenv(name, "3")
    code, line = failure(capsys, pretraining.main, flags(data, "x"))
    assert code == 2 and "--batch-size 8 is the total of 3 processes and must be a multiple of them" in line
    monkeypatch.setenv("WORLD_SIZE", "")
    assert distributed.launched() == 1 and distributed.local_rank() is None
    with pytest.raises(UserError):
        monkeypatch.setenv("WORLD_SIZE", "0")
        distributed.launched()
