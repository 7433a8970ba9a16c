"""Raw text files: ASCII text and coordinates; errors name file, line and reason."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feeder.cli import UserError

LIMIT = 1e6  # of a coordinate, whatever its unit


def read_text(path: Path) -> str:
    """Return an ASCII file, decompressed if named .gz, without byte-order mark or trailing blank lines."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.removeprefix(b"\xef\xbb\xbf").decode("ascii").rstrip()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: not ASCII text") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not text:
        raise UserError(f"{path}: line 1: the file is empty")
    if "\r" in text:  # from Windows; the search for two letters takes longer
        text = text.replace("\r\n", "\n")
    return text.replace("_", "?")  # float() would accept 1_0


def read_positions(
    path: Path, lines: list[str], blocks: Sequence[range], width: int, columns: int | None = None
) -> np.ndarray:
    """Return the first `columns` of the `width` numbers in each line of blocks of a file, (N, columns)."""
    columns = columns or width
    rows = [row for block in blocks for row in lines[block.start : block.stop]]
    used = sorted({*range(columns), width - 1})  # the last one only shows that the line is complete
    try:
        positions = np.loadtxt(rows, comments=None, usecols=used, ndmin=2)[:, :columns]
        if len(positions) == len(rows) and np.abs(positions).max() <= LIMIT:
            return positions
    except ValueError:
        pass
    numbers = [number for block in blocks for number in block]
    number = next((at for at in numbers if not _is_complete(lines[at].split(), used)), numbers[0])
    found = f"expected {width} numbers, found {len(lines[number].split())}: {lines[number][:40]!r}"
    raise UserError(f"{path}: line {number + 1}: {found}")


def _is_complete(words: list[str], used: list[int]) -> bool:
    try:
        return all(abs(float(words[column])) <= LIMIT for column in used)
    except (IndexError, ValueError):
        return False
