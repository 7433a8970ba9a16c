"""Clips for `engine.predict` and `engine.draw`: raw files of any length, and samples of prepared splits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.arrays import DATA, PARTS, open_split, path_of
from feeder.cli import UserError
from feeder.preparation.normalize import to_sample
from feeder.preparation.ntu import SUFFIX, read_bodies
from feeder.skeleton import MAX_FRAMES


class Clip(NamedTuple):
    """A normalised clip."""

    name: str
    x: np.ndarray  # (3, 300, 25, 2) float32 in metres, looped
    num_frames: int  # valid frames, 1..300


def read_clips(paths: Sequence[Path]) -> Iterator[Clip]:
    """Yield the clips of `.skeleton` files, of folders of them, and of the test parts of prepared splits.

    FOLDER/NAME is one sample of the prepared split in FOLDER, of either part. Raise `UserError` for any
    other path.
    """
    for path in paths:
        if path.is_file():
            yield read_raw(path)
        elif path_of(path, "val", DATA).is_file():
            yield from read_samples(path, "val")
        elif files := sorted(path.glob(f"*{SUFFIX}")):
            yield from map(read_raw, files)
        elif path_of(path.parent, "val", DATA).is_file():
            found = [clip for part in PARTS for clip in read_samples(path.parent, part, path.name)]
            if not found:
                raise UserError(f"{path.parent} has no sample {path.name}")
            yield from found[:1]
        else:
            inside = f"no {SUFFIX} files and no prepared split in it"
            raise UserError(f"{path}: {inside if path.is_dir() else 'no such file or folder'}")


def read_raw(path: Path) -> Clip:
    """Return the clip of a `.skeleton` file; of more than 300 frames, 300 evenly spaced ones are kept."""
    bodies = read_bodies(path)
    frames = bodies.shape[1]
    if frames > MAX_FRAMES:
        bodies = bodies[:, np.linspace(0, frames - 1, MAX_FRAMES).round().astype(int)]
    x = to_sample(bodies)
    if not x[:, 0].any():
        raise UserError(f"{path}: there is no body in it")
    return Clip(path.name, x, bodies.shape[1])


def read_samples(folder: Path, part: str, wanted: str = "") -> Iterator[Clip]:
    """Yield the samples of a part of a prepared split, or only the one that is wanted."""
    split = open_split(folder, part)
    for row, name in enumerate(split.names):
        if wanted in ("", name, name.removesuffix(SUFFIX)):
            yield Clip(name, np.array(split.data[row]), int(split.num_frame[row]))
