"""What a classification comes to: scores of each stream and repeat, their fusion, accuracies, mean and standard deviation."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.fuse import PREDICTIONS, weighted_sum
from engine.metrics import accuracy
from engine.runlog import RunLog
from feeder.dataset import SkeletonDataset


class Outcome(NamedTuple):
    """Scores (N, classes) of the test part after the last epoch, and after the epoch that is best on it; on the CPU."""

    last: Tensor
    best: Tensor


def fuse(outcomes: Sequence[Outcome], weights: Sequence[float] | None) -> Outcome:
    """Return the weighted sums of the outcomes of several streams."""
    last, best = ([scores.numpy() for scores in each] for each in zip(*outcomes, strict=True))
    return Outcome(torch.from_numpy(weighted_sum(last, weights)), torch.from_numpy(weighted_sum(best, weights)))


def figures_of(outcomes: Sequence[Outcome], labels: Tensor) -> dict[str, float]:
    """Return the accuracies in percent, as metrics.jsonl has them; of repeats the mean and standard deviation (n - 1)."""
    best, last = ([accuracy(o[i], labels) for o in outcomes] for i in (1, 0))
    figures = {"best_acc1": statistics.fmean(best), "last_acc1": statistics.fmean(last)}
    if len(outcomes) > 1:
        figures |= {"best_acc1_std": statistics.stdev(best), "last_acc1_std": statistics.stdev(last), "repeats": len(outcomes)}
    return figures


def sentence(figures: dict[str, float]) -> str:
    """Return one line on `figures_of`."""
    last, best = (
        f"{figures[key]:.3f}" + (f" +- {figures[key + '_std']:.3f}" if "repeats" in figures else "")
        for key in ("last_acc1", "best_acc1")
    )
    mean = f"; mean and standard deviation of {figures['repeats']} repeats" if "repeats" in figures else ""
    return f"Acc@1 of the last epoch {last}; of the epoch best on the test set {best} (what papers report){mean}"


def report_accuracies(
    log: RunLog, streams: Sequence[str], outcomes: list[list[Outcome]], labels: Tensor, weights: Sequence[float] | None
) -> None:
    """Print and keep the accuracies of each stream and, where there are several, of their fusion, which is then the result.

    Args:
        log: the run's.
        streams: their names.
        outcomes: of each stream one a repeat.
        labels: of the test part (N,).
        weights: of the streams in their fusion.
    """
    rows = dict(zip(streams, outcomes, strict=True))
    if len(streams) > 1:
        rows["fusion"] = [fuse(repeat, weights) for repeat in zip(*outcomes, strict=True)]
        for name, found in rows.items():
            log.print(f"{name}: {sentence(figures_of(found, labels))}")
            log.metrics(stream=name, **figures_of(found, labels))
    else:
        log.print(sentence(figures_of(outcomes[0], labels)))
    log.metrics(**figures_of(list(rows.values())[-1], labels))


def save_scores(
    log: RunLog, test: SkeletonDataset, streams: Sequence[str], outcomes: list[list[Outcome]], weights: Sequence[float] | None
) -> None:
    """Write predictions.npz, or predictions_repeatR.npz for each of several repeats, into a run's folder.

    Each holds what `engine.fuse` reads: names (N,), labels (N,), streams (S,), scores and best_scores (S, N, classes); and
    predictions (N,) of the last epoch, of the fusion where S > 1.
    """
    for repeat, found in enumerate(zip(*outcomes, strict=True)):
        name = PREDICTIONS if len(outcomes[0]) == 1 else f"{PREDICTIONS}_repeat{repeat}"
        predictions = fuse(found, weights).last.argmax(dim=1).numpy()
        last, best = (torch.stack(part).numpy() for part in zip(*found, strict=True))  # (S, N, classes)
        log.arrays(name, names=np.array(test.names), labels=test.labels, predictions=predictions,
                   streams=np.array(streams), scores=last, best_scores=best)  # fmt: skip
