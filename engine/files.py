"""Files that are written atomically, and .npz archives that are read without running what they hold."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from feeder.cli import UserError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` at the end, once it is on disk; after an error `path` is unchanged.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a run that was killed
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)  # exists only after an error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays into an .npz file atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the arrays of these names; their checksums are verified.

    Raises:
        UserError: the file is missing or damaged, lacks one of them, or holds more than plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"{path} is damaged or lacks {', '.join(names)}: {' '.join(str(error).split())}") from None
