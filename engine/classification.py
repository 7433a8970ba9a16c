"""Code shared by the trainings of a classification: following the epochs, saving, reporting."""

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.checkpoint import BEST, NAME, Previous, save_checkpoint
from engine.evaluation import accuracy, fuse, result_row, summarise
from engine.features import Task, save_features
from engine.files import save_npz
from engine.results import mean_of, write_rows
from engine.runlog import RunLog
from engine.visualisation import report_classes
from feeder.cli import UserError


class Epoch(NamedTuple):
    """The result of an epoch of training."""

    number: int  # from 0
    lr: float
    loss: float  # mean over the training samples
    scores: Tensor  # of the test set, (N, classes), on the CPU


class Trial(NamedTuple):
    """One training of a classifier: a stream, and a repeat with its own seed and labels."""

    stream: str
    name: str  # its folder in --checkpoint-path and the prefix of its metrics; "" if there is only one
    seed: int
    rows: np.ndarray  # the training samples whose labels are used, sorted
    origin: dict  # of the encoder
    previous: Previous  # what it continues


def follow(
    epochs: Iterator[Epoch],
    trial: Trial,
    labels: Tensor,
    args: Namespace,
    log: RunLog,
    state: Callable[[], dict],
) -> tuple[Tensor | None, Tensor | None]:
    """Report each epoch, save the last and the best model; return the scores (N, classes) of both."""
    prefix, folder = f"{trial.name}/" if trial.name else "", Path(args.checkpoint_path, trial.name)
    last, best = None, {name: trial.previous.checkpoint.get(name) for name in ("best_acc1", "best_scores")}
    best_state: dict = {}  # of a best epoch that is not saved yet
    for number, lr, loss, last in epochs:
        if not math.isfinite(loss) or not last.isfinite().all():
            raise UserError(
                f"loss or class scores are not finite in epoch {number}: stopped; try a lower --lr"
            )
        acc1, acc5 = accuracy(last, labels), accuracy(last, labels, k=5)
        if best["best_acc1"] is None or acc1 > best["best_acc1"]:
            best = dict(best_acc1=acc1, best_scores=last)
            weights = {name: tensor.clone() for name, tensor in state()["state_dict"].items()}
            best_state = dict(epoch=number + 1, state_dict=weights, optimizer={}, best_on_test=True)
        log.print(f" * epoch {number} loss {loss:.4e} Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
        log.metrics(
            number, **{f"{prefix}loss": loss, f"{prefix}acc1": acc1, f"{prefix}acc5": acc5, f"{prefix}lr": lr}
        )
        if (number + 1) % args.save_freq == 0 or number + 1 == args.epochs:
            entries = log.about | state() | best
            entries |= dict(epoch=number + 1, stream=trial.stream, encoders=[trial.origin])
            if best_state:  # saved first: a run that is killed between the two saves repeats the epoch
                save_checkpoint(folder / BEST, entries | best_state)
                best_state = {}
            save_checkpoint(folder / NAME, entries)
    return last, best["best_scores"]


def report(
    task: Task, scores: Tensor, features: dict[str, list[Tensor] | None], args: Namespace, log: RunLog
) -> None:
    """Print the accuracies of streams, fusion and classes; write the scores, then the result.

    Args:
        task: what was evaluated.
        scores: (streams, repeats, 2, N, classes), of the last and of the best epoch.
        features: of the training and the test set, for each stream and its first repeat; written with
            --save-features and shown in TensorBoard.
        args: all options.
        log: the log of the run.
    """
    test, run, labels = task.test, task.run, torch.from_numpy(task.test.labels)
    fused, rows = fuse(scores, args.stream_weights), []  # (repeats, 2, N, classes)
    parts = dict(zip(task.streams, scores, strict=True))
    parts[run.stream] = fused  # a single stream is its own fusion
    for stream, found in parts.items():
        figures = summarise(found, labels)
        if args.evaluate:  # there are no epochs
            figures |= {"best_acc1": None, "best_acc1_std": None}
        row = result_row(run, log.about, stream, run.task, **figures)
        last, best = mean_of([row], "acc1", 3), mean_of([row], "best_acc1", 3)
        text = f" of the last epoch {last}; of the epoch best on the test set {best}" if best else f" {last}"
        log.print(f"{stream}: Acc@1{text}")
        rows.append(row)

    # the first repeat in detail
    predictions = fused[0, 0].argmax(dim=1)
    last, best = scores[:, 0].unbind(dim=1)  # (streams, N, classes)
    arrays = dict(names=np.array(test.names), labels=test.labels, predictions=predictions.numpy())
    arrays |= dict(streams=np.array(task.streams), scores=last.numpy(), best_scores=best.numpy())
    save_npz(log.folder / "predictions.npz", **arrays)
    for stream, both in features.items() if args.save_features else ():
        save_features(log.folder, task, stream, both)
    shown = features.get(run.stream)
    report_classes(log, task, predictions, shown[1] if shown else None)
    log.metrics(best_acc1=rows[-1]["best_acc1"], last_acc1=rows[-1]["acc1"])
    write_rows(log.folder, rows)
