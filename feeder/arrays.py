"""The array files of a split, in the format of related repositories: opened memory-mapped, written atomically.

FOLDER/{xsub,xview,xsetup}/{train,val}_data_joint.npy    float32 (N, 3, 300, 25, 2)
                                  ..._num_frame.npy      int64 (N,), frames before looping, 1..300
                                  ..._label.pkl          pickle of (names, labels), two lists of length N; labels from 0

New arrays are written to FOLDER/xsub.tmp-<hex>. Once they are on disk, an existing FOLDER/xsub is renamed to
FOLDER/xsub.old-<hex>, the new folder to FOLDER/xsub, and the old one is removed. If a run is killed between the two renames,
there is no FOLDER/xsub; the next run restores the old folder first.
"""

import contextlib
import math
import os
import pickle
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from feeder.cli import UserError, signals_deferred
from feeder.labels import load_labels
from feeder.skeleton import MAX_FRAMES, NUM_BODIES, NUM_JOINTS

PARTS = ("train", "val")
SAMPLE_SHAPE = (3, MAX_FRAMES, NUM_JOINTS, NUM_BODIES)
SAMPLE_BYTES = 4 * math.prod(SAMPLE_SHAPE)
DATA, NUM_FRAME, LABEL = "data_joint.npy", "num_frame.npy", "label.pkl"


def path_of(folder: str | Path, part: str, kind: str) -> Path:
    """Return the path of one array file of a split; `kind` is `DATA`, `NUM_FRAME` or `LABEL`."""
    return Path(folder) / f"{part}_{kind}"


class Split(NamedTuple):
    """One part of a split, opened. `notes` has a line for each correction made while opening."""

    data: np.memmap  # (N, 3, 300, 25, 2) float32, read-only
    num_frame: np.ndarray  # (N,) int64, 1..300
    names: list[str]
    labels: list[int]
    notes: list[str]


def open_split(folder: str | Path, part: str) -> Split:
    """Return the arrays of a part ("train" or "val") after checks of types, shapes and lengths.

    Frame counts above 300, and of 0 if the sample is zero, as stored by PKU-MMD scripts of related repositories, are clamped to
    1..300 with a note.

    Raises:
        UserError: a file is missing, truncated or has a wrong type or shape, or the three files do not match.
    """
    data_path, num_frame_path, label_path = paths = [
        path_of(folder, part, kind) for kind in (DATA, NUM_FRAME, LABEL)
    ]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; set --data-path and the data set, or prepare it (docs/data.md)"
            )
    data, stored, (names, labels) = (
        _open_array(data_path),
        _open_array(num_frame_path),
        load_labels(label_path),
    )
    if data.dtype != np.float32 or data.shape[1:] != SAMPLE_SHAPE or not data.flags.c_contiguous:
        expected = f"float32 (N, {', '.join(map(str, SAMPLE_SHAPE))}) in C order"
        raise UserError(f"{data_path}: {data.dtype} {data.shape}, not {expected}; prepare the data again")
    if stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise UserError(
            f"{num_frame_path}: {stored.dtype} {stored.shape}, not integers (N,); prepare the data again"
        )
    if not len(data) == len(stored) == len(labels):
        counts = f"{len(data)} in {part}_{DATA}, {len(stored)} in {part}_{NUM_FRAME}, {len(labels)} in {part}_{LABEL}"
        raise UserError(f"{folder}: numbers of samples differ: {counts}; prepare the data again")
    if not labels:
        raise UserError(f"{folder}: {part} has no samples; check the raw data and prepare the data again")
    num_frame = np.array(stored, np.int64)
    for row in np.flatnonzero(num_frame < 1):
        if num_frame[row] < 0 or data[row].any():
            raise UserError(
                f"{num_frame_path}: sample {row} has {num_frame[row]} frames; prepare the data again"
            )
    outside = ((num_frame > MAX_FRAMES, f"above {MAX_FRAMES}", MAX_FRAMES), (num_frame == 0, "of 0", 1))
    notes = [
        f"{num_frame_path}: frame counts {what} are read as {value}: {rows.sum()} of {len(rows)}"
        for rows, what, value in outside
        if rows.any()
    ]
    return Split(data, num_frame.clip(1, MAX_FRAMES), names, labels, notes)


def _open_array(path: Path) -> np.memmap:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise almost any error
        raise UserError(
            f"{path}: not a complete .npy array ({' '.join(str(error).split())}); prepare the data again"
        ) from None
    if path.stat().st_size != array.offset + array.nbytes:
        raise UserError(f"{path}: longer than its header says; prepare the data again")
    return array


def check_space(folder: str | Path, num_samples: int) -> None:
    """Raise `UserError` if the disk of `folder`, which must exist, has no space for `num_samples` samples."""
    needed, free = num_samples * SAMPLE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; free some space and run again"
        )


@contextlib.contextmanager
def write_splits(root: str | Path, benchmarks: Iterable[str]) -> Iterator["SplitWriter"]:
    """Yield a writer of new splits, which replace ROOT/{benchmarks} at the end of the `with` block unless it raises an error.

    Files that only the old folder has, such as notes, are moved into the new one.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    # a folder may be a link to another disk; its replacement must be on that disk to be renamed
    folders = {name: Path(root, name).resolve() for name in benchmarks}
    for folder in folders.values():
        _clean_up(folder)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: a file exists where a folder is needed; move it")
    token = uuid.uuid4().hex[:8]
    temporary = {name: folder.with_name(f"{folder.name}.tmp-{token}") for name, folder in folders.items()}
    try:
        with contextlib.closing(SplitWriter(temporary)) as writer:
            yield writer
            if not all(path.is_dir() for path in temporary.values()):
                raise UserError(
                    f"{root}: another run removed the files of this one; write to a folder with one run at a time"
                )
            writer.finish()
        for new in temporary.values():
            for path in (*new.iterdir(), new):
                _sync(path)
        with signals_deferred():
            for name, folder in folders.items():
                _replace(folder, temporary[name], folder.with_name(f"{folder.name}.old-{token}"))
    except OSError as error:  # write errors, such as that of a full disk, have no path
        raise OSError(error.errno, error.strerror, error.filename or str(root)) from None
    finally:
        for path in temporary.values():
            shutil.rmtree(path, ignore_errors=True)


class SplitWriter:
    """Append samples to new splits; see `write_splits`.

    Samples are written to a file, not through a memmap: on a full disk a memmap kills the process with SIGBUS, and each page
    that it touches counts as memory of the process.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        # (benchmark, part) -> file of samples, names, labels, numbers of frames
        self.parts: dict[tuple[str, str], tuple[BinaryIO, list[str], list[int], list[int]]] = {}
        for benchmark, folder in folders.items():
            folder.mkdir()
            for part in PARTS:
                file = open(path_of(folder, part, DATA), "xb")
                self.parts[benchmark, part] = file, [], [], []
                _write_header(file, 0)

    def add(
        self, parts: Mapping[str, str], name: str, label: int, num_frame: int, sample: np.ndarray
    ) -> None:
        """Append a sample (3, 300, 25, 2) to "train" or "val" of each benchmark in `parts`; reject wrong values."""
        if sample.shape != SAMPLE_SHAPE or not 1 <= num_frame <= MAX_FRAMES or label < 0:
            raise ValueError(f"{name}: sample {sample.shape}, num_frame {num_frame}, label {label}")
        for key in parts.items():
            file, names, labels, num_frames = self.parts[key]
            file.write(np.ascontiguousarray(sample, np.float32).data)
            names.append(name)
            labels.append(label)
            num_frames.append(num_frame)

    def finish(self) -> None:
        """Complete the headers and write the other files."""
        for (_, part), (file, names, labels, num_frames) in self.parts.items():
            _write_header(file, len(names))
            file.close()
            folder = Path(file.name).parent
            np.save(path_of(folder, part, NUM_FRAME), np.array(num_frames, np.int64))
            path_of(folder, part, LABEL).write_bytes(pickle.dumps((names, labels), protocol=4))

    def close(self) -> None:
        """Close all files; a full disk must not prevent closing the others."""
        for file, *_ in self.parts.values():
            with contextlib.suppress(OSError):
                file.close()


def _write_header(file: BinaryIO, num_samples: int) -> None:
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_samples, *SAMPLE_SHAPE)}
    np.lib.format.write_array_header_1_0(file, header)  # the same length for any number of samples


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Rename `new` to `folder`; the previous `folder` is renamed to `old` and then removed."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    finally:
        _clean_up(folder)  # restores the old folder if the rename failed
    _sync(folder.parent)


def _clean_up(folder: Path) -> None:
    """Restore or remove folders that this or a killed run left next to `folder`, keeping files that only the old one has."""
    for old in folder.parent.glob(f"{folder.name}.old-{'[0-9a-f]' * 8}"):
        if not folder.exists():  # killed between the two renames
            os.rename(old, folder)
            continue
        for path in old.iterdir():
            if (folder / path.name).exists():
                path.unlink()
            else:
                os.rename(path, folder / path.name)
        old.rmdir()
    for temporary in folder.parent.glob(f"{folder.name}.tmp-{'[0-9a-f]' * 8}"):
        shutil.rmtree(temporary)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
