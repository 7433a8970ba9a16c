"""Checkpoints: written atomically, loaded without running code, rejected if any tensor does not match."""

import contextlib
import fcntl
import json
import os
import pickle
import socket
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.files import atomic_write
from feeder.cli import UserError
from feeder.skeleton import NUM_JOINTS
from model import Encoder
from model.reference import from_reference, is_reference, momentum_from_reference, sizes, strip_module

NAME = "checkpoint.pth.tar"
BEST = "model_best.pth.tar"  # of the epoch that is best on the test set
# Entries of a checkpoint and their types. A checkpoint with "run" is ours and has all of OURS.
ENTRIES: dict[str, type | tuple[type, ...]] = dict.fromkeys(("epoch", "step", "steps", "seed"), int)
ENTRIES |= dict.fromkeys(("options", "sizes", "optimizer", "meters"), dict) | dict.fromkeys(
    ("log_folder", "data"), str
)
ENTRIES |= {
    "run": list,
    "random": (list, dict),
    "best_acc1": (float, Tensor),
    "best_scores": (Tensor, type(None)),
}
OURS = ("epoch", "seed", "run", "options", "sizes", "optimizer", "random", "log_folder")
# Options that a resumed run cannot change, and options that change its result: changes of these are reported.
IDENTITY = (
    "pre_dataset",
    "finetune_dataset",
    "protocol",
    "skeleton_representation",
    "pairs",
    "no_masks",
    "label_fraction",
)
IDENTITY += ("encoder_k", "encoder_m", "encoder_t", "encoder_dim")
REPORTED = ("epochs", "batch_size", "lr", "schedule", "warmup_epochs", "warmup_lr", "cos", "momentum")
REPORTED += ("weight_decay", "precision", "sync_batchnorm")


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint of plain types and tensors atomically; on failure, raise UserError and keep the old file."""
    try:
        with atomic_write(path) as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:  # on a full disk torch's message is a line of its source code
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise UserError(f"cannot write {path} ({reason}); an existing checkpoint is unchanged") from None


def load_checkpoint(path: str | Path) -> dict:
    """Load a checkpoint, ours or the reference's, onto the CPU; its `state_dict` has our names.

    The reference's state dict is kept as `reference`, because its optimiser numbers the parameters in that order. Raise
    UserError if there is no checkpoint at `path`, if it is damaged or has another format, or if loading it would run code.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"no checkpoint at {path}: set the path of the file, or of the folder that contains {NAME}"
        )
    try:
        if zipfile.is_zipfile(path):  # torch does not verify checksums, nor read entries marked as folders
            with zipfile.ZipFile(path) as archive:
                folders = [entry.filename for entry in archive.infolist() if entry.external_attr & 0x10]
                if damaged := folders[0] if folders else archive.testzip():
                    raise ValueError(f"wrong checksum of {damaged}")
        else:
            with path.open("rb") as file:
                if file.read(1) != b"\x80":
                    raise ValueError(
                        f"it is neither a zip archive nor a pickle; set the path of a {NAME} or its folder"
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are not checkpoints: an error follows
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        _check_entries(checkpoint)
        state_dict = strip_module(checkpoint["state_dict"])
        if is_reference(state_dict):
            return checkpoint | {"state_dict": from_reference(state_dict), "reference": state_dict}
        return checkpoint | {"state_dict": state_dict}
    except pickle.UnpicklingError:  # torch's message suggests running the code in the file
        problem, remedy = (
            "could run code: nothing was loaded",
            "save {'state_dict': model.state_dict()} instead",
        )
        raise UserError(
            f"{path} is damaged, or has more than tensors and plain types, which {problem}; {remedy}"
        ) from None
    except Exception as error:  # a damaged file can raise almost any error
        raise UserError(f"{path} is damaged or not a checkpoint: {_first_line(error)}") from None


def _check_entries(checkpoint: Any) -> None:
    """Raise an error unless the entries of a checkpoint have the types that we write."""
    state_dict = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if (
        not isinstance(state_dict, dict)
        or not _all(str, [*state_dict])
        or not _all(Tensor, [*state_dict.values()])
    ):
        raise ValueError("it has no 'state_dict' of tensors")
    wrong = [
        name
        for name, kind in ENTRIES.items()
        if name in checkpoint and not isinstance(checkpoint[name], kind)
    ]
    wrong += [name for name in OURS if "run" in checkpoint and name not in checkpoint]
    if not wrong:
        options, sizes = (checkpoint.get(name, {}) for name in ("options", "sizes"))
        states = (
            list if checkpoint.get("run", [])[:1] == ["pretraining"] else dict
        )  # of each process, or of one
        json.dumps([options, sizes])  # ValueError or TypeError for anything but plain types
        fits = {
            **{name: checkpoint.get(name, 0) >= 0 for name in ("epoch", "step", "seed")},
            "run": "run" not in checkpoint or _all(str, checkpoint["run"]) and len(checkpoint["run"]) == 4,
            "options": _all(str, options.get("pairs", [])) and _all(str, options.get("changes", [])),
            "random": "run" not in checkpoint or isinstance(checkpoint["random"], states),
            "sizes": isinstance(sizes.get("encoder", {}), dict),
            "meters": all(
                _all((int, float), x) and len(x) == 3 for x in checkpoint.get("meters", {}).values()
            ),
        }
        wrong = [name for name, fit in fits.items() if not fit]
    if wrong:
        raise ValueError(f"wrong or missing entry {wrong[0]!r}")


def _all(kind: type | tuple[type, ...], values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def find_checkpoint(
    resume: str | None, folder: str | Path, replace: str | None = None
) -> tuple[dict, Path | None]:
    """Return the checkpoint to resume and its path, or ({}, None) to start a new run.

    `resume` is a path, "auto" for the checkpoint in `folder` if there is one, or None. `folder` is where the run keeps its
    checkpoint, and `replace` a task, such as "linear", whose earlier checkpoint there may be replaced.
    """
    own = Path(folder) / NAME
    path = None if resume is None else own if resume == "auto" else Path(resume)
    path = path / NAME if path and path.is_dir() else path
    other = own.exists() and (path is None or path.resolve() != own.resolve())
    if other and not (replace and load_checkpoint(own).get("run", [None])[0] == replace):
        raise UserError(
            f"{own} exists: another --checkpoint-path starts a new run, --resume auto continues a single one"
        )
    if path is None or (resume == "auto" and not own.exists()):
        return {}, None
    return load_checkpoint(path), path


def check_run(checkpoint: dict, run: Sequence[str], options: dict[str, Any], path: Path | None) -> list[str]:
    """Return a line for each option that changed since a checkpoint of ours; raise UserError if it belongs to another run."""
    if "run" not in checkpoint:
        return []
    before, differences = checkpoint["options"], []
    if checkpoint["run"] != list(run):
        differences.append(f"{' '.join(checkpoint['run'])}, not {' '.join(run)}")
    if options["seed"] not in (None, checkpoint["seed"]):
        differences.append(f"--seed {checkpoint['seed']}, not {options['seed']}")
    changed = [name for name, value in options.items() if before.get(name, value) != value]
    differences += [
        f"{_flag(name, before)}, not {_flag(name, options)}" for name in IDENTITY if name in changed
    ]
    if differences:
        remedy = "repeat the flags of that run to continue it, or choose another --checkpoint-path"
        raise UserError(f"{path} belongs to another run: {'; '.join(differences)}; {remedy}")
    if checkpoint.get("step") and "batch_size" in changed:
        where = f"{path} is at step {checkpoint['step']} of {checkpoint.get('steps')}, with --batch-size {before['batch_size']}"
        raise UserError(f"{where}: resume with the same --batch-size to the end of the epoch")
    return [
        f"note: resumed with {name} {options[name]}, was {before[name]}"
        for name in REPORTED
        if name in changed
    ]


def _flag(name: str, options: dict[str, Any]) -> str:
    """Return an option as on the command line."""
    value = options[name]
    return f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def resumed_log(checkpoint: dict, path: Path | None, folder: str | Path) -> Path | None:
    """Return the log folder that a resumed run continues, or None for a new one; its options.yaml must name `folder`."""
    if path is None or path.resolve().parent != Path(folder).resolve() or "log_folder" not in checkpoint:
        return None
    log_folder = Path(checkpoint["log_folder"])
    try:
        record = yaml.safe_load((log_folder / "options.yaml").read_text(encoding="utf-8"))
        bound = Path(record["checkpoint_folder"]) == Path(folder).resolve()
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None
    return log_folder if bound else None


def lock_folder(folder: str | Path) -> TextIO:
    """Create a checkpoint folder and lock it until the returned file is closed; raise UserError if another run has locked it.

    Unlike with `flock`, workers that outlive a killed run do not hold the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # do not follow a link named .lock, whose target would be overwritten
    file = open(
        os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+", encoding="utf-8"
    )
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = file.read().strip()
        raise UserError(
            f"{folder} is used by another run ({holder}): stop it or choose another --checkpoint-path"
        ) from None
    except OSError:
        return file  # a file system without locks
    with contextlib.suppress(OSError):  # a full disk does not prevent the lock
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    return file


def load_weights(module: nn.Module, state_dict: dict, path: str | Path) -> None:
    """Load a state dict; raise UserError for the first tensor that does not match, and leave the module unchanged."""
    own = module.state_dict()
    for name in [*own, *state_dict]:
        if name not in state_dict:
            raise UserError(f"{path} has no tensor {name}")
        if name not in own:
            raise UserError(f"{path} has tensor {name}, which this model does not have")
        if own[name].shape != state_dict[name].shape:
            raise UserError(
                f"{path}: {name} is {tuple(state_dict[name].shape)}, in this model {tuple(own[name].shape)}"
            )
    module.load_state_dict(state_dict)


def restore_optimizer(optimizer: Optimizer, module: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Load the optimiser state, if the checkpoint has one; raise UserError if it does not match the parameters."""
    try:
        if "reference" in checkpoint:
            momentum = momentum_from_reference(checkpoint["reference"], checkpoint.get("optimizer", {}))
            for name, parameter in module.named_parameters():
                if name in momentum:
                    optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter)
        elif "optimizer" in checkpoint:
            # only the state: learning rate, momentum and weight decay are options of this run
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": checkpoint["optimizer"]["state"], "param_groups": groups})
            for parameter, state in optimizer.state.items():
                if state["momentum_buffer"].shape != parameter.shape:
                    raise ValueError(f"momentum of shape {tuple(state['momentum_buffer'].shape)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the optimiser state does not match: {_first_line(error)}") from None


def get_encoder(pretrained: str | Path | None, given: dict[str, Any]) -> tuple[Encoder, dict[str, Any]]:
    """Return the (query) encoder of a checkpoint, or a random one, and its origin.

    Args:
        pretrained: a checkpoint of pre-training or of a downstream task; None for a random encoder.
        given: sizes set by flags. num_head cannot be read from the weights; the default is used if the checkpoint does not
            record it.

    Returns:
        The encoder, and the options of the run that made it, with its "task" and the "epoch" it has reached; {"task":
        "reference"} for a checkpoint of the reference, {} for a random encoder or one of unknown origin.
    """
    checkpoint = load_checkpoint(pretrained) if pretrained is not None else {"state_dict": {}}
    state_dict = checkpoint["state_dict"]
    prefix = "encoder_q.encoder." if any(name.startswith("encoder_q.") for name in state_dict) else "encoder."
    weights = {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}
    try:
        found = (
            given
            if pretrained is None
            else given | (checkpoint.get("sizes", {}).get("encoder") or sizes(weights))
        )
        for name, value in given.items():
            if found[name] != value:
                raise ValueError(f"it has {name} {found[name]}, not {value}: omit the flag")
        if found.get("joints", NUM_JOINTS) != NUM_JOINTS:
            raise ValueError(
                f"it was trained on {found['joints']} joints, feeder/skeleton.py has {NUM_JOINTS}"
            )
        encoder = Encoder(**found)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{pretrained or 'random encoder'}: {_first_line(error)}") from None
    if pretrained is None:
        return encoder, {}
    load_weights(encoder, weights, pretrained)
    if "num_head" not in found:
        heads = encoder.sizes["num_head"]
        print(
            f"note: {pretrained} does not record the number of heads: using {heads} (set it with --num-head)"
        )
    if "run" in checkpoint:
        trained = {"data": checkpoint.get("data"), "epoch": checkpoint["epoch"], "task": checkpoint["run"][0]}
        return encoder, checkpoint["options"] | trained
    return encoder, {"task": "reference"} if "reference" in checkpoint else {}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
