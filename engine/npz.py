"""Arrays on disk as .npz: written aside and renamed, read without running what they hold."""

import uuid
from pathlib import Path

import numpy as np

from engine.aside import written_aside
from feeder.cli import UserError


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
