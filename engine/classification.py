"""The state of a classifier's training, and the report on all trainings of a run."""

import math
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD

from engine.checkpoint import BEST, NAME, restore_optimizer, restoring, save_checkpoint
from engine.evaluation import accuracy, fuse, result_row, summarise
from engine.features import Split, save_features
from engine.files import save_npz
from engine.results import mean_of, write_rows
from engine.runlog import Previous, RunLog
from engine.training import random_states, restore_random_states
from engine.visualisation import report_classes
from feeder.cli import UserError
from model import DownstreamModel


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
    origin: dict[str, Any]  # of the encoder


class Progress:
    """State of a trial that its checkpoints save, and the scores of the last and of the best epoch.

    Args:
        trial: what is trained.
        model: on its device; without --finetune only its linear layer is trained.
        args: all options.
        log: prints and records each epoch.
        labels: of the test set, (N,).
    """

    def __init__(
        self, trial: Trial, model: DownstreamModel, args: Namespace, log: RunLog, labels: Tensor
    ) -> None:
        self.trial, self.model, self.log, self.labels = trial, model, log, labels
        trained = model if args.finetune else model.fc
        self.optimizer = SGD(trained.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
        self.generator = torch.Generator().manual_seed(trial.seed)  # of random crops
        self.folder = Path(args.checkpoint_path, trial.name)
        self.epoch = args.start_epoch  # completed
        self.last: Tensor | None = None  # scores (N, classes)
        self.best: dict[str, Any] = {"best_acc1": None, "best_scores": None}
        self.best_model: dict[str, Any] = {}  # of a best epoch that is not saved yet

    def restore(self, previous: Previous) -> None:
        """Continue from a checkpoint."""
        checkpoint = previous.checkpoint
        with restoring(previous.path):
            if (
                checkpoint.get("sizes", {}).get("encoder", self.model.encoder.sizes)
                != self.model.encoder.sizes
            ):
                raise ValueError(f"its encoder has {checkpoint['sizes']['encoder']}")
            self.model.load_state_dict(checkpoint["state_dict"])
            restore_optimizer(self.optimizer, self.model, checkpoint)
            if "random" in checkpoint:
                restore_random_states(checkpoint["random"], self.generator)
        self.epoch = checkpoint["epoch"]
        self.best = {name: checkpoint.get(name) for name in self.best}
        best = previous.path.with_name(BEST)
        if best.is_file() and best.parent.resolve() != self.folder.resolve():
            shutil.copy(best, self.folder)

    def add(self, epoch: Epoch) -> None:
        """Print and record an epoch; raise `UserError` if its loss or a score is not finite."""
        number, lr, loss, scores = epoch
        if not math.isfinite(loss) or not scores.isfinite().all():
            problem = f"loss or class scores are not finite in epoch {number}"
            raise UserError(f"{problem}: stopped; try a lower --lr")
        acc1, acc5 = accuracy(scores, self.labels), accuracy(scores, self.labels, k=5)
        self.epoch, self.last = number + 1, scores
        if self.best["best_acc1"] is None or acc1 > self.best["best_acc1"]:
            self.best = {"best_acc1": acc1, "best_scores": scores}
            weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self.best_model = dict(epoch=self.epoch, state_dict=weights, optimizer={}, best_on_test=True)
        self.log.print(f" * epoch {number} loss {loss:.4e} Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
        prefix = f"{self.trial.name}/" if self.trial.name else ""
        figures = {"loss": loss, "acc1": acc1, "acc5": acc5, "lr": lr}
        self.log.metrics(number, **{f"{prefix}{name}": value for name, value in figures.items()})

    def save(self) -> None:
        """Write the checkpoint, and that of the best epoch if it is new."""
        state = dict(
            epoch=self.epoch, state_dict=self.model.state_dict(), optimizer=self.optimizer.state_dict()
        )
        state |= dict(sizes={"encoder": self.model.encoder.sizes}, random=random_states(self.generator))
        state |= self.log.record | self.best | dict(stream=self.trial.stream, encoders=[self.trial.origin])
        if self.best_model:  # saved first: a run that is killed between the two saves repeats the epoch
            save_checkpoint(self.folder / BEST, state | self.best_model)
            self.best_model = {}
        save_checkpoint(self.folder / NAME, state)


def report(
    split: Split, scores: Tensor, features: dict[str, list[Tensor] | None], args: Namespace, log: RunLog
) -> None:
    """Print the accuracies of streams, fusion and classes; write the scores, then the result.

    Args:
        split: the data.
        scores: of the test set, (streams, repeats, 2, N, classes), of the last and of the best epoch.
        features: of the training and the test set, for each stream and its first repeat; written with
            --save-features and shown in TensorBoard.
        args: all options.
        log: the log of the run.
    """
    test, run, labels = split.test, log.run, torch.from_numpy(split.test.labels)
    streams, rows = run.stream.split("+"), []
    fused = fuse(scores, args.stream_weights)  # (repeats, 2, N, classes)
    # a single stream is its own fusion
    for stream, found in (dict(zip(streams, scores, strict=True)) | {run.stream: fused}).items():
        figures = summarise(found, labels)
        if args.evaluate:  # there are no epochs
            figures |= {"best_acc1": None, "best_acc1_std": None}
        rows.append(result_row(run, log.record, stream, run.task, **figures))
        last, best = mean_of(rows[-1:], "acc1", 3), mean_of(rows[-1:], "best_acc1", 3)
        text = f" of the last epoch {last}; of the epoch best on the test set {best}" if best else f" {last}"
        log.print(f"{stream}: Acc@1{text}")

    # the first repeat in detail
    predictions = fused[0, 0].argmax(dim=1)
    last, best = scores[:, 0].unbind(dim=1)  # (streams, N, classes)
    save_npz(
        log.folder / "predictions.npz",
        names=np.array(test.names),
        labels=test.labels,
        predictions=predictions.numpy(),
        streams=np.array(streams),
        scores=last.numpy(),
        best_scores=best.numpy(),
    )
    for stream, both in features.items() if args.save_features else ():
        save_features(log.folder, split, stream, both)
    shown = features.get(run.stream)
    report_classes(log, test, predictions, shown[1] if shown else None)
    log.metrics(best_acc1=rows[-1]["best_acc1"], last_acc1=rows[-1]["acc1"])
    write_rows(log.folder, rows)
