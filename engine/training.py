"""Shared parts of the training loops: seeds, learning rate, stop signals; the state of pre-training."""

import contextlib
import math
import secrets
import signal
import statistics
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from engine import distributed
from engine.checkpoint import restore_optimizer
from engine.meters import Meter
from feeder.augmentations import PretrainingViews
from feeder.cli import UserError

METERS = {"Time": "6.3f", "Data": "6.3f", "Loss": ".4e", "Acc@1": "6.2f"}
KEPT = "stopped, the last checkpoint is kept; try a lower --lr"


def seed_everything(seed: int | None) -> int:
    """Seed torch's global generators, and return the seed; None draws a new one."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    torch.manual_seed(seed)
    return seed


def process_seed(seed: int, rank: int) -> int:
    """Return the seed of dropout and views in one process; it differs for each seed and rank."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]) >> 1  # below 2^63


def random_states(generator: torch.Generator) -> dict:
    """Return the states of torch's global generators and of `generator`; no other generator is used."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,  # of the current GPU
        "generator": generator.get_state(),
    }


def restore_random_states(states: dict, generator: torch.Generator) -> None:
    """Restore the result of `random_states`; the GPU state only if both runs have a GPU."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_initialized() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    generator.set_state(states["generator"])


def set_learning_rate(optimizer: Optimizer, args: Namespace, epoch: int) -> float:
    """Set and return the learning rate of an epoch: --lr, with --schedule milestones or a cosine.

    Each milestone divides the rate by 10. With --warmup-epochs A B, milestones or cosine apply to --warmup-lr
    until epoch A, then to a linear rise to --lr at epoch B.
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
        model: an `SCDNet`, possibly wrapped in `DistributedDataParallel`.
        optimizer: the optimiser of its query encoder.
        views: the augmentation.
        generator: the generator of the views' random numbers, on the CPU.
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
        self.start_epoch(self.epoch)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f", step {self.step}" if self.step else "")

    def start_epoch(self, epoch: int) -> None:
        """Start an epoch with empty meters; those of statistics are created when first updated."""
        self.epoch, self.step = epoch, 0
        self.meters = defaultdict(Meter, {name: Meter(form) for name, form in METERS.items()})

    def check_weights(self) -> None:
        """Raise `UserError` if a weight is not finite."""
        if not torch.stack([p.isfinite().all() for p in self.net.encoder_q.parameters()]).all():
            raise UserError(f"weights are not finite at {self}: {KEPT}")

    def average_meters(self) -> None:
        """Replace the totals of the meters by their means over the processes; all processes must call it."""
        totals = distributed.gather_objects([float(meter.total) for meter in self.meters.values()])
        for meter, *values in zip(self.meters.values(), *totals, strict=True):
            meter.total = statistics.fmean(values)

    def figures(self, batch_size: int) -> dict[str, float]:
        """Return the means of the epoch over all processes, and its seconds and samples per second."""
        self.average_meters()
        means = {name: meter.mean() for name, meter in self.meters.items()}
        seconds = self.meters["Time"].total
        speed = {"seconds": seconds, "samples_per_second": self.step * batch_size / max(seconds, 1e-9)}
        others = {name: mean for name, mean in means.items() if name not in METERS}
        return {"loss": means["Loss"], "acc1": means["Acc@1"]} | speed | others

    def state(self) -> dict:
        """Return the entries of a checkpoint that `restore` reads; all processes must call it."""
        self.check_weights()
        self.average_meters()
        return dict(
            epoch=self.epoch,
            step=self.step,
            state_dict=self.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            sizes=self.net.sizes,
            meters={name: [float(m.value), float(m.total), m.count] for name, m in self.meters.items()},
            random=distributed.gather_objects(random_states(self.generator)),
        )

    def restore(self, checkpoint: dict) -> None:
        """Continue from a checkpoint; the reference's has neither generators nor meters."""
        self.net.load_state_dict(checkpoint["state_dict"])
        restore_optimizer(self.optimizer, self.net, checkpoint)
        self.epoch, self.step = checkpoint["epoch"], checkpoint.get("step", 0)
        for name, values in checkpoint.get("meters", {}).items():
            self.meters[name] = Meter(METERS.get(name, ".4f"), *values)
        states = checkpoint.get("random", [])
        if distributed.rank() < len(states):  # additional processes keep their own seeds
            restore_random_states(states[distributed.rank()], self.generator)
