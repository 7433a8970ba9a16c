"""Features of a frozen encoder."""

import torch
from torch import Tensor
from tqdm import tqdm

from engine.distributed import gather_rows, rank, world_size
from feeder.augmentations import centre_crop, to_stream
from feeder.dataset import Batch, Batches, SkeletonDataset, make_loader
from feeder.skeleton import NUM_BODIES
from model import Encoder

FRAMES = 64  # of the cropped clip where no encoder says how many it takes
CLIPS = 64  # that an encoder takes at a time


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
    batch_size: int = CLIPS,
) -> tuple[Tensor, Tensor]:
    """Return [v_t, v_s] (N, 2 d) of all clips and their labels (N,), on the device, in the data set's order.

    The encoder is in evaluation mode and the crop deterministic: a clip's features are the same in every epoch. Without an
    encoder the features are the cropped clip itself, (N, 3 * 64 * V * M) metres. Of several processes, which all take part,
    each computes those of its share of the clips, at least one, and gets all.
    """
    sizes = {"frames": FRAMES, "bodies": NUM_BODIES} if encoder is None else encoder.eval().to(device).sizes
    mine = Batches(len(dataset), batch_size, rows=slice(rank(), None, world_size()))
    loader = make_loader(dataset, mine, workers, pin_memory=device.type == "cuda")
    features = []
    for batch in tqdm(loader, desc=f"features of {dataset.part}", leave=False, disable=True if rank() else None):
        x = downstream_input(batch, stream, sizes["frames"], sizes["bodies"], device)
        features.append(x.flatten(1) if encoder is None else torch.cat(encoder(x), dim=1))
    return gather_rows(torch.cat(features), len(dataset)), torch.from_numpy(dataset.labels).to(device)
