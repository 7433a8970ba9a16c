"""Input of the downstream tasks: both parts of a split, crops of their clips, features of frozen encoders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engine.runlog import RunLog
from feeder.augmentations import STREAMS, centre_crop, crop_resize, draw_crop
from feeder.cli import UserError
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader
from feeder.skeleton import NUM_BODIES
from model import Encoder

BATCH_SIZE = 64  # clips per batch in evaluation mode


class Split(NamedTuple):
    """Training and test part of a split."""

    train: SkeletonDataset
    test: SkeletonDataset

    @property
    def notes(self) -> list[str]:
        """A line for each correction made while opening the data."""
        return [*self.train.notes, *self.test.notes]

    def describe(self) -> dict[str, Any]:
        """Return what a run records about its data: number of clips, and a hash of names and labels."""
        digest = self.train.digest() + self.test.digest()
        return {"train": len(self.train), "test": len(self.test), "digest": digest}

    def loaders(self, batch_size: int, workers: int, device: torch.device) -> list[DataLoader]:
        """Return a loader of each part, in the order of the samples."""
        pin = device.type == "cuda"
        return [make_loader(part, Batches(len(part), batch_size), workers, pin) for part in self]


def open_both(folder: Path, num_classes: int) -> Split:
    """Open both parts of the split in `folder`; raise `UserError` if a label is outside the classes."""
    split = Split(SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val"))
    for part in split:
        worst = int(part.labels.argmax())
        if part.labels[worst] >= num_classes:
            label = f"{part.names[worst]} has label {part.labels[worst]}"
            raise UserError(f"{folder}: {label}, but feeder/data_sets.py has {num_classes} classes")
    return split


def crop(
    batch: Batch,
    encoder: Encoder | None,
    stream: str,
    device: torch.device,
    ratio: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the input (N, 3, T, V, M) of an encoder, on the device; without an encoder, T is 64 and M 2.

    Crops are centre crops or, with `ratio`, random ones whose share of the clip is between its two values, as
    in CMD's fine-tuning.
    """
    frames, bodies = (encoder.sizes["frames"], encoder.sizes["bodies"]) if encoder else (64, NUM_BODIES)
    x = batch.x[..., :bodies].to(device, non_blocking=True)
    if ratio is None:
        return STREAMS[stream](centre_crop(x, batch.num_frames, size=frames))
    return STREAMS[stream](crop_resize(x, *draw_crop(batch.num_frames, ratio, frames, generator), frames))


@torch.no_grad()
def extract_features(
    encoder: Encoder | None,
    stream: str,
    loaders: Sequence[DataLoader],
    device: torch.device,
    log: RunLog,
    print_freq: int,
) -> list[Tensor]:
    """Return [v_t, v_s] of all clips of each loader, (N, 2 d), on the device.

    The encoder is in evaluation mode and the crop deterministic, so a clip has the same features in every
    epoch. Without an encoder, return the cropped clips themselves, (N, 3 * 64 * V * M) in metres. Raise
    `UserError` if a feature is not finite.
    """
    features = encoder.eval().to(device).features if encoder else nn.Flatten()
    found = []
    for loader in loaders:
        part, batches = loader.dataset, []
        for step, batch in enumerate(loader):
            batches.append(features(crop(batch, encoder, stream, device)))
            if step and step % print_freq == 0:
                log.print(f"features of {part.part}: [{step}/{len(loader)}]")
        found.append(torch.cat(batches))
        finite = found[-1].isfinite().all(dim=1).cpu()  # waits for the device
        if not finite.all():
            bad = int(finite.int().argmin())
            problem = f"the features of {part.part} sample {bad} ({part.names[bad]}) are not finite"
            raise UserError(f"{part.folder}: {problem}: the encoder's weights are damaged")
    return found


def save_features(folder: Path, split: Split, stream: str, features: Sequence[Tensor]) -> None:
    """Write features_STREAM_train.npz and _val.npz: names (N,), labels (N,), features (N, D)."""
    for part, x in zip(split, features, strict=True):
        path = folder / f"features_{stream}_{part.part}.npz"
        np.savez(path, names=np.array(part.names), labels=part.labels, features=x.cpu().numpy())
