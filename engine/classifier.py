"""Training and evaluation of a classifier: a linear layer on features, or encoder and linear layer together."""

import math
import time
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from engine.features import CLIPS, downstream_input
from engine.meters import Meter, progress_line
from engine.runlog import RunLog
from feeder.cli import UserError
from feeder.dataset import Batches
from model import DownstreamModel


class FeatureBatches:
    """Batches (x, y) of features and labels.

    Args:
        features: (N, 2 d), on the device.
        labels: (N,), on the device.
        batches: their order, of numbers 0 .. n - 1.
        rows: (n,) those samples of the N that the numbers stand for, on the device.
    """

    def __init__(self, features: Tensor, labels: Tensor, batches: Batches, rows: Tensor):
        self.features, self.labels, self.batches, self.rows = features, labels, batches, rows

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in self.batches:
            rows = self.rows[indices]
            yield self.features[rows], self.labels[rows]


class ClipBatches:
    """Batches (x, y) of a loader on the device: clips (N, 3, T, V, M), in the deterministic crop that is every evaluation's.

    Args:
        loader: of `feeder.dataset.Batch`es.
        model: says how many frames a crop has; with `frozen`, x is its encoder's features (N, 2 d) instead, without gradient.
        stream: joint, motion or bone.
        device: where x and y are wanted.
        frozen: see `model`.
    """

    def __init__(self, loader: DataLoader, model: DownstreamModel, stream: str, device: torch.device, frozen: bool):
        self.loader, self.model, self.stream, self.device, self.frozen = loader, model, stream, device, frozen

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            sizes = self.model.encoder.sizes
            x = downstream_input(batch, self.stream, sizes["frames"], sizes["bodies"], self.device)
            if self.frozen:
                with torch.no_grad():
                    x = torch.cat([self.model.eval().features(part) for part in x.split(CLIPS)])
            yield x, batch.labels.to(self.device, non_blocking=True)


def train_epoch(
    classifier: nn.Module,
    samples: FeatureBatches | ClipBatches,
    optimizer: Optimizer,
    epoch: int,
    print_freq: int,
    log: RunLog,
) -> float:
    """Train for one epoch in training mode; return the mean loss.

    Args:
        classifier: x -> scores (N, classes).
        samples: batches of x and labels (N,).
        optimizer: of the parameters that learn.
        epoch, print_freq, log: a line of progress every `print_freq` steps.

    Raises:
        UserError: the loss is not finite.
    """
    classifier.train()
    time_meter, loss_meter, acc_meter = Meter("Time", "6.3f"), Meter("Loss", ".4e"), Meter("Acc@1", "6.2f")
    before = time.perf_counter()
    for step, (x, y) in enumerate(samples):
        scores = classifier(x)
        loss = F.cross_entropy(scores, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        loss_meter.update(loss.detach(), len(x))
        acc_meter.update(100 * (scores.detach().argmax(dim=1) == y).float().mean(), len(x))
        time_meter.update(time.perf_counter() - before)
        before = time.perf_counter()
        if step % print_freq == 0 or step + 1 == len(samples):
            if not math.isfinite(loss_meter.total):
                raise UserError(f"the loss is {loss_meter.value} at epoch {epoch}, step {step}: stopped; a lower --lr may help")
            if step % print_freq == 0:
                log.print(progress_line(epoch, step, len(samples), [time_meter, loss_meter, acc_meter]))
    return loss_meter.mean


@torch.no_grad()
def class_scores(classifier: nn.Module, samples: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the scores (N, classes) of all samples, in evaluation mode, and their labels (N,)."""
    classifier.eval()
    scores, labels = zip(*((classifier(x), y) for x, y in samples), strict=True)
    return torch.cat(scores), torch.cat(labels)
