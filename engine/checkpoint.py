"""Checkpoints: saved atomically, loaded without running code, resumed only by the run that wrote them."""

import contextlib
import fcntl
import os
import pickle
import socket
import struct
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.runlog import Previous, Run
from feeder.cli import UserError
from model.reference import from_reference, is_reference, momentum_from_reference
from options.flags import INCIDENTAL, SIZES, as_flag

NAME = "checkpoint.pth.tar"
BEST = "model_best.pth.tar"  # of the epoch that is best on the test set
# Options that a resumed run cannot change. Other changes are reported if they may affect the result.
IDENTITY = (
    "pairs",
    "no_masks",
    "label_fraction",
    "encoder_k",
    "encoder_m",
    "encoder_t",
    "encoder_dim",
    *SIZES,
)


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint atomically; if that fails, raise `UserError` and keep the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # on a full disk torch's message is a line of its source code
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise UserError(f"cannot write {path} ({reason}); an existing checkpoint is unchanged") from None


@contextlib.contextmanager
def restoring(path: str | Path | None) -> Iterator[None]:
    """Turn an error in reading or restoring a checkpoint into a one-line `UserError` with its path."""
    damaged = (LookupError, TypeError, ValueError, RuntimeError, EOFError, OSError, struct.error)
    try:
        yield
    except pickle.UnpicklingError:  # torch's message suggests running the code in the file
        problem = "is damaged, or has more than tensors and plain types and could run code"
        remedy = "nothing was loaded; save {'state_dict': model.state_dict()} instead"
        raise UserError(f"{path} {problem}: {remedy}") from None
    except torch.OutOfMemoryError:
        raise
    except (*damaged, zipfile.BadZipFile) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or repr(error)
        raise UserError(f"{path} is damaged or does not fit: {reason[:200]}") from None


def load_checkpoint(path: str | Path) -> dict:
    """Load a checkpoint onto the CPU; its `state_dict` has our names.

    Accept our checkpoints, the reference's, a bare state dict and one under "model", including those of
    compiled or parallel models. The state dict of the reference is kept as `reference`, because its optimiser
    numbers the parameters in its order.

    Raises:
        UserError: there is no checkpoint at `path`, it is damaged, or loading it would run code.
    """
    path = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: set the path of the file, or of the folder of {NAME}")
    with restoring(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles that are not checkpoints: an error follows
        if zipfile.is_zipfile(path):  # torch does not verify checksums
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"wrong checksum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, not a dict")
        named = content.get("state_dict", content.get("model", content))
        if not isinstance(named, dict) or not named or not all(isinstance(x, Tensor) for x in named.values()):
            raise ValueError("it has no 'state_dict' of tensors")
        state_dict = {_plain_name(name): tensor for name, tensor in named.items()}
        checkpoint = {} if named is content else content
        if is_reference(state_dict):
            return checkpoint | {"state_dict": from_reference(state_dict), "reference": state_dict}
        return checkpoint | {"state_dict": state_dict}


def _plain_name(name: str) -> str:
    """Return a parameter's name without what DistributedDataParallel and torch.compile insert."""
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


def find_previous(run: Run, args: Namespace, name: str = "", replaceable: bool = False) -> Previous:
    """Return what --resume continues in the folder `name` of --checkpoint-path.

    Raises:
        UserError: the checkpoint belongs to another run, or --checkpoint-path has one that would be
            overwritten; if `replaceable`, one of the same task may be overwritten.
    """
    own = Path(args.checkpoint_path, name, NAME)
    folder, start = str(Path(args.checkpoint_path).resolve()), {"epoch": args.start_epoch}
    path = None if args.resume is None else own if args.resume == "auto" else Path(args.resume)
    path = path / NAME if path and path.is_dir() else path
    if own.exists() and (path is None or path.resolve() != own.resolve()):
        if not replaceable or load_checkpoint(own).get("run", [None])[0] != run.task:
            remedy = "another --checkpoint-path starts a new run, --resume auto continues a single one"
            raise UserError(f"{own} exists: {remedy}")
    if path is None or (args.resume == "auto" and not own.exists()):
        return Previous(start, folder=folder)
    checkpoint = load_checkpoint(path)
    if checkpoint.get("best_on_test"):
        raise UserError(f"{path} has no state of the optimiser and cannot be resumed; resume {NAME}")
    if "run" not in checkpoint:  # not ours
        return Previous(start | checkpoint, path, folder=folder)
    with restoring(path):
        notes = _compare(checkpoint, path, run, args)
        here = checkpoint["folder"] == str(path.resolve().parent) == folder
        log_folder = Path(checkpoint["log_folder"])
    return Previous(checkpoint, path, log_folder if here and log_folder.is_dir() else None, notes, folder)


def _compare(checkpoint: dict, path: Path, run: Run, args: Namespace) -> tuple[str, ...]:
    """Return a line for each changed option; raise `UserError` if the checkpoint belongs to another run."""
    before, now, differences = checkpoint["options"], vars(args), []
    if checkpoint["run"] != list(run):
        differences.append(f"{' '.join(checkpoint['run'])}, not {' '.join(run)}")
    if args.seed not in (None, checkpoint["seed"]):
        differences.append(f"--seed {checkpoint['seed']}, not {args.seed}")
    changed = {name: as_flag(name, value) for name, value in now.items() if before.get(name, value) != value}
    for name in changed.keys() & IDENTITY:
        differences.append(f"{as_flag(name, before[name])}, not {changed[name]}")
    if differences:
        remedy = "repeat the flags of that run to continue it, or choose another --checkpoint-path"
        raise UserError(f"{path} belongs to another run: {'; '.join(differences)}; {remedy}")
    if checkpoint.get("step") and "batch_size" in changed:
        where = f"{path} is at step {checkpoint['step']} of an epoch"
        remedy = f"resume with --batch-size {before['batch_size']} to the end of the epoch"
        raise UserError(f"{where}: {remedy}")
    reported = [name for name in changed if name not in INCIDENTAL]
    return tuple(f"note: resumed with {changed[name]}, was {before[name]}" for name in reported)


def lock_folder(folder: str | Path) -> TextIO:
    """Create a folder and lock it until the returned file is closed; raise `UserError` if it is locked."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = open(Path(folder, ".lock"), "a+", encoding="utf-8")
    file.seek(0)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
    except (BlockingIOError, PermissionError):
        remedy = "stop it or choose another --checkpoint-path"
        raise UserError(f"{folder} is used by another run ({file.read().strip()}): {remedy}") from None
    file.truncate(0)
    print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
    return file


def restore_optimizer(optimizer: Optimizer, module: nn.Module, checkpoint: dict) -> None:
    """Load the momentum buffers of a checkpoint; learning rate and weight decay remain those of this run."""
    if "reference" in checkpoint:
        momentum = momentum_from_reference(checkpoint["reference"], checkpoint.get("optimizer", {}))
        for name, parameter in module.named_parameters():
            if name in momentum:
                optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter)
    elif "optimizer" in checkpoint:
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": checkpoint["optimizer"]["state"], "param_groups": groups})
        if any(state["momentum_buffer"].shape != p.shape for p, state in optimizer.state.items()):
            raise ValueError("the momentum of its optimiser does not match the parameters")
