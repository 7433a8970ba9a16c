"""Figures of classifiers: accuracy, mean over repeats, fusion of streams, report of the classes, balanced label subsets."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.records import PREDICTIONS
from engine.runlog import RunLog
from feeder.cli import UserError
from feeder.dataset import SkeletonDataset

ALL_CLASSES = 20  # up to this number the report lists every class
WORST, PAIRS = 10, 10  # classes and confused pairs listed otherwise


class Scores(NamedTuple):
    """Class scores (N, classes) of the test set, on the CPU."""

    last: Tensor  # after the last epoch
    best: Tensor  # after the epoch with the best test accuracy


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Return the top-k accuracy in percent of scores (N, classes) and labels (N,); k is cut to the number of classes."""
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices  # (N, k)
    return (top == labels[:, None]).any(dim=1).float().mean().item() * 100


def fuse(scores: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Return the weighted sum (N, classes) of the scores of several streams; weights are 1 by default."""
    first, *others = (w * s for w, s in zip(weights or [1.0] * len(scores), scores, strict=True))
    return sum(others, start=first)


def fuse_streams(streams: Sequence[Scores], weights: Sequence[float] | None = None) -> Scores:
    """Return the fused scores of the last and of the best epochs of several streams."""
    return Scores(*(fuse(kind, weights) for kind in zip(*streams, strict=True)))


def summarise(repeats: Sequence[Scores], labels: Tensor) -> dict[str, float]:
    """Return accuracies in percent, named as in metrics.jsonl; of repeats the mean and the standard deviation (n - 1)."""
    figures = {}
    for name in ("best", "last"):
        found = [accuracy(getattr(scores, name), labels) for scores in repeats]
        figures[f"{name}_acc1"] = statistics.fmean(found)
        if len(repeats) > 1:
            figures |= {f"{name}_acc1_std": statistics.stdev(found), "repeats": len(repeats)}
    return figures


def describe_summary(figures: dict[str, float]) -> str:
    """Return one line on the figures of `summarise`."""
    last, best = (
        f"{figures[key]:.3f}" + (f" +- {figures[key + '_std']:.3f}" if "repeats" in figures else "")
        for key in ("last_acc1", "best_acc1")
    )
    mean = f"; mean and standard deviation of {figures['repeats']} repeats" if "repeats" in figures else ""
    return f"Acc@1 of the last epoch {last}; of the epoch best on the test set {best} (what papers report){mean}"


def report_scores(
    log: RunLog,
    test: SkeletonDataset,
    streams: Sequence[str],
    scores: Sequence[Sequence[Scores]],
    weights: Sequence[float] | None,
) -> Tensor:
    """Print and log the accuracies of the streams and of their fusion, write the scores; return the first repeat's predictions.

    predictions.npz, or predictions_repeatR.npz for each of several repeats, holds what `engine.records.read_scores` reads, and
    the predictions (N,) of the last epoch, fused over the streams.

    Args:
        log: log of the run.
        test: test set, N samples.
        streams: names of the streams.
        scores: for each stream one `Scores` for each repeat.
        weights: weights of the streams in their fusion; 1 by default.
    """
    labels = torch.from_numpy(test.labels)
    fused = [fuse_streams(repeat, weights) for repeat in zip(*scores, strict=True)]
    predictions = [repeat.last.argmax(dim=1) for repeat in fused]
    for repeat, found in enumerate(zip(*scores, strict=True)):
        last, best = (torch.stack(part).numpy() for part in zip(*found, strict=True))  # (S, N, classes)
        log.arrays(PREDICTIONS if len(fused) == 1 else f"{PREDICTIONS}_repeat{repeat}", names=np.array(test.names),
                   labels=test.labels, predictions=predictions[repeat].numpy(), streams=np.array(streams), scores=last,
                   best_scores=best)  # fmt: skip
    if len(streams) > 1:
        for name, found in [*zip(streams, scores, strict=True), ("fusion", fused)]:
            log.print(f"{name}: {describe_summary(summarise(found, labels))}")
            log.metrics(stream=name, **summarise(found, labels))
    else:
        log.print(describe_summary(summarise(fused, labels)))
    log.metrics(**summarise(fused, labels))
    return predictions[0]


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Return how many samples of class i were predicted as class j, (classes, classes) ints, of labels and predictions (N,)."""
    cells = labels * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def describe_classes(matrix: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return lines of text: the accuracy of each class, or of the worst if there are many, and the most confused pairs.

    Args:
        matrix: counts (classes, classes), [class, prediction].
        names: names of the classes.
    """
    titles = [name if name == f"class {label}" else f"{label} {name}" for label, name in enumerate(names)]
    counts, correct = matrix.sum(axis=1), matrix.diagonal()
    tested = np.flatnonzero(counts)
    accuracies = 100 * correct[tested] / counts[tested]
    order = tested[np.argsort(accuracies, kind="stable")]
    heading = f"Acc@1 of each class, mean {accuracies.mean():.1f}"
    if len(order) > ALL_CLASSES:
        heading, order = f"{heading}; the worst {WORST} of {len(order)}", order[:WORST]
    lines = [f"{heading}:"]
    lines += [f"  {100 * correct[i] / counts[i]:5.1f}  {correct[i]}/{counts[i]}  {titles[i]}" for i in order]

    # the most frequent errors first, ties by label
    errors = [(-matrix[i, j], i, j) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j]
    if errors:
        lines.append("most confused (clips, class -> predicted as):")
        lines += [f"  {-count}/{counts[i]}  {titles[i]} -> {titles[j]}" for count, i, j in sorted(errors)[:PAIRS]]
    return lines


def repeat_seed(seed: int, repeat: int) -> int:
    """Return the seed of a repeat: the run's own for the first, then one derived from both, so that runs share none."""
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed


def balanced_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the sorted rows (n,) of round(fraction * N) samples, the same number of each class as far as possible.

    A class with too few samples gives all it has and the others make up for it; a remainder that cannot be divided evenly
    goes to randomly drawn classes. Classes without samples do not count.

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
    turn, tie = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)
    for place, label in enumerate(rng.permutation(classes)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        turn[rows], tie[rows] = np.arange(len(rows)), place
    return np.sort(np.lexsort((tie, turn))[:total])  # the first sample of every class, then the second of every class, ...


def describe_subset(labels: np.ndarray, rows: np.ndarray, seed: int) -> str:
    """Return one line on the samples `rows` (n,) of labels (N,): how many, the seed, and the count of each class."""
    counts = zip(*np.unique(labels[rows], return_counts=True), strict=True)
    classes = " ".join(f"{label}:{count}" for label, count in counts)
    return f"{len(rows)} of {len(labels)} labels, drawn with seed {seed}; samples of each class: {classes}"
