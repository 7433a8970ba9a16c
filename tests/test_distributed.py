"""Several processes (gloo, on the CPU): together they train like one; errors and signals end all of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONTRAST, ROOT, assert_same_training, failure
from two_processes import run_steps

import pretraining
from engine import distributed
from engine.checkpoint import load_checkpoint
from feeder.dataset import Batches


def run_two(mode, text):
    """Return the finished `tests/two_processes.py` under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(ROOT / "tests" / "two_processes.py"), mode, *text.split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_two_processes_equal_one(here):
    """One is compiled; 4 of the same 8 clips in each: the same losses, weights, queues; no warning."""
    result = run_two("steps", "two.pt")
    assert Path("two.pt").exists(), result.stderr
    two, (net, losses) = torch.load("two.pt", weights_only=True), run_steps()
    assert two["losses"] == pytest.approx(losses, rel=1e-9)
    assert losses[0] != losses[-1], "nothing was trained"
    torch.testing.assert_close(two["state_dict"], dict(net.state_dict()), rtol=1e-7, atol=1e-9)
    assert two["any"] == [[False, True]] * 2


def test_two_processes_stop_at_a_signal_resume_exactly_and_end_together(data, here):
    flags = f"--data-path {data} {CONTRAST} --print-freq 1 --epochs 2"
    stopped = run_two("signal", f"{flags} --save-freq 9")
    assert stopped.returncode != 0 and stopped.stdout.count("stopped by SIGTERM at epoch 1, step 2;") == 1
    checkpoint = load_checkpoint("ck")
    assert (checkpoint["epoch"], checkpoint["step"], len(checkpoint["random"])) == (1, 2, 2)
    generators = [states["generator"] for states in checkpoint["random"]]
    assert not torch.equal(*generators), "each process has its own views"

    # the last of the three runs fails in one process
    result = run_two("resume", flags)
    assert "checkpoint in whole\n" in result.stdout, result.stderr
    assert_same_training("ck", "whole")
    assert result.returncode == 1 and "two_processes.py: error: rank 1 gives up" in result.stderr
    assert not Path("fail/checkpoint.pth.tar").exists()


def test_each_process_reads_its_rows_of_every_batch():
    whole = list(Batches(23, 4, seed=3, drop_last=True))
    parts = [list(Batches(23, 4, seed=3, drop_last=True, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole and len(whole) == 5


def test_the_launcher_and_the_batch_must_fit(data, here, monkeypatch, capsys):
    flags = f"--data-path {data} {CONTRAST}".split()
    for text in ("3", "many", "-1", "0"):
        monkeypatch.setenv("WORLD_SIZE", text)
        code, line = failure(capsys, pretraining.main, flags)
        assert code == 1 and f"WORLD_SIZE={text} without RANK" in line
    for name in distributed.LAUNCHER:
        monkeypatch.setenv(name, "3")
    code, line = failure(capsys, pretraining.main, flags)
    assert code == 2 and "--batch-size 8 is the total of 3 processes and must be a multiple of them" in line
    monkeypatch.setenv("WORLD_SIZE", "")
    assert distributed.launched() == 1 and distributed.local_rank() is None
