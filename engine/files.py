"""Files that are written atomically, and .npz archives that are read without running what they hold."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from feeder.cli import UserError


@contextlib.contextmanager
def written_aside(path: Path, suffix: str = ".tmp") -> Iterator[BinaryIO]:
    """Yield a file beside `path`, which takes that name in the end, when it is on the disk; after an error nothing has changed.

    Args:
        path: in a folder that is there.
        suffix: of the name until then; one of its own where several processes may write the same file at once.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(path.name + suffix)
    try:
        aside.unlink(missing_ok=True)  # left by a run that was killed
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)  # gone already where all went well; half a file where it did not


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, as `written_aside` does."""
    with written_aside(path) as file:
        file.write(text.encode())


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays so that `path` is at every moment absent, the old file or the new one, whole; its folder is made.

    Raises:
        OSError: it cannot be written; an older file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with written_aside(path, f".{uuid.uuid4().hex[:12]}.tmp") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def load_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the arrays of these names; each was checked against its checksum.

    Raises:
        UserError: the file is absent, damaged, lacks one of them or holds more than plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"{path} is damaged or no such file of ours: {' '.join(str(error).split())}") from None
