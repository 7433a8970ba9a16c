"""Raw text files: ASCII text and positions in metres; errors name file, line and reason."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from feeder.cli import UserError

MAX_METRES = 1e6


def read_text(path: Path) -> str:
    """Return an ASCII file, decompressed if named .gz, without byte-order mark or trailing blank lines."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.removeprefix(b"\xef\xbb\xbf").decode("ascii").rstrip()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: not ASCII text") from None
    except (OSError, EOFError, zlib.error) as error:  # the last two are from damaged .gz files
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not text:
        raise UserError(f"{path}: line 1: the file is empty")
    if "\r" in text:  # from Windows
        text = text.replace("\r\n", "\n")
    return text.replace("_", "?")  # float() would accept 1_0


def parse_numbers(path: Path, line: int, words: list[str]) -> list[float]:
    """Return the numbers of a line of `read_text`."""
    try:
        return list(map(float, words))
    except ValueError as error:
        raise UserError(f"{path}: line {line}: {str(error)[:80]}") from None


def read_positions(path: Path, lines: list[str], blocks: list[range], columns: int, width: int) -> np.ndarray:
    """Return the first `columns` numbers, in metres, of each line in blocks of lines of a file, (N, columns).

    The lines must have `width` numbers.
    """
    rows: list[str] = []
    for block in blocks:
        rows += lines[block.start : block.stop]
    used = sorted({*range(columns), width - 1})  # the last one only shows that the line is complete
    try:
        positions = np.loadtxt(rows, comments=None, usecols=used, ndmin=2)[:, :columns]
        if len(positions) == len(rows) and np.abs(positions).max() <= MAX_METRES:
            return positions
    except ValueError:
        pass
    # find the line that is wrong
    for number in (number for block in blocks for number in block):
        words = lines[number].split()
        if len(words) < width:
            raise UserError(f"{path}: line {number + 1}: {len(words)} numbers, expected {width}")
        for value in parse_numbers(path, number + 1, [words[column] for column in used])[:columns]:
            if not abs(value) <= MAX_METRES:
                raise UserError(f"{path}: line {number + 1}: {value:g} is not a position in metres")
    raise UserError(f"{path}: numbers are separated by something other than blanks")
