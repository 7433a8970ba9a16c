"""Raw text files: checked text and strictly parsed numbers; errors name file, line and reason."""

import gzip
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feeder.cli import UserError

MAX_METRES = 1e6
MAX_MIB = 128  # the longest video of PKU-MMD, some 7,000 frames, takes 10


def read_text(path: Path) -> str:
    """Return an ASCII file without blank lines at its end; a byte-order mark and CR LF line ends are accepted.

    A file named .gz is decompressed.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file")  # opening a FIFO or a device could block
        if status.st_size > MAX_MIB * 2**20:
            raise UserError(f"{path}: larger than {MAX_MIB} MiB: not a file of this data set")
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:  # EOFError, zlib.error and BadGzipFile have no strerror
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    raw = raw.removeprefix(b"\xef\xbb\xbf").rstrip().replace(b"_", b"?")  # float() would accept 1_0
    if not raw:
        raise UserError(f"{path}: line 1: the file is empty")
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: line {raw.count(10, 0, error.start) + 1}: not ASCII text") from None


def parse_numbers(path: Path, line: int, words: list[str]) -> list[float]:
    """Return the numbers of a line of `read_text`."""
    try:
        return list(map(float, words))
    except ValueError as error:
        raise UserError(f"{path}: line {line}: {str(error)[:80]}") from None


def check_positions(path: Path, positions: np.ndarray, lines: Sequence[int]) -> None:
    """Raise `UserError` if a position, in metres and from line lines[row], is not finite or exceeds `MAX_METRES`."""
    if (
        positions.size and not -MAX_METRES <= positions.min() <= positions.max() <= MAX_METRES
    ):  # false for NaN too
        row, column = np.argwhere(~(np.abs(positions) <= MAX_METRES))[0]
        raise UserError(f"{path}: line {lines[row]}: {positions[row, column]:g} is not a position in metres")
