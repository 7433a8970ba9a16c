"""The folder in which a run keeps its checkpoints: no other run beside it, how many are kept, when, and if the disk is full."""

import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from engine.checkpoint import NAME, same_file, save_checkpoint
from feeder.cli import UserError

LOCK = ".lock"
EARLIER = f"earlier_{NAME}"


class CheckpointFolder:
    """Keeps checkpoint.pth.tar and, if asked for, the last epochs' checkpoints beside it.

    Used as a context manager, it lets the folder go at the end; the system does that for a process that was killed.

    Args:
        path: the folder; made when first needed.
        writes: false in processes that leave the folder to another: they touch nothing.
        save_minutes: minutes from one saving to the next within an epoch.
        keep: epochs whose checkpoints are kept as checkpoint_EPOCH.pth.tar.
        stop_on_failure: whether a checkpoint that cannot be written ends the run; else it goes on and tries again in time.
    """

    def __init__(
        self,
        path: str | Path,
        writes: bool = True,
        save_minutes: float = float("inf"),
        keep: int = 0,
        stop_on_failure: bool = True,
    ):
        self.path, self.keep, self.stop_on_failure, self.writes = Path(path), keep, stop_on_failure, writes
        self._snapshot: Callable[[], dict] = dict
        self._report: Callable[[str], None] = print
        self._seconds, self._saved = 60 * save_minutes, time.monotonic()
        self._lock: TextIO | None = None

    def __enter__(self) -> "CheckpointFolder":
        if self.path.is_dir():
            self.claim()
        return self

    def __exit__(self, *_error) -> None:
        if self._lock is not None:
            self._lock.close()

    @property
    def file(self) -> Path:
        """The path of the latest checkpoint."""
        return self.path / NAME

    @property
    def due(self) -> bool:
        """Whether it is time to save within an epoch."""
        return self.writes and time.monotonic() - self._saved >= self._seconds

    def claim(self) -> None:
        """Make the folder if need be, and keep other runs out of it.

        The lock is the process's own: unlike `flock`'s it does not live on in workers that outlast a killed run. It does
        nothing on a file system without locks.

        Raises:
            UserError: another run has it.
        """
        if not self.writes or self._lock is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self._lock = open(self.path / LOCK, "a+")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            holder = lock.read().strip()
            raise UserError(f"{self.path} is another run's ({holder}): stop it or choose another --checkpoint-path") from None
        except OSError:
            pass
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()

    def connect(self, snapshot: Callable[[], dict], report: Callable[[str], None]) -> None:
        """Say what `save` writes and where it reports a failure.

        Args:
            snapshot: returns the checkpoint of the moment: plain types and tensors, `epoch` the number of epochs done. It is
                called in all processes.
            report: takes a line.
        """
        self._snapshot, self._report = snapshot, report

    def set_aside(self, resumed: Path | None, report: Callable[[str], None]) -> None:
        """Rename the checkpoint that stands here, unless it is the one that the run has resumed, and report that."""
        if self.writes and self.file.is_file() and not same_file(resumed, self.file):
            name = f"other_{NAME}" if same_file(resumed, self.path / EARLIER) else EARLIER
            earlier = self.file.replace(self.path / name)
            report(f"the checkpoint of an earlier run is now {earlier}: --resume with that path goes on with it")

    def save(self, epoch_done: bool = False, must: bool = False) -> None:
        """Write a checkpoint of this moment, whole or not at all.

        Args:
            epoch_done: it stands at the end of an epoch: one of those to keep.
            must: there is no later chance: a failure ends the run whatever `stop_on_failure` says.

        Raises:
            UserError: it cannot be written and the run is to end for that; the older checkpoint is untouched.
        """
        checkpoint = self._snapshot()
        if not self.writes:
            return
        self._saved = time.monotonic()
        try:
            save_checkpoint(self.file, checkpoint)
            if epoch_done and self.keep:
                self._keep(checkpoint["epoch"])
        except UserError as error:
            if self.stop_on_failure or must:
                raise
            self._report(f"{error}; going on")

    def _keep(self, epoch: int) -> None:
        """Give the latest checkpoint its epoch's name as well, and remove those of epochs too long ago."""
        named, aside = self.path / _name(epoch), self.path / (NAME + ".tmp")
        try:
            named.unlink(missing_ok=True)
            try:
                os.link(self.file, named)  # takes no room
            except OSError:  # a file system without hard links
                shutil.copyfile(self.file, aside)
                os.replace(aside, named)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise UserError(f"cannot write {named}: {error.strerror}; {self.file} is whole") from None
        # those of later epochs are not this run's
        mine = {number: path for path in self.path.iterdir() if (number := _epoch(path)) is not None and number <= epoch}
        for number in sorted(mine)[: -self.keep]:
            mine[number].unlink(missing_ok=True)


def _name(epoch: int) -> str:
    return NAME.replace(".", f"_{epoch:04d}.", 1)


def _epoch(path: Path) -> int | None:
    found = re.fullmatch(r"checkpoint_(\d+)\.pth\.tar", path.name)
    return int(found[1]) if found else None
