"""The array files of a split, in the format of related repositories: read memory-mapped, replaced as a whole.

FOLDER/{xsub,xview,xsetup}/{train,val}_data_joint.npy    float32 (N, 3, 300, 25, 2)
                                  ..._num_frame.npy      int64 (N,), frames before looping, 1..300
                                  ..._label.pkl          pickle of two lists of length N: names, labels from 0

New arrays are written to xsub.tmp-<hex>. When they are complete, an existing xsub becomes xsub.old-<hex>, the
new folder becomes xsub, and the old one is removed. If a run was killed between the two steps, the next one
restores the old folder.
"""

import contextlib
import os
import pickle
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.plain_pickle import load_plain
from feeder.skeleton import MAX_FRAMES, NUM_BODIES, NUM_JOINTS

PARTS = ("train", "val")
SAMPLE_SHAPE = (3, MAX_FRAMES, NUM_JOINTS, NUM_BODIES)
DATA, NUM_FRAME, LABEL = "data_joint.npy", "num_frame.npy", "label.pkl"
# what a file is where a folder is expected, and what to do, by suffix
FILE_REMEDIES = {
    ".npz": "an archive of arrays, such as CTR-GCN's: convert it (docs/data.md)",
    ".pkl": "a pickle: if it has pyskl's 3-D annotations, run python ntu_gendata.py --data-path {path}",
    ".npy": "a single array: set its folder",
}


def path_of(folder: str | Path, part: str, kind: str) -> Path:
    """Return the path of one array file of a split; `kind` is `DATA`, `NUM_FRAME` or `LABEL`."""
    return Path(folder) / f"{part}_{kind}"


def check_is_folder(folder: Path) -> None:
    """Raise `UserError` if there is no such folder; if a file is there instead, say what it is."""
    for path in (folder, *folder.parents):
        if path.is_file():
            what = FILE_REMEDIES.get(path.suffix, "set the folder of the data").format(path=path)
            raise UserError(f"{path}: a file, not a folder; {what}")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the folder of the data, or prepare it (docs/data.md)")


class Split(NamedTuple):
    """One part of a split, opened. `notes` has a line for each correction made while opening."""

    data: np.memmap  # (N, 3, 300, 25, 2) float32, read-only
    num_frame: np.ndarray  # (N,) int64, 1..300
    names: list[str]
    labels: list[int]
    notes: list[str]


def open_split(folder: str | Path, part: str) -> Split:
    """Return the arrays of a part ("train" or "val") after checks of types, shapes and lengths.

    Frame counts above 300, and of 0 if the sample is zero, as related repositories store for PKU-MMD, are
    clamped to 1..300 with a note.

    Raises:
        UserError: a file is missing, truncated or has a wrong type or shape, or the three files do not match.
    """
    check_is_folder(Path(folder))
    data_path, num_frame_path, label_path = (path_of(folder, part, kind) for kind in (DATA, NUM_FRAME, LABEL))
    try:
        data, stored, (names, labels) = _open(data_path), _open(num_frame_path), load_labels(label_path)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; prepare the data (docs/data.md)") from None
    if data.dtype != np.float32 or data.shape[1:] != SAMPLE_SHAPE or not data.flags.c_contiguous:
        expected = f"float32 (N, {', '.join(map(str, SAMPLE_SHAPE))}) in C order"
        raise UserError(f"{data_path}: {data.dtype} {data.shape}, not {expected}; prepare the data again")
    if stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise UserError(f"{num_frame_path}: {stored.dtype} {stored.shape}, not integers (N,)")
    if not len(data) == len(stored) == len(labels):
        counts = f"{len(data)} clips, {len(stored)} frame counts, {len(labels)} labels"
        raise UserError(f"{folder}: {part} has {counts}; prepare the data again")
    if not labels:
        raise UserError(f"{folder}: {part} has no samples; check the raw data and prepare the data again")
    num_frame = np.array(stored, np.int64)
    for row in np.flatnonzero(num_frame < 1):
        if num_frame[row] < 0 or data[row].any():
            reason = f"sample {row} has {num_frame[row]} frames"
            raise UserError(f"{num_frame_path}: {reason}; prepare the data again")
    found = {"above 300 are read as 300": num_frame > MAX_FRAMES, "of 0 are read as 1": num_frame == 0}
    counts = {what: f"{rows.sum()} of {len(rows)}" for what, rows in found.items() if rows.any()}
    notes = [f"{num_frame_path}: frame counts {what}: {count}" for what, count in counts.items()]
    return Split(data, num_frame.clip(1, MAX_FRAMES), names, labels, notes)


def _open(path: Path) -> np.memmap:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise almost any error
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a complete .npy array ({reason}); prepare the data again") from None


def load_labels(path: Path) -> tuple[list[str], list[int]]:
    """Return (names, labels) of a pickle of two lists or arrays; labels may be integer-valued floats.

    Raise `UserError` if the pickle is damaged, would run code, or contains something else.
    """
    try:
        names, labels = load_plain(path)
        names = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names]
        numbers = [int(label) for label in labels]
        if numbers != list(labels) or min(numbers, default=0) < 0 or max(numbers, default=0) >= 2**31:
            raise ValueError("labels are not class numbers from 0")
        if len(names) != len(numbers):
            raise ValueError(f"{len(names)} names but {len(numbers)} labels")
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not names and labels: {error}; prepare the data again") from None
    return names, numbers


@contextlib.contextmanager
def write_splits(root: str | Path, benchmarks: Iterable[str]) -> Iterator["SplitWriter"]:
    """Yield a writer of new splits, which replace ROOT/{benchmarks} at the end of the `with` block.

    If the block raises an error, the older folders stay. Otherwise they are removed with everything in them.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex[:8]
    # a folder may be a link to another disk, within which the new one must be renamed
    folders = {name: Path(root, name).resolve() for name in benchmarks}
    temporary = {name: folder.with_name(f"{folder.name}.tmp-{token}") for name, folder in folders.items()}
    for folder in folders.values():
        _clean_up(folder)
    try:
        with contextlib.ExitStack() as files:
            writer = SplitWriter(temporary, files)
            yield writer
            writer.finish()
        os.sync()  # a power failure must not leave empty files either
        for name, folder in folders.items():
            if folder.exists():
                os.rename(folder, folder.with_name(f"{folder.name}.old-{token}"))
            os.rename(temporary[name], folder)
    except OSError as error:  # that of a full disk has no path
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(root)) from None
    finally:
        for folder in folders.values():
            _clean_up(folder)


class SplitWriter:
    """Append samples to new splits; see `write_splits`.

    Samples are written to a file: through a memmap, a full disk would kill the process with SIGBUS.
    """

    def __init__(self, folders: Mapping[str, Path], files: contextlib.ExitStack) -> None:
        # (benchmark, part) -> name, label and number of frames of each sample; the file of samples
        self.rows: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
        self.files: dict[tuple[str, str], BinaryIO] = {}
        for benchmark, folder in folders.items():
            folder.mkdir()
            for part in PARTS:
                self.rows[benchmark, part] = []
                self.files[benchmark, part] = files.enter_context(open(path_of(folder, part, DATA), "xb"))
                _write_header(self.files[benchmark, part], 0)

    def add(
        self, parts: Mapping[str, str], name: str, label: int, num_frame: int, sample: np.ndarray
    ) -> None:
        """Append a sample (3, 300, 25, 2) to "train" or "val" of each benchmark in `parts`.

        Raises:
            ValueError: the shape, the number of frames (1..300) or the label (from 0) is wrong.
        """
        if sample.shape != SAMPLE_SHAPE or not 1 <= num_frame <= MAX_FRAMES or label < 0:
            raise ValueError(f"{name}: sample {sample.shape}, num_frame {num_frame}, label {label}")
        for key in parts.items():
            self.files[key].write(np.ascontiguousarray(sample, np.float32).data)
            self.rows[key].append((name, label, num_frame))

    def finish(self) -> None:
        """Complete the headers and write the other files."""
        for key, rows in self.rows.items():
            _write_header(self.files[key], len(rows))
            folder, part = Path(self.files[key].name).parent, key[1]
            names, labels, num_frames = ([row[column] for row in rows] for column in range(3))
            np.save(path_of(folder, part, NUM_FRAME), np.array(num_frames, np.int64))
            path_of(folder, part, LABEL).write_bytes(pickle.dumps((names, labels), protocol=4))


def _write_header(file: BinaryIO, num_samples: int) -> None:
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_samples, *SAMPLE_SHAPE)}
    np.lib.format.write_array_header_1_0(file, header)  # the same length for any number of samples


HEX = 8 * "[0-9a-f]"  # after the names of temporary folders


def _clean_up(folder: Path) -> None:
    """Remove what a run left next to `folder`; restore the old folder if it was not replaced."""
    for old in folder.parent.glob(f"{folder.name}.old-{HEX}"):
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, folder)
    for temporary in folder.parent.glob(f"{folder.name}.tmp-{HEX}"):
        shutil.rmtree(temporary)
