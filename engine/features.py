"""Input of the downstream tasks: data, an encoder for each stream, features of frozen encoders."""

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
from model import DownstreamModel, Encoder
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

    @property
    def notes(self) -> list[str]:
        """A line for each correction made while opening the data."""
        return [*self.train.notes, *self.test.notes]


def open_task(run: Run, folder: Path, num_classes: int, device: torch.device) -> Task:
    """Open both parts of the split in `folder`; raise `UserError` if a label is outside the classes."""
    task = Task(run, SkeletonDataset(folder, "train"), SkeletonDataset(folder, "val"), num_classes, device)
    for dataset in (task.train, task.test):
        worst = int(dataset.labels.argmax())
        if dataset.labels[worst] >= num_classes:
            label = f"{dataset.names[worst]} has label {dataset.labels[worst]}"
            raise UserError(f"{folder}: {label}, but feeder/data_sets.py has {num_classes} classes")
    return task


def record(
    task: Task, args: Namespace, recipe: Namespace, seed: int, encoders: list[dict], previous: Previous = NEW
) -> dict[str, Any]:
    """Return what a run records besides its options; `UserError` if it resumes a run on other data."""
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
    """Return an encoder for each stream, and its origin: "task", "digest", and what its run recorded.

    With --random-encoder it is drawn from the seed; with --raw-coordinates it is None.
    """
    found: list[tuple[Encoder | None, dict[str, Any]]] = []
    for path in args.pretrained or [None] * len(args.finetune_skeleton_representation):
        seed_everything(seed)  # a random encoder does not depend on the other streams of the run
        if getattr(args, "raw_coordinates", False):
            found.append((None, {"task": "raw", "seed": seed}))
        elif path:
            found.append(open_encoder(path, flags.given_sizes(args)))
        else:
            try:
                encoder = Encoder(**flags.given_sizes(args))
            except ValueError as error:
                raise UserError(f"random encoder: {error}") from None
            found.append((encoder, {"task": "random", "seed": seed, "digest": _digest(encoder)}))
    return found


def open_encoder(path: str | Path, given: dict[str, int] | None = None) -> tuple[Encoder, dict[str, Any]]:
    """Return the (query) encoder of a checkpoint, on the CPU, and its origin.

    Args:
        path: checkpoint of pre-training or of a classifier, ours or the reference's, or its folder.
        given: sizes set by flags. If a checkpoint does not record its sizes, they follow from its shapes,
            except for num_head.

    Raises:
        UserError: the checkpoint is damaged, or does not fit the given sizes.
    """
    checkpoint, given = load_checkpoint(path), given or {}
    with restoring(path):
        encoder = _restore(checkpoint["state_dict"], checkpoint.get("sizes", {}).get("encoder"), given)
        return encoder, origin_of(checkpoint) | {"digest": _digest(encoder)}


def _restore(
    state_dict: dict[str, Tensor], recorded: dict[str, int] | None, given: dict[str, int]
) -> Encoder:
    prefix = "encoder_q.encoder." if any(name.startswith("encoder_q.") for name in state_dict) else "encoder."
    weights = {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}
    found = given | (recorded or sizes(weights))
    for name, value in given.items():
        if found[name] != value:
            raise ValueError(f"it has {name} {found[name]}, not {value}: omit the flag")
    if found["joints"] != NUM_JOINTS:
        raise ValueError(f"it was trained on {found['joints']} joints, feeder/skeleton.py has {NUM_JOINTS}")
    encoder = Encoder(**found)
    encoder.load_state_dict(weights)
    if "num_head" not in found:
        heads = encoder.sizes["num_head"]
        print(f"note: the checkpoint does not record its number of heads: using --num-head {heads}")
    return encoder


def _digest(encoder: Encoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def restore_classifier(path: str | Path) -> tuple[DownstreamModel, dict[str, Any]]:
    """Return the network of a linear evaluation or of fine-tuning, on the CPU, and its origin.

    Raises:
        UserError: the checkpoint at `path` has no linear layer, or is not ours.
    """
    checkpoint = load_checkpoint(path)
    with restoring(path):
        if "fc.weight" not in checkpoint["state_dict"] or "run" not in checkpoint:
            raise ValueError("it is not a classifier of action_classification.py")
        encoder = _restore(checkpoint["state_dict"], checkpoint["sizes"]["encoder"], {})
        model = DownstreamModel(encoder, len(checkpoint["state_dict"]["fc.weight"]))
        model.load_state_dict(checkpoint["state_dict"])
        return model.eval(), origin_of(checkpoint)


def stream_of(origin: dict[str, Any]) -> str:
    """Return the stream that a network was trained on; joint for a network that is not ours."""
    return origin.get("stream") or origin.get("options", {}).get("skeleton_representation", "joint")


def origin_of(checkpoint: dict) -> dict[str, Any]:
    """Return what identifies the encoder of a checkpoint; "reference" or "unknown" if it is not ours."""
    if "run" not in checkpoint:
        return {"task": "reference" if "reference" in checkpoint else "unknown"}
    kept = ("run", "epoch", "seed", "options", "setup", "encoders", "best_on_test", "stream")
    return {"task": checkpoint["run"][0]} | {name: checkpoint[name] for name in kept if name in checkpoint}


@dataclass
class Clips:
    """Batches of a stream on a device: crops (N, 3, frames, V, bodies) and labels (N,).

    They are centre crops or, with `crop_ratio`, random crops of a share of the clip between its two values,
    as in CMD's fine-tuning, drawn from `generator`.
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

    The encoder is in evaluation mode and the crop deterministic, so a clip has the same features in every
    epoch. Without an encoder, return the cropped clips themselves, (N, 3 * 64 * V * M) in metres. Raise
    `UserError` if a feature is not finite.
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
    """Write features_STREAM_train.npz and _val.npz: names (N,), labels (N,), features (N, D)."""
    for dataset, x in zip((task.train, task.test), features, strict=True):
        path = folder / f"features_{stream}_{dataset.part}.npz"
        save_npz(path, names=np.array(dataset.names), labels=dataset.labels, features=x.cpu().numpy())
