"""Shared parts of the training loops: seeds, learning rate, stop signals; the state of a pre-training."""

import contextlib
import math
import random
import secrets
import signal
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engine import distributed
from engine.checkpoint import restore_optimizer
from engine.meters import Meter
from feeder.augmentations import PretrainingViews
from feeder.cli import UserError

METERS = {"Time": "6.3f", "Data": "6.3f", "Loss": ".4e", "Acc@1": "6.2f"}
KEPT = "stopped, the last checkpoint is kept; try a lower --lr"


def seed_everything(seed: int | None) -> int:
    """Seed Python, NumPy and torch, and return the seed; None draws a new one."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def process_seed(seed: int, rank: int) -> int:
    """Return the seed of dropout and views in one process; no two runs or processes share it."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]) >> 1  # below 2^63


def random_states(generator: torch.Generator) -> dict:
    """Return the states of torch's global generators and of `generator`; no other generator is used."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,  # of the current GPU
        "generator": generator.get_state(),
    }


def restore_random_states(states: dict, generator: torch.Generator) -> None:
    """Restore states of `random_states`; the GPU state only if both runs have a GPU."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_initialized() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    generator.set_state(states["generator"])


def set_learning_rate(optimizer: Optimizer, args: Namespace, epoch: int) -> float:
    """Set and return the learning rate of an epoch: --lr, a tenth at each --schedule milestone, or a cosine.

    With --warmup-epochs A B, it is --warmup-lr until epoch A, then rises linearly to --lr at epoch B.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    start, end = args.warmup_epochs or (0, 0)
    risen = 1.0 if epoch >= end else max(epoch - start, 0) / (end - start)  # share of the rise
    lr = args.lr if risen == 1 else args.warmup_lr + risen * (args.lr - args.warmup_lr)
    lr *= cosine if args.cos else 0.1 ** sum(epoch >= milestone for milestone in args.schedule)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in the yielded list, which the training loop reads.

    A second Ctrl-C ends a single process at once. Other repeated signals are ignored: torchrun and clusters
    send several, which must not interrupt the last checkpoint.
    """
    caught: list[int] = []

    def record(signum: int, _frame: FrameType | None) -> None:
        if caught and signum == signal.SIGINT and distributed.world_size() == 1:
            raise SystemExit(130)
        caught.append(signum)

    previous = {signum: signal.signal(signum, record) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@dataclass
class Training:
    """State of a pre-training run that its checkpoints save.

    Args:
        model: an `SCDNet`, or its `DistributedDataParallel`.
        optimizer: the optimiser of its query encoder.
        views: the augmentation.
        generator: of the views' parameters.
        epoch: completed epochs.
        step: completed steps of the current epoch.
    """

    model: nn.Module
    optimizer: Optimizer
    views: PretrainingViews
    generator: torch.Generator
    epoch: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        self.net = getattr(self.model, "module", self.model)
        self.device = next(self.model.parameters()).device
        self.meters = {name: Meter(form) for name, form in METERS.items()}
        self.statistics: dict[str, Meter] = {}  # of printed steps

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f", step {self.step}" if self.step else "")

    def add_statistics(self, values: dict[str, Tensor]) -> None:
        """Add scalars of `contrast_statistics`, averaged over the processes, to the means of the epoch."""
        means = distributed.average(torch.stack([*values.values()]))
        for name, value in zip(values, means, strict=True):
            self.statistics.setdefault(name, Meter()).update(value)

    def average_meters(self) -> None:
        """Replace loss and accuracy by their means over the processes; all processes must call it."""
        for meter in (self.meters["Loss"], self.meters["Acc@1"]):
            if distributed.world_size() > 1:
                values = torch.tensor([float(meter.value), float(meter.total)])
                meter.value, meter.total = distributed.average(values).tolist()

    def check_loss(self) -> None:
        """Raise `UserError` if a loss of the epoch is not finite."""
        if not math.isfinite(self.meters["Loss"].total):
            raise UserError(f"the loss is not finite at {self}: {KEPT}")

    def figures(self, batch_size: int) -> dict[str, float]:
        """Return the means of the epoch over all processes, and its seconds and samples per second."""
        means = {name: meter.mean() for name, meter in self.statistics.items()}
        seconds = self.meters["Time"].total
        speed = {"seconds": seconds, "samples_per_second": self.step * batch_size / max(seconds, 1e-9)}
        return {"loss": self.meters["Loss"].mean(), "acc1": self.meters["Acc@1"].mean()} | speed | means

    def next_epoch(self) -> None:
        """Start the next epoch with empty meters."""
        self.epoch, self.step = self.epoch + 1, 0
        for meter in self.meters.values():
            meter.restore([0.0, 0.0, 0])
        self.statistics.clear()

    def state(self) -> dict:
        """Return the entries of a checkpoint that `restore` reads; all processes must call it."""
        if not torch.stack([p.isfinite().all() for p in self.net.encoder_q.parameters()]).all():
            raise UserError(f"weights are not finite at {self}: {KEPT}")
        self.average_meters()
        return dict(
            epoch=self.epoch,
            step=self.step,
            state_dict=self.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            sizes=self.net.sizes,
            meters={name: meter.state() for name, meter in (self.meters | self.statistics).items()},
            random=distributed.gather_objects(random_states(self.generator)),
        )

    def restore(self, checkpoint: dict) -> None:
        """Continue from a checkpoint; the reference's has neither generators nor meters."""
        for name, value in checkpoint.get("sizes", {}).get("encoder", {}).items():
            if self.net.sizes["encoder"].get(name) != value:
                flag = f"--{name.replace('_', '-')} {value}"
                raise ValueError(f"it has {flag}: repeat the flags of that run to continue it")
        self.net.load_state_dict(checkpoint["state_dict"])
        restore_optimizer(self.optimizer, self.net, checkpoint)
        self.epoch, self.step = checkpoint["epoch"], checkpoint.get("step", 0)
        for name, values in checkpoint.get("meters", {}).items():
            (self.meters.get(name) or self.statistics.setdefault(name, Meter())).restore(values)
        states = checkpoint.get("random", [])
        if distributed.rank() < len(states):  # additional processes keep their own seeds
            restore_random_states(states[distributed.rank()], self.generator)
