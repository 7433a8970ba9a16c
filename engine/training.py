"""What every training loop needs: seeds, the learning rate of an epoch, stop signals."""

import math
import random
import secrets
import signal
import threading
from types import FrameType

import numpy as np
import torch
from torch.optim import Optimizer

from engine.distributed import from_rank_0, rank


def seed_everything(seed: int | None) -> int:
    """Return the seed after giving it to Python, NumPy and torch; for None a fresh one, in all processes the same."""
    seed = from_rank_0(secrets.randbelow(2**31)) if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def part_dropout(seed: int) -> None:
    """Give each process but rank 0 a torch generator of its own, so that they do not drop the same units."""
    if rank():
        torch.manual_seed((seed + rank()) % 2**63)


def random_states() -> dict:
    """Return the state of every global generator of this process, as plain types and tensors; of GPUs the current one's."""
    version, numbers, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    gaussian = [numpy["has_gauss"], numpy["gauss"]]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [numpy["bit_generator"], numpy["state"]["key"].tolist(), numpy["state"]["pos"], *gaussian],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_random_states(states: dict) -> None:
    """Set every global generator to a state of `random_states`; a GPU's only where both runs have one."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_initialized() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])


def learning_rate(lr: float, epoch: int, epochs: int, schedule: list[int], cos: bool = False) -> float:
    """Return the learning rate of an epoch: a tenth at each milestone of `schedule`, or half a cosine down to 0."""
    if cos:
        return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return lr * 0.1 ** sum(epoch >= milestone for milestone in schedule)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class StopSignals:
    """While entered, notes SIGTERM and SIGINT for the training loop to ask about; a second one ends the process at once.

    Attributes:
        signum: the signal that came, None before; `status` is the exit status that goes with it (143 or 130).
    """

    def __init__(self):
        self.signum = None
        self._before = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_error) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @property
    def name(self) -> str:
        """The signal's name, such as SIGTERM; a word for it where the signal came to another process of the run."""
        return signal.Signals(self.signum).name if self.signum else "another process"

    @property
    def status(self) -> int:
        """The shell's exit status of a process that the signal ended."""
        return 128 + (self.signum or signal.SIGTERM)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise SystemExit(128 + signum)
        self.signum = signum
