"""What the downstream tasks share: data, streams with their encoders, and features that are computed once."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.checkpoint import get_encoder
from engine.device import keep_freed_memory, set_precision
from engine.distributed import world_size
from engine.feature_cache import cached_features, clips_identity, weights_digest
from engine.features import CLIPS
from engine.runlog import Run, RunLog
from engine.training import seed_everything
from feeder.cli import UserError
from feeder.dataset import SkeletonDataset
from model import Encoder


class Task(NamedTuple):
    """A data set under a protocol, and an encoder for each stream."""

    parts: tuple[SkeletonDataset, SkeletonDataset]  # training, test
    identities: list[list]  # of their clips, see `engine.feature_cache.clips_identity`
    num_classes: int
    encoders: list[Encoder]  # none for raw coordinates
    origins: list[dict]  # how each was pre-trained, as far as its checkpoint says
    device: torch.device
    seed: int


def open_task(
    folder: Path,
    num_classes: int,
    streams: Sequence[str],
    pretrained: Sequence[str],
    sizes: dict[str, int],
    device: torch.device,
    seed: int | None = None,
    raw: bool = False,
) -> Task:
    """Return data and encoders after all checks that need no computing; global generators have the seed then.

    Args:
        folder: of the arrays.
        num_classes: labels are below it.
        streams: joint, motion, bone.
        pretrained: a checkpoint for each stream; none: random encoders, each from the seed.
        sizes: of the encoders, as far as given.
        device: where the task computes.
        seed: None draws one.
        raw: no encoders.

    Raises:
        feeder.cli.UserError, UserError: see `open_both`, `get_encoder`.
    """
    keep_freed_memory()
    set_precision("fp32", device)
    seed = seed_everything(seed)
    identities = [clips_identity(folder, part) for part in ("train", "val")]
    parts = open_both(folder, num_classes)
    paths: Sequence[str | None] = [] if raw else pretrained or [None] * len(streams)
    encoders, origins = [], []
    for path in paths:
        seed_everything(seed)  # a stream's random encoder is the same with other streams beside it
        encoder, origin = get_encoder(path, sizes)
        encoders.append(encoder)
        origins.append(origin)
    return Task(parts, identities, num_classes, encoders, origins, device, seed)


def origin_notes(run: Run, streams: Sequence[str], pretrained: Sequence[str], origins: Sequence[dict]) -> list[str]:
    """Return a line for each encoder that was pre-trained on another stream, or on clips that `run` tests on."""
    notes = []
    for stream, path, origin in zip(streams, pretrained, origins, strict=False):  # a random encoder has no path
        if (before := origin.get("skeleton_representation", stream)) != stream:
            notes.append(f"note: {path} was pre-trained on the {before} stream and is evaluated on the {stream} stream")
        same_data = origin.get("pre_dataset") == run.data_set
        if same_data and (before := origin.get("protocol", run.protocol)) != run.protocol:
            notes.append(f"note: {path} was pre-trained under {before}, so on clips that {run.protocol} tests on")
    return notes


def open_both(folder: Path, num_classes: int) -> tuple[SkeletonDataset, SkeletonDataset]:
    """Return the training and the test set of a split.

    Raises:
        feeder.cli.UserError: the arrays are absent or damaged.
        UserError: a label is outside 0 .. num_classes - 1, or there are fewer clips than processes.
    """
    train, test = SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val")
    for dataset in (train, test):
        if dataset.labels.max() >= num_classes:
            worst = int(dataset.labels.argmax())
            label = f"{dataset.names[worst]} has label {dataset.labels[worst]}"
            raise UserError(f"{folder}: {label}, but the table of data sets says {num_classes} classes")
        if len(dataset) < world_size():
            raise UserError(f"{folder}: {dataset.part} has {len(dataset)} clips for {world_size()} processes: start fewer")
    return train, test


class Features:
    """Features of both parts of a task's data: computed when first asked for, kept until others are asked for.

    Args:
        task: the data and the device.
        log: told of what the cache does.
        cache: folder of features on disk, None for none.
        workers: processes that read data.
        batch_size: clips at a time.
    """

    def __init__(self, task: Task, log: RunLog, cache: str | None, workers: int, batch_size: int = CLIPS):
        self.task, self.log, self.cache, self.workers, self.batch_size = task, log, cache, workers, batch_size
        self._kept: tuple | None = None

    def __call__(self, stream: str, encoder: Encoder | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (features (N, 2 d), labels (N,)) of the training and of the test part, on the device.

        Raises:
            UserError: a feature is not finite.
        """
        key = (stream, weights_digest(encoder))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # frees the memory
            both = zip(self.task.parts, self.task.identities, strict=True)
            self._kept = (key, tuple(self._compute(stream, encoder, *part) for part in both))
        return self._kept[1]

    def _compute(self, stream: str, encoder: Encoder | None, part: SkeletonDataset, identity: list) -> tuple[Tensor, Tensor]:
        found = cached_features(self.cache, self.log, encoder, part, identity, stream, self.task.device, self.workers,
                                self.batch_size)  # fmt: skip
        if not torch.isfinite(found[0]).all():
            raise UserError(f"features of {part.folder}, {part.part}, are not finite: encoder or data are damaged")
        return found


def save_features(
    log: RunLog, stream: str, part: SkeletonDataset, features: Tensor, predictions: Tensor | None = None
) -> None:
    """Write names (N,), labels (N,), features (N, D), predictions (N,) where there are any: features_STREAM_PART.npz."""
    arrays = {"names": np.array(part.names), "labels": part.labels, "features": features.cpu().numpy()}
    if predictions is not None:
        arrays["predictions"] = predictions.cpu().numpy()
    log.arrays(f"features_{stream}_{part.part}", **arrays)
