"""Files that are at every moment the old one or the new one, whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


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
