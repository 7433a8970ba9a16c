"""Input of the downstream tasks: both parts of a split, an encoder for each stream, features of frozen encoders."""

import hashlib
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from engine.checkpoint import NEW, Previous, load_checkpoint, restoring
from engine.evaluation import changed_flags
from engine.files import save_npz
from engine.runlog import Run, RunLog
from engine.training import seed_everything
from feeder.augmentations import STREAMS, centre_crop, crop_resize, draw_crop
from feeder.cli import UserError
from feeder.dataset import Batches, SkeletonDataset, make_loader
from feeder.skeleton import NUM_BODIES, NUM_JOINTS
from model import Encoder
from model.reference import sizes
from options import flags

BATCH_SIZE = 64  # clips in a batch of a frozen encoder


class Task(NamedTuple):
    """What a downstream run evaluates, and on which data."""

    run: Run
    train: SkeletonDataset
    test: SkeletonDataset
    num_classes: int
    device: torch.device

    @property
    def streams(self) -> list[str]:
        """The streams that are evaluated."""
        return self.run.stream.split("+")


def open_task(run: Run, folder: Path, num_classes: int, device: torch.device) -> Task:
    """Open both parts of the split in `folder`; raise `UserError` if a label is outside the classes."""
    task = Task(run, SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val"), num_classes, device)
    for dataset in (task.train, task.test):
        worst = int(dataset.labels.argmax())
        if dataset.labels[worst] >= num_classes:
            label = f"{dataset.names[worst]} has label {dataset.labels[worst]}"
            raise UserError(f"{folder}: {label}, but options/datasets.py has {num_classes} classes")
    return task


def record(
    task: Task, args: Namespace, recipe: Namespace, seed: int, encoders: list[dict], previous: Previous = NEW
) -> dict[str, Any]:
    """Return what a run records in addition to its options; raise `UserError` if it continues one with other data."""
    digest = task.train.digest() + task.test.digest()
    data = {"train": len(task.train), "test": len(task.test), "digest": digest}
    found = dict(seed=seed, data=data, encoders=encoders, setup=changed_flags(args, recipe))
    for entry in ("data", "encoders"):
        if previous.checkpoint.get(entry, found[entry]) != found[entry]:
            remedy = "choose another --checkpoint-path, or omit --resume"
            raise UserError(f"{previous.path} was started with other {entry}: {remedy}")
    changes = previous.checkpoint.get("changes", []) + previous.notes
    if "checkpoint_path" in args:
        found |= dict(changes=changes, folder=str(Path(args.checkpoint_path).resolve()))
    return found


def open_encoders(args: Namespace, seed: int) -> list[tuple[Encoder | None, dict[str, Any]]]:
    """Return an encoder for each stream, and its origin: "task", "digest" of the weights, and what its run recorded.

    With --random-encoder it is drawn from the seed; with --raw-coordinates it is None.
    """
    found: list[tuple[Encoder | None, dict[str, Any]]] = []
    for path in args.pretrained or [None] * len(args.finetune_skeleton_representation):
        if getattr(args, "raw_coordinates", False):
            found.append((None, {"task": "raw", "seed": seed}))
            continue
        seed_everything(seed)  # a random encoder does not depend on the other streams of the run
        if path is None:
            with restoring("random encoder"):
                encoder, origin = Encoder(**flags.given_sizes(args)), {"task": "random", "seed": seed}
        else:
            checkpoint = load_checkpoint(path)
            with restoring(path):
                encoder = restore_encoder(
                    checkpoint["state_dict"], checkpoint.get("sizes", {}), flags.given_sizes(args)
                )
                origin = origin_of(checkpoint)
        digest = hashlib.sha256()
        for name, tensor in encoder.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
        found.append((encoder, origin | {"digest": digest.hexdigest()}))
    return found


def restore_encoder(
    state_dict: dict[str, Tensor], recorded: dict[str, Any], given: dict[str, int]
) -> Encoder:
    """Return the (query) encoder of a state dict; raise ValueError or RuntimeError if it does not fit.

    Args:
        state_dict: of a network of pre-training or of a classifier.
        recorded: the "sizes" of the checkpoint; if it has none, they are read from the shapes, except for the heads.
        given: sizes set by flags.
    """
    prefix = "encoder_q.encoder." if any(name.startswith("encoder_q.") for name in state_dict) else "encoder."
    weights = {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}
    found = given | (recorded.get("encoder") or sizes(weights))
    for name, value in given.items():
        if found[name] != value:
            raise ValueError(f"it has {name} {found[name]}, not {value}: omit the flag")
    if found["joints"] != NUM_JOINTS:
        raise ValueError(f"it was trained on {found['joints']} joints, feeder/skeleton.py has {NUM_JOINTS}")
    encoder = Encoder(**found)
    encoder.load_state_dict(weights)
    if "num_head" not in found:
        heads = encoder.sizes["num_head"]
        print(
            f"note: the checkpoint does not record the number of heads: using {heads} (set it with --num-head)"
        )
    return encoder


def origin_of(checkpoint: dict) -> dict[str, Any]:
    """Return what identifies the encoder of a checkpoint; "reference" or "unknown" if it is not ours."""
    if "run" not in checkpoint:
        return {"task": "reference" if "reference" in checkpoint else "unknown"}
    kept = ("epoch", "seed", "options", "setup", "encoders")
    return {"task": checkpoint["run"][0]} | {name: checkpoint[name] for name in kept if name in checkpoint}


@dataclass
class Clips:
    """Batches of a stream on a device: crops (N, 3, frames, V, bodies) and labels (N,).

    They are centre crops or, with `crop_ratio`, random crops of a share of the clip between these two, as in CMD's
    fine-tuning, drawn from `generator`.
    """

    loader: DataLoader
    stream: str
    sizes: dict[str, int]  # frames and bodies of the encoder
    device: torch.device
    crop_ratio: Sequence[float] | None = None
    generator: torch.Generator | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.sizes["frames"]
        for batch in self.loader:
            x = batch.x[..., : self.sizes["bodies"]].to(self.device, non_blocking=True)
            if self.crop_ratio is None:
                x = centre_crop(x, batch.num_frames, size=size)
            else:
                x = crop_resize(x, *draw_crop(batch.num_frames, self.crop_ratio, size, self.generator), size)
            yield STREAMS[self.stream](x), batch.labels.to(self.device, non_blocking=True)


def both_features(
    encoder: Encoder | None, task: Task, stream: str, args: Namespace, log: RunLog
) -> list[Tensor]:
    """Return the features of the training and of the test set; see `extract_features`."""
    return [
        extract_features(encoder, part, stream, task.device, args, log) for part in (task.train, task.test)
    ]


@torch.no_grad()
def extract_features(
    encoder: Encoder | None,
    dataset: SkeletonDataset,
    stream: str,
    device: torch.device,
    args: Namespace,
    log: RunLog,
) -> Tensor:
    """Return [v_t, v_s] of all clips of a part, (N, 2 d), on the device, in the order of the part.

    The encoder is in evaluation mode and the crop deterministic, so a clip has the same features in every epoch. Without
    an encoder, return the cropped clips themselves, (N, 3 * 64 * V * M) in metres. Raise `UserError` if a feature is not
    finite.
    """
    sizes = {"frames": 64, "bodies": NUM_BODIES} if encoder is None else encoder.eval().to(device).sizes
    batches = Batches(len(dataset), args.batch_size if "knn_neighbours" in args else BATCH_SIZE)
    clips = Clips(make_loader(dataset, batches, args.workers, device.type == "cuda"), stream, sizes, device)
    features = []
    for step, (x, _) in enumerate(clips):
        features.append(x.flatten(1) if encoder is None else torch.cat(encoder(x), dim=1))
        if step and step % args.print_freq == 0:
            log.print(f"features of {dataset.part}: [{step}/{len(clips)}]")
    joined = torch.cat(features)
    finite = torch.isfinite(joined).all(dim=1).cpu()  # waits for the device
    if not finite.all():
        bad = int(finite.int().argmin())
        problem = f"the features of {dataset.part} sample {bad} ({dataset.names[bad]}) are not finite"
        raise UserError(f"{dataset.folder}: {problem}: the encoder's weights are damaged")
    return joined


def save_features(folder: Path, task: Task, stream: str, features: Sequence[Tensor]) -> None:
    """Write features_STREAM_train.npz and features_STREAM_val.npz: names (N,), labels (N,), features (N, D)."""
    for dataset, x in zip((task.train, task.test), features, strict=True):
        path = folder / f"features_{stream}_{dataset.part}.npz"
        save_npz(path, names=np.array(dataset.names), labels=dataset.labels, features=x.cpu().numpy())
