"""One folder per run: options and results as text, JSON lines and TensorBoard events."""

import contextlib
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml

from engine.files import write_text
from feeder.cli import UserError

ROOT = Path(__file__).resolve().parent.parent
# TensorBoard groups scalars by the part before the slash.
TAGS = {
    "acc1": "accuracy/acc1",
    "acc5": "accuracy/acc5",
    "lr": "training/lr",
    "seconds": "training/seconds_per_epoch",
    "samples_per_second": "training/samples_per_second",
    "loss": "loss/total",
    "peak_gib": "training/peak_gib",
}


class Run(NamedTuple):
    """Task and data of a run."""

    task: str  # pretraining, linear, finetune, supervised, retrieval
    data_set: str
    protocol: str
    stream: str


class RunLog:
    """The folder of a run.

    log.txt has the printed lines and the error that ended the run, options.yaml all options with command line, commit and
    versions, metrics.jsonl one line per epoch and a last line with the result; TensorBoard's events are next to them. On a
    full disk, the run prints one line on standard error and continues without its log.

    A new folder in `log_dir` is named after the run. With the `folder` of an earlier run the log continues there from
    `start_epoch`: lines of this epoch and of later ones are removed. Only the log of the main process is `enabled`.
    """

    def __init__(
        self,
        log_dir: str,
        run: Run,
        options: Namespace,
        folder: Path | None = None,
        start_epoch: int = 0,
        enabled: bool = True,
    ) -> None:
        self.enabled, self._failed, self.folder = enabled, False, folder or Path(os.devnull)
        if not enabled:
            return
        try:
            import PIL  # noqa: F401  Pillow, of the images, comes with tensorboard
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed here
        except ImportError as error:
            raise UserError(f"{error.name} is not installed: pip install -r requirements.txt") from None
        threading.excepthook = _hide_os_errors
        if folder:
            self._drop_epochs(start_epoch)
        else:
            self.folder = _new_folder(Path(log_dir) / f"{'_'.join(run)}_{time.strftime('%Y%m%d-%H%M%S')}")
        record = {"run": run._asdict()} | environment() | {"options": vars(options)}
        if (
            "checkpoint_path" in options
        ):  # a resumed run continues this log if its checkpoint is still in this folder
            record["checkpoint_folder"] = str(Path(options.checkpoint_path).resolve())
        path = next(path for path in _numbered(self.folder / "options.yaml") if not path.exists())
        path.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")
        self._text = open(self.folder / "log.txt", "a", buffering=1, encoding="utf-8")
        self.events = SummaryWriter(str(self.folder), purge_step=start_epoch or None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _traceback: object) -> None:
        if not self.enabled:
            return
        with self._or_continue():
            self._text.write(f"stopped: {error or kind.__name__}\n" if kind else "")
        for close in (self.events.close, self._text.close):
            with self._or_continue():
                close()

    def print(self, line: str) -> None:
        """Print a line and add it to log.txt."""
        if self.enabled:
            print(line, flush=True)
            with self._or_continue():
                self._text.write(line + "\n")

    def metrics(self, epoch: int | None = None, /, **figures: float | str) -> None:
        """Record the figures of an epoch, or of the whole run if no epoch is given."""
        if not self.enabled:
            return
        record = figures if epoch is None else {"epoch": epoch, **figures}
        with self._or_continue(), open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        with self._or_continue():
            for name, value in figures.items() if epoch is not None else ():
                self.events.add_scalar(_tag(name), value, epoch)

    def image(self, name: str, pixels: np.ndarray) -> None:
        """Add an image (height, width, 3) uint8 to TensorBoard."""
        if self.enabled:
            with self._or_continue():
                self.events.add_image(name, pixels, dataformats="HWC")

    @contextlib.contextmanager
    def _or_continue(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._failed:
                problem = f"cannot write the log in {self.folder} ({error.strerror or error})"
                print(f"warning: {problem}: continuing", file=sys.stderr)
            self._failed = True

    def _drop_epochs(self, start_epoch: int) -> None:
        """Remove lines of metrics.jsonl from an epoch on, and a line that is truncated."""
        path, kept = self.folder / "metrics.jsonl", []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                kept += [line] if json.loads(line)["epoch"] < start_epoch else []
        write_text(path, "".join(f"{line}\n" for line in kept))


def environment() -> dict:
    """Return what a result depends on in addition to the options: command line, commit, versions, machine."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]).encode(errors="replace").decode(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs{gpu}",
    }


def _git(*command: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *command], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _tag(name: str) -> str:
    """Return TensorBoard's tag of a figure: "acc1" is "accuracy/acc1", "bone/acc1" is "accuracy/bone/acc1"."""
    *prefix, last = name.split("/")
    group, *leaf = TAGS.get(last, last).split("/")
    return "/".join([group, *prefix, *leaf]) if leaf else name


def _numbered(path: Path) -> Iterator[Path]:
    """Yield path, path-2, path-3, ..."""
    yield path
    yield from (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in itertools.count(2))


def _new_folder(path: Path) -> Path:
    """Create the first numbered folder that does not exist; safe if runs start at the same time."""
    for folder in _numbered(path):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def _hide_os_errors(args: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread, except TensorBoard's on a full disk, which the next write raises again."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)
