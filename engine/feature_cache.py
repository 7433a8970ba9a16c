"""Features on disk, under a key of everything that they depend on: they are never served stale."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.distributed import any_process, from_rank_0, rank
from engine.features import FRAMES, extract_features
from engine.files import load_npz, save_npz
from engine.runlog import RunLog
from feeder.arrays import DATA, path_of
from feeder.augmentations import CENTRE_RATIO
from feeder.cli import UserError
from feeder.dataset import SkeletonDataset
from model import Encoder

FORMAT = 1  # to be raised when the same key would stand for other features: a change of crop, stream or encoder


def cached_features(
    folder: str | None,
    log: RunLog,
    encoder: Encoder | None,
    dataset: SkeletonDataset,
    identity: list,
    stream: str,
    device: torch.device,
    workers: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Return what `extract_features` returns, from a file in `folder` where there is one, else by way of one; None: neither.

    A damaged file is computed again; a full disk, or data that changed meanwhile, leave none; all is said. Of several
    processes rank 0 writes; where one of them cannot read the file, all compute.

    Args:
        folder: of the files.
        log: told of what is done.
        encoder, dataset, stream, device, workers, batch_size: see `extract_features`.
        identity: `clips_identity` from before `dataset` was opened, so that what was opened is that or younger.
    """
    if folder is None:
        return extract_features(encoder, dataset, stream, device, workers, batch_size)
    key = from_rank_0(feature_key(encoder, dataset, identity, stream, device))
    path = Path(folder) / f"{dataset.part}_{stream}_{key[:32]}.npz"
    kept = _load(path, key, len(dataset), log)
    lacking = any_process(kept is None)[0]
    if kept is not None and not lacking:
        log.print(f"features of {dataset.part}: {path}")
        return kept.to(device), torch.from_numpy(dataset.labels).to(device)
    features, labels = extract_features(encoder, dataset, stream, device, workers, batch_size)
    if rank():
        return features, labels
    if clips_identity(dataset.folder, dataset.part) != identity:
        log.print(f"{dataset.folder}: the data changed while features were computed: they are not kept")
        return features, labels
    try:
        save_npz(path, key=np.array(key), features=features.cpu().numpy())
    except OSError as error:
        log.print(f"features are not kept: {error.filename or folder}: {error.strerror or error}")
    return features, labels


def clips_identity(folder: Path, part: str) -> list:
    """Return what tells a part's file of clips from any other: path, inode, size, times; [] where there is none.

    The times are of the last change of content and of inode; no program can set back the latter.
    """
    path = path_of(folder, part, DATA)
    try:
        stat = path.stat()
    except OSError:
        return []
    return [str(path.resolve()), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def feature_key(encoder: Encoder | None, dataset: SkeletonDataset, identity: list, stream: str, device: torch.device) -> str:
    """Return a hash of the encoder's sizes and weights, of the data, and of part, stream, crop and kind of device.

    Labels, names and lengths count by content; the clips, often tens of gigabytes, by `clips_identity`.
    """
    sizes = {"frames": FRAMES} if encoder is None else encoder.sizes
    plain = [FORMAT, sizes, identity, dataset.part, stream, CENTRE_RATIO, device.type, str(torch.__version__), dataset.names]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    digest.update(dataset.labels.tobytes())
    digest.update(dataset.num_frame.tobytes())
    digest.update(weights_digest(encoder).encode())
    return digest.hexdigest()


def weights_digest(encoder: Encoder | None) -> str:
    """Return a hash of an encoder's weights and buffers: names, types, shapes, values; None has one, too."""
    digest = hashlib.sha256()
    for name, tensor in ({} if encoder is None else encoder.state_dict()).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()


def _load(path: Path, key: str, samples: int, log: RunLog) -> Tensor | None:
    if not path.exists():
        return None
    try:
        content = load_npz(path, ("key", "features"))
        if str(content["key"]) != key or content["features"].ndim != 2 or len(content["features"]) != samples:
            raise UserError(f"{path} holds other features")
    except UserError as error:
        log.print(f"{error}; computed again")
        return None
    return torch.from_numpy(content["features"])
