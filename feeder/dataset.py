"""Batches out of memmapped arrays. Augmentation is not here: it happens where the batch is, on CPU or GPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from feeder.arrays import open_split


class Batch(NamedTuple):
    """Clips with their lengths and labels."""

    x: Tensor  # (N, 3, T, V, M), metres; T is the longest valid clip of the batch
    num_frames: Tensor  # (N,) ints, 1 .. T
    labels: Tensor  # (N,) ints


class SkeletonDataset(Dataset):
    """One part of a split, indexed by whole batches of sample numbers.

    Args:
        folder: such as data/NTU-RGB-D-60-AGCN/xsub.
        part: "train" or "val".

    Raises:
        feeder.errors.DataError: the arrays are absent, damaged or do not fit together.
    """

    def __init__(self, folder: str | Path, part: str):
        self.folder, self.part = Path(folder), part
        split = open_split(folder, part)
        self.data, self.num_frame = split.data, split.num_frame
        self.names, self.notes = split.names, split.notes
        self.labels = np.asarray(split.labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.num_frame)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        num_frames = self.num_frame[indices]
        longest = num_frames.max()  # what lies behind is the clip looped: no crop reaches it
        x = np.stack([self.data[i, :, :longest] for i in indices])  # (N, 3, T, V, M)
        return Batch(*map(torch.from_numpy, (x, num_frames, self.labels[indices])))

    def __getstate__(self) -> dict:
        # A pickled memmap would carry the whole file to each worker.
        return {key: value for key, value in self.__dict__.items() if key != "data"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.data = open_split(self.folder, self.part).data


class Batches(Sampler):
    """Batches of sample numbers, shuffled by seed and epoch or in order.

    Args:
        length: number of samples.
        batch_size: samples in a batch.
        seed: None keeps the order; otherwise epoch e has an order of its own that follows from (seed, e) alone.
        drop_last: leave out the last batch where it is not full.
    """

    def __init__(self, length: int, batch_size: int, seed: int | None = None, drop_last: bool = False):
        self.length, self.batch_size, self.seed, self.drop_last = length, batch_size, seed, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.length)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        for i in range(len(self)):
            yield order[i * self.batch_size : (i + 1) * self.batch_size].tolist()


def make_loader(dataset: SkeletonDataset, batches: Batches, workers: int, pin_memory: bool = False) -> DataLoader:
    """Return a loader of `Batch`es; `workers` processes gather them, 0 does it in this one.

    It has a generator of its own: starting workers draws a number, which must not move the global generator's dropout.
    """
    generator = torch.Generator().manual_seed(batches.seed or 0)
    return DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers, pin_memory=pin_memory,
                      persistent_workers=workers > 0, generator=generator)  # fmt: skip
