"""Input of the downstream tasks: both parts of a split, an encoder for each stream, features of frozen encoders."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from engine.checkpoint import get_encoder
from engine.device import keep_freed_memory, set_precision
from engine.files import save_npz
from engine.runlog import Run
from engine.training import seed_everything
from feeder.augmentations import STREAMS, centre_crop, crop_resize, draw_crop
from feeder.cli import UserError
from feeder.dataset import Batches, SkeletonDataset, make_loader
from feeder.skeleton import NUM_BODIES
from model import Encoder

BATCH_SIZE = 64  # clips in a batch of a frozen encoder


class Task(NamedTuple):
    """Data set, protocol and encoders that a downstream run evaluates."""

    run: Run
    streams: list[str]
    num_classes: int
    train: SkeletonDataset
    test: SkeletonDataset
    encoders: list[Encoder | None]  # None for raw coordinates
    record: dict[str, Any]  # seed, data and origins of the encoders, added to the options of the run
    device: torch.device


def open_task(
    run: Run,
    folder: Path,
    num_classes: int,
    pretrained: Sequence[str],
    sizes: dict[str, int],
    device: torch.device,
    seed: int | None = None,
    raw: bool = False,
) -> Task:
    """Open the data in `folder` and an encoder for each stream, and check them, before anything is computed.

    Without `pretrained`, the encoders are random and drawn from the seed; with `raw` there are none. `sizes` are set by flags;
    without a seed one is drawn.
    """
    if device.type == "cpu":
        keep_freed_memory()
    set_precision("fp32", device)
    train, test = SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val")
    for dataset in (train, test):
        worst = int(dataset.labels.argmax())
        if dataset.labels[worst] >= num_classes:
            label = f"{dataset.names[worst]} has label {dataset.labels[worst]}"
            raise UserError(f"{folder}: {label}, but options/datasets.py has {num_classes} classes")
    data = {"train": len(train), "test": len(test), "digest": train.digest() + test.digest()}
    seed, streams = seed_everything(seed), run.stream.split("+")

    encoders: list[Encoder | None] = []
    origins: list[dict] = []
    for path in pretrained or [None] * len(streams):
        seed_everything(seed)  # a random encoder does not depend on the other streams of the run
        encoder, origin = (None, {"task": "raw"}) if raw else get_encoder(path, sizes)
        if encoder:
            digest = hashlib.sha256()
            for name, tensor in encoder.state_dict().items():
                digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
            origin = {"digest": digest.hexdigest()} | (origin if path else {"task": "random", "seed": seed})
        encoders.append(encoder)
        origins.append(origin)
    record = {"seed": seed, "data": data, "origins": origins}
    return Task(run, streams, num_classes, train, test, encoders, record, device)


def feature_batches(x: Tensor, y: Tensor, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of features x (N, D) and labels y (N,), both on the device; the order is copied there once."""
    order = torch.tensor([row for rows in batches for row in rows]).to(x.device)
    for rows in order.split(batches.batch_size):
        yield x[rows], y[rows]


def clip_batches(
    loader: DataLoader,
    stream: str,
    sizes: dict[str, int],
    device: torch.device,
    crop_ratio: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield crops of a stream, x (N, 3, frames, V, bodies), and labels (N,), on the device.

    They are centre crops or, with `crop_ratio`, random crops of a share of the clip between these two, as in CMD's fine-tuning.
    """
    size = sizes["frames"]
    for batch in loader:
        x = batch.x[..., : sizes["bodies"]].to(device, non_blocking=True)
        if crop_ratio is None:
            x = centre_crop(x, batch.num_frames, size=size)
        else:
            x = crop_resize(x, *draw_crop(batch.num_frames, crop_ratio, size, generator), size)
        x = STREAMS[stream](x)
        yield x, batch.labels.to(device, non_blocking=True)


@torch.no_grad()
def extract_features(
    task: Task, encoder: Encoder | None, stream: str, workers: int, batch_size: int = BATCH_SIZE
) -> tuple[Tensor, Tensor]:
    """Return [v_t, v_s] of all training and of all test clips, (N, 2 d), on the device, in the order of the data set.

    The encoder is in evaluation mode and the crop deterministic, so a clip has the same features in every epoch. Without an
    encoder, return the cropped clips themselves, (N, 3 * 64 * V * M) in metres. Raise UserError if a feature is not finite.
    """
    sizes = {"frames": 64, "bodies": NUM_BODIES} if encoder is None else encoder.eval().to(task.device).sizes
    both = []
    for dataset in (task.train, task.test):
        loader = make_loader(
            dataset, Batches(len(dataset), batch_size), workers, pin_memory=task.device.type == "cuda"
        )
        clips = clip_batches(loader, stream, sizes, task.device)
        features = []
        for x, _ in tqdm(clips, f"features of {dataset.part}", len(loader), leave=False, disable=None):
            features.append(x.flatten(1) if encoder is None else torch.cat(encoder(x), dim=1))
        both.append(torch.cat(features))
        finite = torch.cat([torch.isfinite(x).all(dim=1) for x in features]).cpu()  # waits for the device
        if not finite.all():
            bad = int(finite.int().argmin())
            sample = f"{dataset.part} sample {bad} ({dataset.names[bad]})"
            raise UserError(
                f"{dataset.folder}: the features of {sample} are not finite: the encoder's weights are damaged"
            )
    return both[0], both[1]


def save_features(folder: Path, task: Task, stream: str, both: Sequence[Tensor]) -> None:
    """Write features_STREAM_train.npz and features_STREAM_val.npz: names (N,), labels (N,), features (N, D)."""
    for dataset, x in zip((task.train, task.test), both, strict=True):
        path = folder / f"features_{stream}_{dataset.part}.npz"
        save_npz(path, names=np.array(dataset.names), labels=dataset.labels, features=x.cpu().numpy())
