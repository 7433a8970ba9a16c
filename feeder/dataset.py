"""Batches of clips from memory-mapped arrays. Augmentation happens later, on the device of the model."""

import hashlib
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from feeder.arrays import open_split
from feeder.cli import UserError


class Batch(NamedTuple):
    """Clips with their lengths and labels."""

    x: Tensor  # (N, 3, T, V, M) in metres; T is the number of frames of the longest clip
    num_frames: Tensor  # (N,) ints in 1 .. T
    labels: Tensor  # (N,) ints


class SkeletonDataset(Dataset[Batch]):
    """One part, "train" or "val", of the split in `folder`, indexed by lists of sample indices.

    Raises:
        UserError: the arrays are missing, damaged or do not match.
    """

    def __init__(self, folder: str | Path, part: str) -> None:
        self.folder, self.part = Path(folder), part
        self.data, self.num_frame, self.names, labels, self.notes = open_split(folder, part)
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.num_frame)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """Return the clips of these indices as one batch; raise `UserError` if a coordinate is not finite."""
        num_frames = self.num_frame[indices]
        longest = num_frames.max()  # frames after the last valid one repeat the clip and are never read
        x = np.stack([self.data[i, :, :longest] for i in indices])  # (N, 3, T, V, M)
        finite = np.isfinite(x).all(axis=(1, 2, 3, 4))  # (N,)
        if not finite.all():
            bad = indices[int(np.argmin(finite))]
            sample = f"{self.part} sample {bad} ({self.names[bad]})"
            raise UserError(f"{self.folder}: {sample} is not finite; prepare the data again")
        return Batch(*map(torch.from_numpy, (x, num_frames, self.labels[indices])))

    def digest(self) -> str:
        """Return a hash of names, labels and lengths, which identifies the data without reading all clips."""
        names = "\n".join(self.names).encode(errors="surrogateescape")
        return hashlib.sha256(names + self.labels.tobytes() + self.num_frame.tobytes()).hexdigest()[:16]

    def __getstate__(self) -> dict:
        # a pickled memmap would copy the whole file to each worker
        return {key: value for key, value in self.__dict__.items() if key != "data"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.data = open_split(self.folder, self.part).data


@dataclass(eq=False)
class Batches(Sampler[list[int]]):
    """Batches of sample indices. Each process gets its rows of every batch."""

    length: int  # number of samples
    batch_size: int  # samples in a batch, over all processes; a multiple of `world_size`
    seed: int | None = None  # with the epoch, determines the order of the samples; None keeps them in order
    drop_last: bool = False  # omit the last batch if it is not full
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    start: int = 0  # batch with which the next iteration begins

    def seek(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration begin at batch `start` of an epoch."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        rows = self.batch_size // self.world_size
        for batch in range(self.start, len(self)):
            first = batch * self.batch_size + self.rank * rows
            yield order[first : first + rows].tolist()


def make_loader(
    dataset: Dataset[Batch], batches: Batches, workers: int, pin_memory: bool = False
) -> DataLoader:
    """Return a loader whose `Batch`es are read by `workers` processes, or by this process if 0.

    It has its own generator, because starting workers draws a random number, which would change the dropout.
    """
    generator = torch.Generator().manual_seed(batches.seed or 0)
    # more workers than cores are harmless
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=generator,
        worker_init_fn=_outlive_signals,
    )


def _outlive_signals(_worker: int) -> None:
    """Keep a worker reading when a signal stops the run; the run ends its workers after the current step."""
    os.setsid()  # leave the process group, which Ctrl-C and torchrun signal as a whole
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # SIGTERM ends it after 5 s: a worker that ignored SIGTERM could keep a failed run from ending
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(5, os._exit, (0,)).start())
