"""The training of a classifier, and the report on all classifiers of a run."""

import copy
import math
import shutil
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD

from engine.checkpoint import BEST, NAME, restore_optimizer, restoring, save_checkpoint
from engine.evaluation import accuracy, fuse, result_row, summarise
from engine.features import Split, save_features
from engine.results import mean_of, write_rows
from engine.runlog import Previous, RunLog
from engine.training import random_states, restore_random_states
from engine.visualisation import report_classes
from feeder.cli import UserError
from model import DownstreamModel

# number, learning rate, mean loss, scores of the test set (N, classes) on the CPU
Epoch = tuple[int, float, float, Tensor]


class Classifier:
    """State of one training, of a stream and a repeat with its own seed and labels; its checkpoints save it.

    Args:
        name: folder in --checkpoint-path and prefix of the metrics; "" if there is only one training.
        stream: joint, motion or bone.
        seed: seed of the subset of labels, the order of the samples and the crops.
        model: the network, on its device; without --finetune, only its linear layer is trained.
        origin: the origin of the encoder (`engine.encoders`).
        args: all options.
    """

    def __init__(
        self,
        name: str,
        stream: str,
        seed: int,
        model: DownstreamModel,
        origin: dict[str, Any],
        args: Namespace,
    ) -> None:
        self.name, self.stream, self.seed = name, stream, seed
        self.model, self.origin, self.args = model, origin, args
        trained = model if args.finetune else model.fc
        self.optimizer = SGD(trained.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
        self.generator = torch.Generator().manual_seed(seed)  # of random crops
        self.epoch = args.start_epoch
        self.best: dict[str, Any] = {"best_acc1": None, "best_scores": None}

    def restore(self, previous: Previous) -> None:
        """Continue from a checkpoint."""
        checkpoint = previous.checkpoint
        with restoring(previous.path):
            self.model.load_state_dict(checkpoint["state_dict"])
            restore_optimizer(self.optimizer, self.model, checkpoint)
            if "random" in checkpoint:
                restore_random_states(checkpoint["random"], self.generator)
        self.epoch, self.best = checkpoint["epoch"], {name: checkpoint.get(name) for name in self.best}
        best, folder = previous.path.with_name(BEST), Path(self.args.checkpoint_path, self.name)
        if best.is_file() and best.parent.resolve() != folder.resolve():
            shutil.copy(best, folder)

    def fit(self, epochs: Iterable[Epoch], labels: Tensor, log: RunLog) -> Tensor | None:
        """Run, log and save epochs of training; return the scores of the last one, or None if there is none.

        Raise `UserError` if a loss or a score is not finite. `labels` (N,) are those of the test set.
        """
        best_model, scores, folder = None, None, Path(self.args.checkpoint_path, self.name)
        for number, lr, loss, scores in epochs:
            if not math.isfinite(loss) or not scores.isfinite().all():
                problem = f"loss or class scores are not finite in epoch {number}"
                raise UserError(f"{problem}: stopped; try a lower --lr")
            acc1, acc5 = accuracy(scores, labels), accuracy(scores, labels, k=5)
            log.print(f" * epoch {number} loss {loss:.4e} Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
            prefix = f"{self.name}/" if self.name else ""
            figures = dict(loss=loss, acc1=acc1, acc5=acc5, lr=lr)
            log.metrics(number, **{f"{prefix}{name}": value for name, value in figures.items()})

            # the last and the best model
            state = dict(epoch=number + 1, state_dict=self.model.state_dict())
            state |= dict(sizes={"encoder": self.model.encoder.sizes}, stream=self.stream)
            state |= log.record | dict(encoders=[self.origin])
            if self.best["best_acc1"] is None or acc1 > self.best["best_acc1"]:
                self.best = {"best_acc1": acc1, "best_scores": scores}
                best_model = copy.deepcopy(state) | dict(optimizer={}, best_on_test=True) | self.best
            if (number + 1) % self.args.save_freq == 0 or number + 1 == self.args.epochs:
                if best_model:  # first: a run that is killed between the two saves repeats the epoch
                    save_checkpoint(folder / BEST, best_model)
                    best_model = None
                state |= dict(optimizer=self.optimizer.state_dict(), random=random_states(self.generator))
                save_checkpoint(folder / NAME, state | self.best)
        return scores


def report(
    split: Split, scores: Tensor, features: dict[str, list[Tensor] | None], args: Namespace, log: RunLog
) -> None:
    """Print the accuracies of streams, fusion and classes; write the scores, then the result.

    Args:
        split: the data.
        scores: scores of the test set, (streams, repeats, E, N, classes), in the last epoch and, if E is 2,
            in the best one.
        features: features of the training and the test set for each stream, from its first repeat; written
            with --save-features and shown in TensorBoard.
        args: all options.
        log: the log of the run.
    """
    test, run, labels = split.test, log.run, torch.from_numpy(split.test.labels)
    streams, rows = run.stream.split("+"), []
    fused = fuse(scores, args.stream_weights)  # (repeats, E, N, classes)
    # a single stream is its own fusion
    for stream, found in (dict(zip(streams, scores, strict=True)) | {run.stream: fused}).items():
        rows.append(result_row(run, log.record, stream, run.task, **summarise(found, labels)))
        last, best = mean_of(rows[-1:], "acc1", 3), mean_of(rows[-1:], "best_acc1", 3)
        text = f" of the last epoch {last}; of the epoch best on the test set {best}" if best else f" {last}"
        log.print(f"{stream}: Acc@1{text}")

    # the first repeat in detail
    predictions = fused[0, 0].argmax(dim=1)
    arrays = dict(zip(("scores", "best_scores"), scores[:, 0].numpy().swapaxes(0, 1), strict=False))
    arrays |= dict(names=np.array(test.names), labels=test.labels, predictions=predictions.numpy())
    np.savez(log.folder / "predictions.npz", streams=np.array(streams), **arrays)
    for stream, both in features.items() if args.save_features else ():
        save_features(log.folder, split, stream, both)
    shown = features.get(run.stream)
    report_classes(log, test, predictions, shown[1] if shown else None)
    log.metrics(best_acc1=rows[-1]["best_acc1"], last_acc1=rows[-1]["acc1"])
    write_rows(log.folder, rows)
