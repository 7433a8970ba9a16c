"""The input of the downstream tasks: both parts of a split, an encoder for each stream, and the features of frozen encoders."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from engine.checkpoint import get_encoder
from engine.device import keep_freed_memory, set_precision
from engine.runlog import Run, RunLog
from engine.training import seed_everything
from feeder.augmentations import centre_crop, to_stream
from feeder.cli import UserError
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader
from feeder.skeleton import NUM_BODIES
from model import Encoder

BATCH_SIZE = 64  # clips that a frozen encoder takes at a time
RAW_SIZES = {"frames": 64, "bodies": NUM_BODIES}  # of a cropped clip without an encoder


class Task(NamedTuple):
    """A data set under a protocol and an encoder for each stream."""

    train: SkeletonDataset
    test: SkeletonDataset
    data: dict  # numbers of samples and a digest, see `data_identity`
    encoders: list[Encoder]  # empty for raw coordinates
    origins: list[dict]  # how each encoder was made, as its checkpoint records it; with the digest of its weights
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
    """Open data and encoders, after all checks that need no computing.

    Args:
        folder: holds the arrays.
        num_classes: labels must be below it.
        streams: names such as "joint".
        pretrained: a checkpoint for each stream; empty for random encoders, each drawn from the seed.
        sizes: sizes of the encoders that the user has given.
        device: where the task computes.
        seed: None draws one.
        raw: use no encoders.

    Raises:
        UserError: arrays or a checkpoint are missing, damaged or do not fit.
    """
    keep_freed_memory()
    set_precision("fp32", device)
    train, test = open_both(folder, num_classes)
    encoders, origins, seed = [], [], seed_everything(seed)
    for path in [] if raw else pretrained or [None] * len(streams):
        seed_everything(seed)  # a random encoder does not depend on the other streams of the run
        encoder, origin = get_encoder(path, sizes)
        encoders.append(encoder)
        origins.append({"digest": weights_digest(encoder), **origin})
    return Task(train, test, data_identity(train, test), encoders, origins, device, seed)


def open_both(folder: Path, num_classes: int) -> tuple[SkeletonDataset, SkeletonDataset]:
    """Return the training and the test set of a split.

    Raises:
        UserError: the arrays are absent or damaged, or a label is outside 0 .. num_classes - 1.
    """
    train, test = SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val")
    for dataset in (train, test):
        worst = int(dataset.labels.argmax())
        if dataset.labels[worst] >= num_classes:
            label = f"{dataset.names[worst]} has label {dataset.labels[worst]}"
            raise UserError(f"{folder}: {label}, but the table of data sets says {num_classes} classes")
    return train, test


def data_identity(train: SkeletonDataset, test: SkeletonDataset) -> dict:
    """Return the numbers of samples and a digest of names, labels, lengths and the coordinates of 16 clips of each part."""
    digest = hashlib.sha256()
    for dataset in (train, test):
        digest.update("\n".join(dataset.names).encode())
        digest.update(dataset.labels.tobytes() + dataset.num_frame.tobytes())
        for i in np.linspace(0, len(dataset) - 1, min(16, len(dataset))).astype(int):
            digest.update(dataset.data[i, :, : dataset.num_frame[i]].tobytes())
    return {"train": len(train), "test": len(test), "digest": digest.hexdigest()[:16]}


def weights_digest(encoder: Encoder) -> str:
    """Return a hash of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()


def check_continuation(checkpoint: dict, path: Path | None, label_fraction: float, data: dict, origins: Sequence[dict]) -> None:
    """Raise UserError if a checkpoint began with another share of the labels, other data or another encoder."""
    options = checkpoint.get("options", {})
    for what, before, now in (
        ("--label-fraction", options.get("label_fraction"), label_fraction),
        ("data", options.get("data"), data),
        ("encoder", (options.get("origins") or [{}])[0].get("digest"), origins[0]["digest"]),
    ):
        if before not in (None, now):
            raise UserError(f"{path} began with another {what}: give another --checkpoint-path, or leave --resume out")


def notes_of(task: Task, run: Run, streams: Sequence[str], pretrained: Sequence[str]) -> list[str]:
    """Return notes on the data, and on each encoder that was pre-trained on another stream or on clips that `run` tests on."""
    notes = [*task.train.notes, *task.test.notes]
    for stream, path, origin in zip(streams, pretrained, task.origins, strict=False):  # a random encoder has no path
        if (before := origin.get("skeleton_representation", stream)) != stream:
            notes.append(f"note: {path} was pre-trained on the {before} stream and is evaluated on the {stream} stream")
        same_data = origin.get("pre_dataset") == run.data_set
        if same_data and (before := origin.get("protocol", run.protocol)) != run.protocol:
            notes.append(f"note: {path} was pre-trained under {before}, so on clips that {run.protocol} tests on")
    return notes


class FeatureBatches:
    """Batches of features x (N, D) and labels y (N,), both on the device; their order is copied there once an epoch."""

    def __init__(self, x: Tensor, y: Tensor, batches: Batches):
        self.x, self.y, self.batches = x, y, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.tensor([row for rows in self.batches for row in rows]).to(self.x.device)
        for rows in order.split(self.batches.batch_size):
            yield self.x[rows], self.y[rows]


class ClipBatches:
    """Batches of the input of every downstream task, x (N, 3, frames, V, bodies), and labels (N,), both on the device.

    x is the centre crop of the clips in the form of the stream.

    Args:
        dataset: clips, indexed by a list of numbers.
        batches: the order of the clips.
        workers: processes that read data.
        stream: joint, motion or bone.
        sizes: frames and bodies of x.
        device: where x and the labels go.
    """

    def __init__(
        self, dataset: Dataset[Batch], batches: Batches, workers: int, stream: str, sizes: dict[str, int], device: torch.device
    ):
        self.loader = make_loader(dataset, batches, workers, pin_memory=device.type == "cuda")
        self.stream, self.sizes, self.device = stream, sizes, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            x = batch.x[..., : self.sizes["bodies"]].to(self.device, non_blocking=True)
            x = to_stream(centre_crop(x, batch.num_frames, size=self.sizes["frames"]), self.stream)
            yield x, batch.labels.to(self.device, non_blocking=True)


@torch.no_grad()
def extract_features(
    encoder: Encoder | None,
    dataset: SkeletonDataset,
    stream: str,
    device: torch.device,
    workers: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """Return [v_t, v_s] of all clips, (N, 2 d), on the device, in the order of the data set.

    The encoder is in evaluation mode and the crop deterministic, so a clip has the same features in every epoch. Without an
    encoder, return the cropped clips themselves, (N, 3 * 64 * V * M) in metres. Nothing here waits for the device.
    """
    sizes = RAW_SIZES if encoder is None else encoder.eval().to(device).sizes
    batches = ClipBatches(dataset, Batches(len(dataset), batch_size), workers, stream, sizes, device)
    features = []
    for x, _ in tqdm(batches, desc=f"features of {dataset.part}", leave=False, disable=None):
        features.append(x.flatten(1) if encoder is None else torch.cat(encoder(x), dim=1))
    return torch.cat(features)


def extract_both(
    task: Task, encoder: Encoder | None, stream: str, workers: int, batch_size: int = BATCH_SIZE
) -> tuple[Tensor, Tensor]:
    """Return `extract_features` of the training and of the test set.

    Raises:
        UserError: a feature is NaN or infinite; the message names the first such sample.
    """
    both = []
    for dataset in (task.train, task.test):
        both.append(extract_features(encoder, dataset, stream, task.device, workers, batch_size))
        finite = torch.isfinite(both[-1]).all(dim=1).cpu()
        if not finite.all():
            row = int(finite.int().argmin())
            check_coordinates(dataset, [row])
            raise UserError(f"{dataset.folder}: the features of {dataset.part} sample {row}, {dataset.names[row]}, are not "
                            "finite: the encoder's weights are damaged")  # fmt: skip
    return both[0], both[1]


def check_coordinates(dataset: SkeletonDataset, rows: Sequence[int] | None = None) -> None:
    """Raise UserError that names the first of these samples, by default of all, with a NaN or infinite coordinate."""
    for row in range(len(dataset)) if rows is None else rows:
        if not np.isfinite(dataset.data[row, :, : dataset.num_frame[row]]).all():
            raise UserError(f"{dataset.folder}: {dataset.part} sample {row}, {dataset.names[row]}, has coordinates that are "
                            "not finite; leave it out or prepare the data again")  # fmt: skip


def save_features(log: RunLog, stream: str, dataset: SkeletonDataset, features: Tensor, predictions: Tensor | None) -> None:
    """Write features_STREAM_PART.npz: names (N,), labels (N,), features (N, D), predictions (N,) where there are any."""
    arrays = {"names": np.array(dataset.names), "labels": dataset.labels, "features": features.cpu().numpy()}
    if predictions is not None:
        arrays["predictions"] = predictions.cpu().numpy()
    log.arrays(f"features_{stream}_{dataset.part}", **arrays)
