"""The array files of a split, as the whole family of repositories reads them: written atomically, opened memmapped, checked.

FOLDER/{xsub,xview,xsetup}/{train,val}_data_joint.npy    float32 (N, 3, 300, 25, 2)
                                  ..._num_frame.npy      int64 (N,), frames before looping, 1..300
                                  ..._label.pkl          pickle of (names, labels), two lists of length N; labels from 0

Samples are written with pwrite, not through a memmap: on a full disk a memmap ends the process with SIGBUS instead of an
error, and every page that it touches counts as the process's memory.
"""

import contextlib
import os
import pickle
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.labels import load_labels
from feeder.skeleton import MAX_FRAMES, NUM_BODIES, NUM_JOINTS

try:
    import fcntl
except ImportError:  # no POSIX system: files are not locked
    fcntl = None  # type: ignore[assignment]

PARTS = ("train", "val")
SAMPLE_SHAPE = (3, MAX_FRAMES, NUM_JOINTS, NUM_BODIES)
SAMPLE_BYTES = 4 * 3 * MAX_FRAMES * NUM_JOINTS * NUM_BODIES
DATA, NUM_FRAME, LABEL = "data_joint.npy", "num_frame.npy", "label.pkl"
_HEADER_BYTES = 128
_TEMPORARY = ".tmp"


def path_of(folder: str | Path, part: str, kind: str) -> Path:
    """Return the path of one array file of a split; `kind` is `DATA`, `NUM_FRAME` or `LABEL`."""
    return Path(folder) / f"{part}_{kind}"


class Split(NamedTuple):
    """One part of a split, opened. `notes` holds a line for each thing that was put right while opening."""

    data: np.memmap  # (N, 3, 300, 25, 2) float32, read-only
    num_frame: np.ndarray  # (N,) int64, 1..300
    names: list[str]
    labels: list[int]
    notes: list[str]


def open_split(folder: str | Path, part: str) -> Split:
    """Return the arrays of `folder`'s part, the samples memmapped, after checks that cost next to nothing.

    Arrays of the sister repositories open as well: labels pickled under Python 2 or as whole-numbered floats, and frame
    counts above 300, as PKU-MMD scripts store them, which are clamped to 300 with a note.

    Args:
        folder: such as data/NTU-RGB-D-60-AGCN/xsub.
        part: "train" or "val".

    Raises:
        UserError: a file is absent, truncated, of another type or shape, or the three do not fit together.
    """
    paths = {kind: path_of(folder, part, kind) for kind in (DATA, NUM_FRAME, LABEL)}
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{path}: no such file; prepare the data with ntu_gendata.py or pku_gendata.py")
    data = _open_array(paths[DATA])
    if data.dtype != np.float32 or data.shape[1:] != SAMPLE_SHAPE or not data.flags.c_contiguous:
        expected = f"float32 (N, {str(SAMPLE_SHAPE)[1:]} in C order"
        raise UserError(f"{paths[DATA]}: {data.dtype} {data.shape}, not {expected}; prepare it again")
    num_frame, notes = _read_num_frame(paths[NUM_FRAME])
    names, labels = load_labels(paths[LABEL])
    lengths = {DATA: len(data), NUM_FRAME: len(num_frame), LABEL: len(labels)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} in {part}_{kind}" for kind, count in lengths.items())
        raise UserError(f"{folder}: numbers of samples differ: {counts}; prepare this split again")
    if not labels:
        raise UserError(f"{folder}: {part} holds no samples; prepare it from a folder that has some")
    return Split(data, num_frame, names, labels, notes)


def _open_array(path: Path) -> np.memmap:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise nearly anything
        raise UserError(f"{path}: no whole .npy array ({' '.join(str(error).split())}); prepare it again") from None
    expected = array.offset + array.nbytes
    if path.stat().st_size != expected:
        raise UserError(f"{path}: {path.stat().st_size} bytes, its header says {expected}; prepare it again")
    return array


def _read_num_frame(path: Path) -> tuple[np.ndarray, list[str]]:
    stored = _open_array(path)
    if stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise UserError(f"{path}: {stored.dtype} {stored.shape}, not integers (N,); store it so, or prepare it again")
    num_frame = np.array(stored, np.int64)
    if len(num_frame) and num_frame.min() < 1:
        row = int(num_frame.argmin())
        raise UserError(f"{path}: sample {row} has {num_frame[row]} frames; leave it out or prepare the data again")
    longer = int((num_frame > MAX_FRAMES).sum())
    notes = [f"{path}: {longer} frame counts above {MAX_FRAMES} are read as {MAX_FRAMES}"] if longer else []
    return num_frame.clip(max=MAX_FRAMES), notes


class SplitWriter:
    """Writes one part of a split under temporary names; nothing has its final name before `publish`.

    `write` may be called in any order and from several processes: a pickled or forked writer opens the file anew.
    The process that made the writer keeps its files locked until `discard`, so that no other run takes them for stale.
    """

    def __init__(self, folder: str | Path, part: str, num_samples: int) -> None:
        self.folder, self.part = Path(folder), part
        self._run = uuid.uuid4().hex[:12]
        self._file: BinaryIO | None = None
        self._locked: list[BinaryIO] = []
        with open(self._create(DATA), "wb") as file:
            file.write(_header(num_samples))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_locked": []}

    def final(self, kind: str) -> Path:
        """Return the path that the file of that kind gets in the end."""
        return path_of(self.folder, self.part, kind)

    def temporary(self, kind: str) -> Path:
        """Return the path of that file until then: no other run has the same."""
        final = self.final(kind)
        return final.with_name(f"{final.name}.{self._run}{_TEMPORARY}")

    def _create(self, kind: str) -> Path:
        """Return the path of the temporary file of that kind, now there, empty and locked."""
        path = self.temporary(kind)
        while True:
            file = open(path, "xb", buffering=0)
            _lock(file)
            if os.fstat(file.fileno()).st_nlink:
                break
            file.close()  # another run found it before it was locked, and removed it
        self._locked.append(file)
        return path

    def write(self, row: int, sample: np.ndarray) -> None:
        """Write a sample (3, 300, 25, 2) as row `row`."""
        self._write_bytes(_HEADER_BYTES + row * SAMPLE_BYTES, np.ascontiguousarray(sample, np.float32).data.cast("B"))

    def flush(self) -> None:
        """Wait until what has been written so far is on the disk."""
        _sync(self.temporary(DATA))

    def _write_bytes(self, offset: int, data: memoryview) -> None:
        file = self._file = self._file or open(self.temporary(DATA), "r+b", buffering=0)
        try:
            while data:
                written = os.pwrite(file.fileno(), data, offset)
                offset, data = offset + written, data[written:]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.final(DATA))) from None

    def finish(self, rows: list[int], names: list[str], labels: list[int], num_frame: list[int]) -> None:
        """Keep the given rows alone, in that (ascending) order, and write all else; the files are then on the disk.

        Args:
            rows: the rows that were written; the gaps between them are closed.
            names, labels, num_frame: of these rows.
        """
        self._close_gaps(rows)
        with open(self._create(NUM_FRAME), "wb") as file:
            np.save(file, np.array(num_frame, np.int64))
        with open(self._create(LABEL), "wb") as file:
            pickle.dump((names, labels), file, protocol=4)
        for kind in (DATA, NUM_FRAME, LABEL):
            _sync(self.temporary(kind))

    def _close_gaps(self, rows: list[int]) -> None:
        with open(self.temporary(DATA), "r+b", buffering=0) as file:
            for to, row in enumerate(rows):
                if to != row:
                    sample = os.pread(file.fileno(), SAMPLE_BYTES, _HEADER_BYTES + row * SAMPLE_BYTES)
                    self._write_bytes(_HEADER_BYTES + to * SAMPLE_BYTES, memoryview(sample))
            file.write(_header(len(rows)))
            file.truncate(_HEADER_BYTES + len(rows) * SAMPLE_BYTES)

    def close(self) -> None:
        """Close the files in this process.

        A forked worker begins with it: locks belong to the open files that it shares with its parent, and must not
        outlive the parent by as long as the worker takes to notice.
        """
        for file in (self._file, *self._locked):
            if file:
                file.close()
        self._file, self._locked = None, []

    def discard(self) -> None:
        """Remove what was written under temporary names."""
        for kind in (DATA, NUM_FRAME, LABEL):
            self.temporary(kind).unlink(missing_ok=True)
        self.close()


def publish(writers: Iterable[SplitWriter]) -> None:
    """Give all finished parts their final names.

    Labels go first where older arrays stand and come last, so that a run killed in between leaves splits that do not
    open, never ones that mix old and new. Of two runs that end at once the second waits for the first, and wins.
    """
    writers = list(writers)
    folders = sorted({writer.folder for writer in writers})
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_locked_folder(folder))
        for writer in writers:
            writer.final(LABEL).unlink(missing_ok=True)
        for kind in (DATA, NUM_FRAME, LABEL):
            for folder in folders:
                _sync(folder)
            for writer in writers:
                os.replace(writer.temporary(kind), writer.final(kind))
        for folder in folders:
            _sync(folder)


def remove_stale(folder: str | Path) -> None:
    """Remove what a killed run left in a split's folder under temporary names; what a living one holds stays."""
    for part in PARTS:
        for kind in (DATA, NUM_FRAME, LABEL):
            for path in Path(folder).glob(f"{part}_{kind}.*{_TEMPORARY}"):
                # held by another run, another user's, or removed by now
                with contextlib.suppress(BlockingIOError, PermissionError, FileNotFoundError), open(path, "r+b") as file:
                    _lock(file, wait=False)
                    path.unlink()


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _lock(file: BinaryIO | int, wait: bool = True) -> None:
    """Lock an open file, where the system can; the lock ends with the last process that has the file open, even if killed.

    Raises:
        BlockingIOError: another run holds it and `wait` is false.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks


def check_space(folder: str | Path, num_samples: int) -> None:
    """Raise `UserError` if the disk of `folder`, which exists, is too small for so many samples."""
    needed, free = num_samples * SAMPLE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; make room and start again")


def _header(num_samples: int) -> bytes:
    """Return a version 1.0 .npy header of fixed length, so that the number of samples may still change."""
    shape = (num_samples, *SAMPLE_SHAPE)
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    length = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # a disk may turn out to be full only now
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)
