"""Shared parts of the training loops: state of a run, seeds, learning-rate schedule, stop signals."""

import math
import random
import secrets
import signal
import threading
from argparse import Namespace
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from engine import distributed
from engine.checkpoint import load_weights, restore_optimizer
from engine.meters import Meter
from feeder.cli import UserError
from model import SCDNet


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


def random_states(generator: torch.Generator | None = None) -> dict:
    """Return the states of torch's global generators in this process and of `generator`; no other is drawn from."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,  # of the current GPU
        "generator": None if generator is None else generator.get_state(),
    }


def restore_random_states(
    states: dict, path: str | Path | None, generator: torch.Generator | None = None
) -> None:
    """Restore states of `random_states` from the checkpoint at `path`; the GPU state only if both runs have a GPU."""
    try:
        torch.set_rng_state(states["torch"])
        if torch.cuda.is_initialized() and states["cuda"] is not None:
            torch.cuda.set_rng_state(states["cuda"])
        if generator is not None:
            generator.set_state(states["generator"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its random states cannot be restored ({error!r})") from None


def set_learning_rate(optimizer: Optimizer, args: Namespace, epoch: int) -> float:
    """Set and return the learning rate of an epoch: times 0.1 at each milestone of --schedule, or half a cosine to 0.

    With --warmup-epochs A B, --lr is replaced by --warmup-lr until epoch A, from where it rises linearly to --lr at epoch B.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    start, end = args.warmup_epochs or (0, 0)
    risen = 1.0 if epoch >= end else max(epoch - start, 0) / (end - start)  # share of the rise
    lr = args.lr if risen == 1 else args.warmup_lr + risen * (args.lr - args.warmup_lr)
    lr *= cosine if args.cos else 0.1 ** sum(epoch >= milestone for milestone in args.schedule)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


class StopSignals:
    """While entered, record SIGTERM and SIGINT for the training loop to read.

    A second Ctrl-C ends a single process at once. Other repeated signals are ignored: torchrun and clusters send several, which
    must not interrupt the last checkpoint.
    """

    def __init__(self) -> None:
        self.signum: int | None = None  # None before a signal arrives
        self._previous: dict = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # only this thread may set handlers
            self._previous = {n: signal.signal(n, self._record) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_error: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    @property
    def name(self) -> str:
        """Name of the signal, such as SIGTERM; "another process" if it arrived there."""
        return signal.Signals(self.signum).name if self.signum else "another process"

    @property
    def status(self) -> int:
        """Exit status that a shell reports for a process ended by the signal."""
        return 128 + (self.signum or signal.SIGTERM)

    def _record(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT and distributed.world_size() == 1:
            raise SystemExit(130)
        self.signum = self.signum or signum


class Training:
    """State of a pre-training run that its checkpoints save.

    `epoch` counts completed epochs, `step` completed steps of the current epoch; `generator` draws the views.
    """

    def __init__(
        self, net: SCDNet, optimizer: Optimizer, generator: torch.Generator, epoch: int = 0, step: int = 0
    ) -> None:
        self.net, self.optimizer, self.generator, self.epoch, self.step = (
            net,
            optimizer,
            generator,
            epoch,
            step,
        )
        self.meters = {
            "Time": Meter("6.3f"),
            "Data": Meter("6.3f"),
            "Loss": Meter(".4e"),
            "Acc@1": Meter("6.2f"),
        }
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
            raise UserError(
                f"the loss is not finite at {self}: stopped, the last checkpoint is kept; try a lower --lr"
            )

    def figures(self, batch_size: int) -> dict[str, float]:
        """Return the means of the epoch over all processes, and its seconds and samples per second."""
        seconds = self.meters["Time"].total
        figures = {
            "loss": self.meters["Loss"].mean(),
            "acc1": self.meters["Acc@1"].mean(),
            "seconds": seconds,
        }
        figures["samples_per_second"] = self.step * batch_size / max(seconds, 1e-9)
        return figures | {name: meter.mean() for name, meter in self.statistics.items()}

    def next_epoch(self) -> None:
        """Start the next epoch with empty meters."""
        self.epoch, self.step = self.epoch + 1, 0
        for meter in self.meters.values():
            meter.restore([0.0, 0.0, 0])
        self.statistics.clear()

    def state(self) -> dict:
        """Return the entries of a checkpoint that `restore` reads; all processes must call it."""
        self.average_meters()
        if not torch.stack([p.isfinite().all() for p in self.net.encoder_q.parameters()]).all():
            raise UserError(
                f"weights are not finite at {self}: stopped, the last checkpoint is kept; try a lower --lr"
            )
        return dict(
            epoch=self.epoch,
            step=self.step,
            state_dict=self.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            sizes=self.net.sizes,
            meters={name: meter.state() for name, meter in (self.meters | self.statistics).items()},
            random=distributed.gather_objects(random_states(self.generator)),
        )

    def restore(self, checkpoint: dict, path: Path, data: str) -> None:
        """Continue from the checkpoint at `path`; the reference's has neither generators nor meters.

        Raises:
            UserError: its sizes or its `data` (a digest) differ.
        """
        for name, value in checkpoint.get("sizes", {}).get("encoder", {}).items():
            if self.net.sizes["encoder"].get(name) != value:
                flag, own = f"--{name.replace('_', '-')}", self.net.sizes["encoder"].get(name)
                raise UserError(
                    f"{path} has {flag} {value}, this run {own}; repeat the flags of that run to continue it"
                )
        if checkpoint.get("data", data) != data:
            raise UserError(
                f"{path} was trained on other data of the same name; choose another --checkpoint-path"
            )
        load_weights(self.net, checkpoint["state_dict"], path)
        restore_optimizer(self.optimizer, self.net, checkpoint, path)
        for name, values in checkpoint.get("meters", {}).items():
            meter = self.meters.get(name) or self.statistics.setdefault(name, Meter())
            meter.restore(values)
        states = checkpoint.get("random", [])
        if distributed.rank() < len(states):  # additional processes keep their own seeds
            restore_random_states(states[distributed.rank()], path, self.generator)
