"""One folder per run: options and results as text, JSON lines and TensorBoard events."""

import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from engine.results import RESULT
from feeder.cli import UserError

ROOT = Path(__file__).resolve().parent.parent


class Run(NamedTuple):
    """Task and data of a run."""

    task: str  # pretraining, linear, finetune, supervised, retrieval
    data_set: str
    protocol: str
    stream: str


class Previous(NamedTuple):
    """What a run continues; by default, nothing."""

    checkpoint: dict[str, Any] = {"epoch": 0}  # has at least "epoch", where the run starts
    path: Path | None = None
    log_folder: Path | None = None  # if the checkpoint is still in the folder that the run wrote it to
    notes: tuple[str, ...] = ()  # a line for each option that has changed
    folder: str | None = None  # of the checkpoints of the new run


NEW = Previous()


class RunLog:
    """The folder of a run, with what the run records about itself.

    log.txt has the printed lines, options.yaml all options with command line, commit and versions (a document
    for each start), metrics.jsonl a line for each epoch and, for an evaluation, a last line with the result;
    TensorBoard's events are next to them. `record` identifies the run; it is also in its checkpoints.

    Args:
        run: task and data; they and the time name a new folder in --log-dir.
        args: all options.
        record: what identifies the run besides its options: "seed", "setup", "data", "encoders".
        previous: what the run continues; lines of later epochs are removed from its log.
        enabled: whether to write; only the main process does.

    Raises:
        UserError: the run to continue has other data or encoders.
    """

    def __init__(
        self,
        run: Run,
        args: Namespace,
        record: dict[str, Any],
        previous: Previous = NEW,
        enabled: bool = True,
    ) -> None:
        self.run, self.enabled, self.folder = run, enabled, previous.log_folder or Path(os.devnull)
        if not enabled:
            return
        try:
            import PIL  # noqa: F401  Pillow, for the images, comes with tensorboard
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed here
        except ImportError as error:
            raise UserError(f"{error.name} is not installed: pip install -r requirements.txt") from None
        for name in ("data", "encoders"):
            if previous.checkpoint.get(name, record.get(name)) != record.get(name):
                remedy = "choose another --checkpoint-path, or omit --resume"
                raise UserError(f"{previous.path} was started with other {name}: {remedy}")
        start_epoch = previous.checkpoint["epoch"]
        if previous.log_folder:
            self._drop_epochs(start_epoch)
            (self.folder / RESULT).unlink(missing_ok=True)
        else:
            self.folder = _new_folder(Path(args.log_dir), "_".join(run))
        self.record = {"run": list(run), "options": vars(args), "log_folder": str(self.folder)} | record
        if previous.folder:
            self.record["folder"] = previous.folder
            self.record["changes"] = [*previous.checkpoint.get("changes", ()), *previous.notes]
        with open(self.folder / "options.yaml", "a", encoding="utf-8") as file:
            yaml.safe_dump(environment() | self.record, file, sort_keys=False, explicit_start=True)
        self._text = open(self.folder / "log.txt", "a", buffering=1, encoding="utf-8")
        self.events = SummaryWriter(str(self.folder), purge_step=start_epoch or None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _traceback: object) -> None:
        if self.enabled:
            self._text.write(f"stopped: {str(error) or kind.__name__}\n" if kind else "")
            self._text.close()
            self.events.close()

    def print(self, *lines: str) -> None:
        """Print lines and add them to log.txt."""
        if self.enabled:
            for line in lines:
                print(line, flush=True)
                self._text.write(line + "\n")

    def metrics(self, epoch: int | None = None, /, **figures: float | str) -> None:
        """Record the figures of an epoch, or of the whole run if no epoch is given."""
        if not self.enabled:
            return
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(figures if epoch is None else {"epoch": epoch, **figures}) + "\n")
        for name, value in figures.items() if epoch is not None else ():
            self.events.add_scalar(name if "/" in name else f"epoch/{name}", value, epoch)

    def _drop_epochs(self, start_epoch: int) -> None:
        """Remove the lines of metrics.jsonl from `start_epoch` on, and any truncated line."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        whole = [line for line in lines if line.startswith('{"epoch": ') and line.endswith("}")]
        path.write_text("".join(f"{line}\n" for line in whole if json.loads(line)["epoch"] < start_epoch))


def environment() -> dict:
    """Return what a result depends on in addition to the options: command line, commit, versions, machine."""
    commit = ""
    with contextlib.suppress(OSError):  # no git
        describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_initialized() else ""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]).encode(errors="replace").decode(),
        "git_commit": commit,
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs{gpu}",
    }


def _new_folder(log_dir: Path, name: str) -> Path:
    """Create a folder named after a run and the time; a second run in the same second waits for the next."""
    log_dir.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):
            (folder := log_dir / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}").mkdir()
            return folder
        time.sleep(0.1)
