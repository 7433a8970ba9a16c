"""Several processes (gloo, on the CPU): together they train like one; errors and signals end all of them."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from conftest import CONTRAST, ROOT, assert_same_training, at_step, failure, metrics, pretrain, saved
from torch import nn
from torch._dynamo.utils import counters

import pretraining
from feeder.augmentations import PretrainingViews
from feeder.cli import UserError
from feeder.dataset import Batches
from model import SCDNet


def together(run, *args):
    """Call `run` in two processes as torchrun starts them, forked from this one; return their statuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def start(rank):
        launcher = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        os.environ |= {name: str(value) for name, value in launcher.items()}
        run(*args)

    processes = [multiprocessing.get_context("fork").Process(target=start, args=[rank]) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()  # if it hangs: its status is then -9
        process.join()
    return [process.exitcode for process in processes]


def in_rank_1(act):
    """Return a function that calls `act` in the second process alone."""
    return lambda: act() if os.environ["RANK"] == "1" else None


class ExactNet(SCDNet):
    """In double precision, without dropout, BatchNorm with running statistics; queries of rank 0 compiled."""

    def __init__(self, *args):
        super().__init__(*args)
        self.double()
        if os.environ.get("RANK") == "0":
            self.encoder_q.compile(fullgraph=True, backend="eager")

    def train(self, mode=True):
        for module in super().train(mode).modules():
            if isinstance(module, nn.Dropout | nn.MultiheadAttention | nn.modules.batchnorm._BatchNorm):
                module.training = False
        return self


class ExactViews(PretrainingViews):
    """Without random numbers: the processes have generators of their own."""

    def __call__(self, x, _num_frames, _generator):
        x = x[:, :, : self.size, :, : self.bodies].double()
        return x, x.flip(2)


def test_two_processes_equal_one(data, here, monkeypatch):
    """4 of the same 8 clips in each: the same losses, weights, momentum and queues; no warning."""

    def run(folder):
        flags = f"--lr 0.1 --encoder-m 0.9 --epochs 2 --checkpoint-path {folder} --log-dir {folder}/log"
        pretrain(data, flags)
        assert os.environ.get("RANK") != "0" or counters["stats"]["unique_graphs"] == 1

    monkeypatch.setattr(pretraining, "SCDNet", ExactNet)
    monkeypatch.setattr(pretraining, "PretrainingViews", ExactViews)
    torch._dynamo.reset()
    counters.clear()
    run("one")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert together(run, "two") == [0, 0]
    one, two = saved("one"), saved("two")
    for name in ("state_dict", "optimizer"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-9, atol=1e-9)
    one, two = (metrics(next(Path(folder, "log").iterdir())) for folder in ("one", "two"))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-6)
    assert one[0]["loss"] > one[1]["loss"] + 0.01, "nothing was trained"


@pytest.fixture(scope="module")
def whole_of_two(data, tmp_path_factory):
    """The checkpoint folder of two processes that were never stopped."""
    folder = tmp_path_factory.mktemp("whole_of_two")
    flags = f"--epochs 3 --checkpoint-path {folder} --log-dir {folder / 'log'}"
    assert together(pretrain, data, flags) == [0, 0]
    return folder


@pytest.mark.parametrize("often, position", [("--print-freq 3", (1, 3)), ("", (2, 0))])
def test_a_signal_to_one_process_stops_both_and_they_resume_exactly(
    data, here, whole_of_two, monkeypatch, capfd, often, position
):
    """After --print-freq steps, or at the end of an epoch that has fewer."""
    flags, replace = f"--epochs 3 --resume auto --save-freq 9 {often}", os.replace

    def replace_slowly(*paths):  # while torchrun passes the signal on; longer than the other needs to end
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        replace(*paths)

    def run():
        try:
            pretrain(data, flags)
        finally:
            assert Path("ck/checkpoint.pth.tar").exists(), "torchrun would have killed the writing process"

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_slowly)
        at_step(patch, 5, in_rank_1(lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert together(run) == [143, 143]
    assert capfd.readouterr().out.count(f"stopped by SIGTERM at epoch {position[0]}") == 1
    checkpoint = saved("ck")
    assert (checkpoint["epoch"], checkpoint["step"]) == position
    generators = [states["generator"] for states in checkpoint["random"]]
    assert not torch.equal(*generators), "each process has its own views"
    assert together(pretrain, data, flags) == [0, 0]
    assert_same_training("ck", whole_of_two)


def test_an_error_in_one_process_ends_both_with_one_line_each(data, here, monkeypatch, capfd):
    def fail():
        raise UserError("rank 1 gives up")

    at_step(monkeypatch, 2, in_rank_1(fail))
    assert together(pretrain, data) == [1, 1]
    lines = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 2 and any("rank 1 gives up" in line for line in lines)
    assert (
        any("lost another process" in line for line in lines) and not Path("ck/checkpoint.pth.tar").exists()
    )


def test_torchrun_stops_at_a_signal(data, here):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(ROOT / "pretraining.py"), *f"--data-path {data} {CONTRAST} --epochs 9999".split()]
    with open("out.txt", "w") as file:
        run = subprocess.Popen(command, stdout=file, stderr=file)
    while run.poll() is None and "Epoch: [0]" not in Path("out.txt").read_text():
        time.sleep(0.1)
    run.terminate()
    run.wait(120)
    assert Path("out.txt").read_text().count("stopped by SIGTERM at epoch ") == 1, Path("out.txt").read_text()
    assert len(saved("ck")["random"]) == 2


def test_each_process_reads_its_rows_of_every_batch():
    whole = list(Batches(23, 4, seed=3, drop_last=True))
    parts = [list(Batches(23, 4, seed=3, drop_last=True, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole and len(whole) == 5


def test_the_launcher_and_the_batch_must_fit(data, here, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")  # by a cluster's scheduler
    code, line = failure(capsys, pretrain, data)
    assert code == 1 and "WORLD_SIZE=3: start several processes with torchrun" in line
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "3")
    code, line = failure(capsys, pretrain, data)
    assert code == 2 and "--batch-size 8 is the total of 3 processes and must be a multiple of them" in line
