"""Run `pretraining.py` in double precision, without dropout, which each process draws by itself, and without ties.

    torchrun --nproc_per_node 2 tests/two_processes.py PRETRAINING'S FLAGS

So what is left to differ between numbers of processes is rounding. Ties: equal inputs, such as an absent second body, make
equal values at ReLUs and maxima, and rounding decides where their gradient goes.

With SCDNET_TEST=signal rank 1 sends torchrun SIGTERM in the fifth step. With SCDNET_TEST=fail all print what
`engine.distributed` computes in the first, one JSON line a rank, and rank 1 raises an error in the third.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pretraining
from engine import distributed
from feeder.cli import UserError
from model import SCDNet


class ExactNet(SCDNet):
    """Double precision, no dropout, no ties."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.double()
        self.noise = 1e-3 * torch.randn(3, 64, 25, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0

    def forward(self, q, k):
        return super().forward(q + self.noise, k + self.noise)


def at_step(number: int, act: Callable[[], None]) -> None:
    """Have `act` done within the step of that number, counted from 0."""
    steps, inside = iter(range(10**6)), pretraining.mean_accuracy

    def mean_accuracy(logits):
        if next(steps) == number:
            act()
        return inside(logits)

    pretraining.mean_accuracy = mean_accuracy


def fail() -> None:
    """Raise in rank 1."""
    if distributed.rank() == 1:
        raise UserError("no more of this")


def end_launcher() -> None:
    """In rank 1 send torchrun SIGTERM, as a cluster does, and wait until it has passed it on."""
    if distributed.rank() != 1:
        return
    noted = signal.getsignal(signal.SIGTERM).__self__
    os.kill(os.getppid(), signal.SIGTERM)
    while not noted.signum:
        time.sleep(0.01)


def say(record: dict) -> None:
    """Write a JSON line in one piece: the processes share their output."""
    os.write(1, (json.dumps(record) + "\n").encode())


def report() -> None:
    """Print the results of the exchanges between processes."""
    rank, world = distributed.rank(), distributed.world_size()
    mine = torch.arange(7)[rank::world].float()[:, None] * torch.ones(3)  # (3 or 4, 3)
    x = torch.tensor([1.0 + rank], requires_grad=True)
    (distributed.total(x) * (rank + 1)).backward()
    layer = nn.Linear(1, 1)
    layer.weight.grad, layer.bias.grad = torch.full((1, 1), float(rank)), torch.full((1,), 10.0 * rank)
    distributed.average_gradients(layer)
    say({
        "rank": rank,
        "rows": distributed.gather_rows(mine, 7)[:, 0].tolist(),
        "labels": distributed.gather_rows(torch.arange(7)[rank::world], 7).tolist(),
        "batch": distributed.gather_batch(torch.full((1, 2), rank))[:, 0].tolist(),
        "total": [distributed.total(x).item(), x.grad.item()],
        "gradients": [layer.weight.grad.item(), layer.bias.grad.item()],
        "any": distributed.any_process(False, rank == 1, True),
        "rank 0": distributed.from_rank_0(f"said by {rank}"),
        "share": [distributed.share(8).start, distributed.share(8).stop],
    })  # fmt: skip
    try:
        distributed.check_alike("what they were told", rank)
    except UserError as error:
        say({"error": str(error)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    pretraining.SCDNet = ExactNet
    mode = os.environ["SCDNET_TEST"]
    if mode == "fail":
        at_step(0, report)
        at_step(2, fail)
    elif mode == "signal":
        at_step(4, end_launcher)
    pretraining.main()
