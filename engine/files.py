"""Files that are written atomically."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` once it is on disk; after an error `path` is unchanged."""
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
    """Write a UTF-8 text file atomically; text read with `errors="surrogateescape"` is written unchanged."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays into an .npz file atomically."""
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
