"""Features of a frozen encoder."""

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from engine.errors import RunError
from feeder.augmentations import centre_crop, to_stream
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader
from feeder.skeleton import NUM_BODIES
from model import Encoder

FRAMES = 64  # of the cropped clip where no encoder says how many it takes


def open_both(folder: str | Path, num_classes: int) -> tuple[SkeletonDataset, SkeletonDataset]:
    """Return the training and the test set of a split.

    Raises:
        feeder.errors.DataError: the arrays are absent or damaged.
        RunError: a label is outside 0 .. num_classes - 1.
    """
    train, test = SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val")
    for dataset in (train, test):
        if dataset.labels.max() >= num_classes:
            worst = int(dataset.labels.argmax())
            label = f"{dataset.names[worst]} has label {dataset.labels[worst]}"
            raise RunError(f"{folder}: {label}, but the table of data sets says {num_classes} classes")
    return train, test


def downstream_input(batch: Batch, stream: str, size: int, bodies: int, device: torch.device) -> Tensor:
    """Return the input (N, 3, size, V, bodies) of every downstream task: the centre crop, in the stream's form."""
    x = batch.x[..., :bodies].to(device, non_blocking=True)
    return to_stream(centre_crop(x, batch.num_frames, size=size), stream)


@torch.no_grad()
def extract_features(
    encoder: Encoder | None,
    dataset: SkeletonDataset,
    stream: str,
    device: torch.device,
    workers: int = 0,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Return [v_t, v_s] (N, 2 d) of all clips and their labels (N,), on the device, in the data set's order.

    The encoder is in evaluation mode and the crop deterministic: a clip's features are the same in every epoch. Without an
    encoder the features are the cropped clip itself, (N, 3 * 64 * V * M) metres.
    """
    sizes = {"frames": FRAMES, "bodies": NUM_BODIES} if encoder is None else encoder.eval().to(device).sizes
    loader = make_loader(dataset, Batches(len(dataset), batch_size), workers, pin_memory=device.type == "cuda")
    features = []
    for batch in tqdm(loader, desc=f"features of {dataset.part}", leave=False, disable=None):
        x = downstream_input(batch, stream, sizes["frames"], sizes["bodies"], device)
        features.append(x.flatten(1) if encoder is None else torch.cat(encoder(x), dim=1))
    return torch.cat(features), torch.from_numpy(dataset.labels).to(device)
