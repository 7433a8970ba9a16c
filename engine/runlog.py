"""One folder a run: what was asked, what came out, as text, TensorBoard events and one JSON line an epoch."""

import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from engine.files import save_npz, write_text

ROOT = Path(__file__).resolve().parent.parent
# TensorBoard puts scalars whose names begin alike side by side; the others stand there as they are named.
TAGS = {
    "acc1": "accuracy/acc1",
    "acc5": "accuracy/acc5",
    "lr": "training/lr",
    "seconds": "training/seconds_an_epoch",
    "samples_per_second": "training/samples_per_second",
    "loss": "loss/total",
}


class Run(NamedTuple):
    """What a run is about."""

    task: str  # pretraining, linear, finetune, supervised, retrieval
    data_set: str
    protocol: str
    stream: str


class RunLog:
    """The folder of a run.

    log.txt has what the script prints, options.yaml every option with the command line, commit and versions, metrics.jsonl a
    line an epoch and a last line with the result; TensorBoard's events lie beside them.

    Used as a context manager, it keeps the message of an error that ends the run.

    Args:
        log_dir: where the folder is made.
        run: what it is about; also the beginning of the folder's name.
        options: all options of the run.
        folder: an earlier folder of the same run to go on with; used where it still exists.
        start_epoch: with `folder`, epochs from here on are to be run again: their lines are dropped.
    """

    def __init__(self, log_dir: str, run: Run, options: Namespace, folder: str | None = None, start_epoch: int = 0):
        if folder and Path(folder).is_dir():
            self.folder = Path(folder)
            self._forget(start_epoch)
        else:
            self.folder = _new_folder(Path(log_dir), "_".join(run))
        record = {"run": run._asdict()} | environment() | {"options": vars(options)}
        _unused(self.folder / "options.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
        self._text = open(self.folder / "log.txt", "a", buffering=1)
        self._events = SummaryWriter(str(self.folder), purge_step=start_epoch or None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _traceback) -> None:
        if kind is not None:
            self._text.write(f"stopped: {error or kind.__name__}\n")
        self.close()

    def print(self, line: str) -> None:
        """Print a line and keep it in log.txt."""
        print(line, flush=True)
        self._text.write(line + "\n")

    def metrics(self, epoch: int | None = None, /, **figures: float | str) -> None:
        """Keep the figures of an epoch, or, without one, of the whole run, in metrics.jsonl and TensorBoard."""
        record = figures if epoch is None else {"epoch": epoch, **figures}
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        if epoch is not None:
            for name, value in figures.items():
                self._events.add_scalar(scalar_tag(name), value, epoch)

    def image(self, name: str, pixels: np.ndarray, epoch: int = 0) -> None:
        """Show a picture (height, width, 3) uint8 in TensorBoard."""
        self._events.add_image(name, pixels, epoch, dataformats="HWC")

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays into the folder, as `name`.npz.

        Raises:
            OSError: they cannot be written.
        """
        save_npz(self.folder / f"{name}.npz", **arrays)

    def close(self) -> None:
        """Flush and close the files."""
        self._events.close()
        self._text.close()

    def _forget(self, start_epoch: int) -> None:
        """Drop the lines of metrics.jsonl from an epoch on, and one that a kill cut short."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _epoch(line) < start_epoch))


def scalar_tag(name: str) -> str:
    """Return TensorBoard's name of a figure: "acc1" is "accuracy/acc1", "bone/acc1" "accuracy/bone/acc1"."""
    *prefix, last = name.split("/")
    group, *leaf = TAGS.get(last, last).split("/")
    return "/".join([group, *prefix, *leaf]) if leaf else name


class NoLog(RunLog):
    """The log of a process that leaves it to another: it prints and writes nothing."""

    def __init__(self) -> None:
        self.folder = Path(os.devnull)  # nothing can be written below it

    def __exit__(self, *_error) -> None:
        pass

    def print(self, line: str) -> None:
        """Do nothing."""

    def metrics(self, epoch: int | None = None, /, **figures: float | str) -> None:
        """Do nothing."""

    def image(self, name: str, pixels: np.ndarray, epoch: int = 0) -> None:
        """Do nothing."""

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def environment() -> dict:
    """Return what besides the options a result depends on: command line, commit, versions, machine."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
    }


def _epoch(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _new_folder(log_dir: Path, name: str) -> Path:
    folder = _unused(log_dir / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}")
    folder.mkdir(parents=True)
    return folder


def _unused(path: Path) -> Path:
    """Return `path`, or, where that exists, the first of path-2, path-3, ... that does not."""
    others = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())


def _git(*command: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
