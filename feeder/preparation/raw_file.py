"""Raw text files of both data sets, read as checked text, and lines of positions as arrays."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from feeder.cli import UserError

MAX_METRES = 1e6


def read_text(path: Path, max_bytes: int) -> str:
    """Return a text file without blank lines at its end; a byte-order mark and CR LF line ends are accepted.

    Raises:
        UserError: the file is empty, too large, not UTF-8, cannot be read, or is a FIFO or device, which could block.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file")
        if status.st_size > max_bytes:
            raise UserError(f"{path}: larger than {max_bytes >> 20} MiB: not a file of this data set")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    raw = raw.removeprefix(b"\xef\xbb\xbf").rstrip()
    if not raw:
        raise UserError(f"{path}: line 1: the file is empty")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: line {raw.count(10, 0, error.start) + 1}: bytes that are not text") from None


def read_positions(path: Path, lines: list[str], numbers: Iterable[int], columns: int, more: bool = False) -> np.ndarray:
    """Return the first `columns` numbers of each line, positions in metres: (len(lines), columns) float64.

    Args:
        path: the file, for errors.
        numbers: of the lines in that file, from 1.
        more: whether the lines may have more words, which are not looked at.

    Raises:
        UserError: a line has too few or too many words, or one that is not a position: file, line, reason.
    """
    if not lines:
        return np.empty((0, columns))
    try:
        values = np.loadtxt(lines, comments=None, ndmin=2, usecols=range(columns) if more else None)
    except ValueError:
        values = np.empty((0, 0))
    # if any number is NaN, so is the largest magnitude, and the comparison is false
    if values.shape == (len(lines), columns) and np.abs(values).max() <= MAX_METRES:
        return values
    # find the error; there is none if just a lone CR, which np.loadtxt refuses, is between two words
    rows = []
    for number, line in zip(numbers, lines, strict=True):
        words = line.split()[: columns if more else None]
        if len(words) != columns:
            raise UserError(f"{path}: line {number}: {len(words)} numbers, not {columns}")
        rows.append([])
        for word in words:
            rows[-1].append(parse_number(path, number, word))
            if not abs(rows[-1][-1]) <= MAX_METRES:
                raise UserError(f"{path}: line {number}: {word[:20]} is not a position in metres")
    return np.array(rows)


def parse_number(path: Path, line: int, word: str) -> float:
    """Return the number in a word; unlike `float`, refuse 1_0 and digits of other scripts."""
    try:
        return float(word.replace("_", "?") if word.isascii() else "?")
    except ValueError:
        raise UserError(f"{path}: line {line}: {word[:20]!r} is not a number") from None
