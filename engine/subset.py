"""A share of the labels: which clips a semi-supervised run trains on."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from feeder.cli import UserError
from feeder.dataset import Batch, SkeletonDataset


class Subset(Dataset[Batch]):
    """Some clips of a data set, indexed by whole batches of their numbers 0 .. len(rows) - 1.

    Args:
        dataset: all clips.
        rows: (n,) numbers of those that are taken.
    """

    def __init__(self, dataset: SkeletonDataset, rows: np.ndarray):
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        return self.dataset[self.rows[indices].tolist()]


def balanced_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the sorted rows (n,) of round(fraction * N) samples, as many of each class as of any other.

    A class that has fewer gives all it has, and the others make up for it; what cannot be shared out evenly goes to classes
    drawn by lot. So fraction 1 is all samples, and of every two classes either the counts differ by one at most, or the
    smaller is complete. Classes without any sample do not count.

    Args:
        labels: (N,) ints.
        fraction: above 0, at most 1.
        seed: the same seed gives the same rows.

    Raises:
        UserError: a class would be empty.
    """
    total, classes = round(fraction * len(labels)), np.unique(labels)
    if total < len(classes):
        raise UserError(f"--label-fraction {fraction:g} of {len(labels)} samples is {total}, which leaves some of the "
                       f"{len(classes)} classes empty: at least {len(classes) / len(labels):.4g} is needed")  # fmt: skip
    rng = np.random.default_rng([seed, 0, 1])  # batches are shuffled by [seed, epoch]
    turn, lot = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)
    for place, label in enumerate(rng.permutation(classes)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        turn[rows], lot[rows] = np.arange(len(rows)), place
    return np.sort(np.lexsort((lot, turn))[:total])  # every class's first sample, then every class's second, ...


def describe_subset(labels: np.ndarray, rows: np.ndarray, seed: int) -> str:
    """Return one line on the samples `rows` (n,) of labels (N,): how many, the seed, and the count of each class."""
    counts = zip(*np.unique(labels[rows], return_counts=True), strict=True)
    classes = " ".join(f"{label}:{count}" for label, count in counts)
    return f"{len(rows)} of {len(labels)} labels, drawn with seed {seed}; samples of each class: {classes}"
