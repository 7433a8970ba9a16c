"""Batches out of memmapped arrays. Augmentation is not here: it happens where the batch is, on CPU or GPU."""

import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from feeder.arrays import open_split


class Batch(NamedTuple):
    """Clips with their lengths and labels; of a batch that several processes share, the process's own clips."""

    x: Tensor  # (N, 3, T, V, M), metres; T is the longest valid clip of these
    num_frames: Tensor  # (N,) ints; of the whole batch, whoever has the clips
    labels: Tensor  # (N,) ints; of the whole batch


class SkeletonDataset(Dataset[Batch]):
    """One part of a split, indexed by whole batches of sample numbers.

    Args:
        folder: such as data/NTU-RGB-D-60-AGCN/xsub.
        part: "train" or "val".
        rows: which clips of each batch are this process's; all where it is alone.

    Raises:
        feeder.cli.UserError: the arrays are absent, damaged or do not fit together.
    """

    def __init__(self, folder: str | Path, part: str, rows: slice = slice(None)):
        self.folder, self.part, self.rows = Path(folder), part, rows
        split = open_split(folder, part)
        self.data, self.num_frame = split.data, split.num_frame
        self.names, self.notes = split.names, split.notes
        self.labels = np.asarray(split.labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.num_frame)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        num_frames = self.num_frame[indices]
        longest = num_frames[self.rows].max()  # what lies behind is the clip looped: no crop reaches it
        x = np.stack([self.data[i, :, :longest] for i in indices[self.rows]])  # (N, 3, T, V, M)
        return Batch(*map(torch.from_numpy, (x, num_frames, self.labels[indices])))

    def __getstate__(self) -> dict:
        # A pickled memmap would carry the whole file to each worker.
        return {key: value for key, value in self.__dict__.items() if key != "data"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.data = open_split(self.folder, self.part).data


class Batches(Sampler[list[int]]):
    """Batches of sample numbers, shuffled by seed and epoch or in order.

    Args:
        length: number of samples.
        batch_size: samples in a batch.
        seed: None keeps the order; otherwise epoch e has an order of its own that follows from (seed, e) alone.
        drop_last: leave out the last batch where it is not full.
        rows: which samples, in order, to deal out; slice(r, None, world) is the part of process r.

    Attributes:
        epoch: the epoch to give, 0 at first.
        start: the batch to begin with, 0 at first; those before it are passed over.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int | None = None, drop_last: bool = False, rows: slice = slice(None)
    ):
        self.samples = np.arange(length)[rows]
        self.length, self.batch_size, self.seed, self.drop_last = len(self.samples), batch_size, seed, drop_last
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.samples
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        for i in range(self.start, len(self)):
            yield order[i * self.batch_size : (i + 1) * self.batch_size].tolist()


def make_loader(dataset: Dataset[Batch], batches: Batches, workers: int, pin_memory: bool = False) -> DataLoader:
    """Return a loader of `Batch`es; `workers` processes gather them, 0 does it in this one.

    It has a generator of its own: starting workers draws a number, which must not move the global generator's dropout.
    """
    generator = torch.Generator().manual_seed(batches.seed or 0)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores do no harm
    return DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers, pin_memory=pin_memory,
                      persistent_workers=workers > 0, generator=generator, worker_init_fn=_step_aside)  # fmt: skip


def _step_aside(_worker: int) -> None:
    """Keep a signal meant for the run from killing a worker within a step: the run ends its workers itself."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C and torchrun send theirs to the process group
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
