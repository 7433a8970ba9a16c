"""What the processes of a distributed test run: `torchrun --nproc_per_node 2 two_processes.py MODE ARGS`.

steps OUT: three steps of pre-training on fixed views, each process on its rows; rank 0 saves the result to
    OUT. Its encoders are compiled into one graph each, by the backend aot_eager; those of rank 1 are not.
signal FLAGS: pretraining.py, in which rank 1 receives SIGTERM in the sixth step, and rank 0 while it slowly
    writes.
resume FLAGS: pretraining.py with --resume auto, then from the start in whole/, then from the start in fail/,
    where rank 1 ends with an error in the third step.
"""

import functools
import os
import signal
import sys
import time
import warnings
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from conftest import SMALL, at_step
from torch import nn
from torch._dynamo.utils import counters

import pretraining
from engine import distributed
from feeder.cli import UserError
from feeder.dataset import Batch
from model import SCDNet

CPU = torch.device("cpu")


def fixed_views(x, _num_frames, _generator):
    """Stand-in for `PretrainingViews`: the clips are the first view, and the clips in reverse the second."""
    return x, x.flip(2)


def run_steps(compiled: bool = False) -> tuple[SCDNet, list[float]]:
    """Return the network and the losses after three steps.

    Double precision, no dropout and running statistics in BatchNorm: numbers of processes differ in rounding
    only.
    """
    torch.manual_seed(0)
    net = SCDNet(SMALL | {"dropout": 0.0}, dim=8, K=24, m=0.9).double().train()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for encoder in (net.encoder_q, net.encoder_k):
        encoder.compile = functools.partial(encoder.compile, backend="aot_eager")
    args = pretraining.get_parser().parse_args(["--compile"] if compiled else [])
    model = pretraining.prepare(net, args, CPU)
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.1, 0.9)
    rank, rows, losses = distributed.rank(), 8 // distributed.world_size(), []
    for x in torch.randn(3, 8, 3, 16, 25, 2, dtype=torch.float64).cumsum(dim=3):
        batch = Batch(x[rank * rows : (rank + 1) * rows], None, None)
        _, loss = pretraining.train_step(model, optimizer, fixed_views, batch, None)
        losses.append(distributed.average(torch.stack(list(loss.values())).detach().sum()).item())
    return net, losses


def write_slowly(*args, inside=pretraining.checkpoints.save_checkpoint) -> None:
    """Signal the process that writes a checkpoint, as torchrun does; take longer than the other's end."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    inside(*args)


def terminate() -> None:
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    if distributed.rank() == 1:
        raise UserError("rank 1 gives up")


def save_steps(path: str) -> None:
    distributed.init_processes(CPU)
    with (
        warnings.catch_warnings(record=True) as caught,
        mock.patch.object(dist, "all_gather", wraps=dist.all_gather) as gather,
    ):
        warnings.simplefilter("always")
        network, history = run_steps(compiled=distributed.rank() == 0)
    assert not caught, [str(warning.message) for warning in caught]
    assert gather.call_count == 3, "the keys of a step in one gathering"
    gathered = distributed.gather_objects(distributed.any_process(False, distributed.rank() == 1))
    if distributed.rank() == 0:
        assert counters["stats"]["unique_graphs"] == 2, "one graph for each encoder"
        torch.save({"state_dict": network.state_dict(), "losses": history, "any": gathered}, path)
    distributed.close_processes()


if __name__ == "__main__":
    patch, (mode, *rest) = pytest.MonkeyPatch(), sys.argv[1:]
    if mode == "steps":
        save_steps(*rest)
    elif mode == "resume":
        distributed.close_processes = distributed.wait_for_all  # both runs share one connection
        pretraining.main([*rest, "--resume", "auto"])
        distributed.init_processes = lambda _device: None
        pretraining.main([*rest, "--checkpoint-path", "whole"])
        at_step(patch, 2, fail)
        pretraining.main([*rest, "--checkpoint-path", "fail"])
    else:
        pretraining.checkpoints.save_checkpoint = write_slowly
        at_step(patch, 5, terminate)
        pretraining.main(rest)
