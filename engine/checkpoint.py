"""Checkpoints: written aside and renamed, loaded without running what they hold, never half used."""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.files import written_aside
from feeder.cli import UserError
from model import Encoder
from model.reference import from_reference, is_reference, momentum_from_reference, sizes, strip_module

NAME = "checkpoint.pth.tar"
# Options of pre-training without which a figure of the encoder is not to be understood.
ORIGIN = ("pre_dataset", "protocol", "skeleton_representation", "pairs", "no_masks")


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write `checkpoint` so that `path` is at every moment the old file or the new one, whole.

    Args:
        path: the file.
        checkpoint: plain types and tensors only.

    Raises:
        UserError: it cannot be written (disk full, no permission); the old file is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; any older one is whole") from None


def load_checkpoint(path: str | Path) -> dict:
    """Return a checkpoint, ours or the reference's, on the CPU, its `state_dict` in our names.

    A reference's own state dict is kept as `reference`: its optimiser numbers the parameters in that order.

    Raises:
        UserError: there is none at `path`, or it is damaged, of another format, or would run code.
    """
    path = Path(path)
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; give the file, or the folder that has {NAME}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that is no checkpoint: the error below is the line to read
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own advice is to run what is in the file
        raise UserError(f"{path} is damaged, no checkpoint, or holds more than tensors and plain types, which could run code: "
                       "nothing was loaded; save its 'state_dict' alone") from None  # fmt: skip
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"{path} is damaged or no checkpoint: {_first_line(error)}") from None
    state_dict = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state_dict, dict) or not all(isinstance(t, Tensor) for t in state_dict.values()):
        raise UserError(f"{path} holds no 'state_dict' of tensors")
    state_dict = strip_module(state_dict)
    if not is_reference(state_dict):
        return checkpoint | {"state_dict": state_dict}
    try:
        return checkpoint | {"state_dict": from_reference(state_dict), "reference": state_dict}
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def find_checkpoint(resume: str | None, folder: str | Path) -> tuple[dict, Path | None]:
    """Return the checkpoint that --resume asks for and its path; ({}, None) where none is asked for or there is none yet.

    Args:
        resume: a path; "auto" is the one in `folder`, if there is one; None asks for none.
        folder: where the run keeps its checkpoint.

    Raises:
        UserError: see `load_checkpoint`.
    """
    if resume is None:
        return {}, None
    path = Path(folder) if resume == "auto" else Path(resume)
    path = path / NAME if resume == "auto" or path.is_dir() else path
    if resume == "auto" and not path.is_file():
        return {}, None
    return load_checkpoint(path), path


def check_run(checkpoint: dict, run: Sequence[str], options: dict[str, Any], path: Path | None) -> None:
    """Raise UserError where a checkpoint of ours is of another run: other data, task, stream, seed, or options of `ORIGIN`."""
    if "run" not in checkpoint:
        return
    instead = "give another --checkpoint-path, or leave --resume out"
    if checkpoint["run"] != list(run):
        raise UserError(f"{path} is of another run: {' '.join(checkpoint['run'])}, not {' '.join(run)}; {instead}")
    if options["seed"] not in (None, checkpoint["seed"]):
        raise UserError(f"{path} is of another run: --seed {checkpoint['seed']}, not {options['seed']}; {instead}")
    before = checkpoint["options"]
    for name in ORIGIN:
        if name in options and before.get(name, options[name]) != options[name]:
            raise UserError(f"{path} is of another run: {name} {before[name]}, not {options[name]}; {instead}")


def same_file(one: Path | None, other: Path) -> bool:
    """Return whether two paths, however they are spelled, are one file's."""
    return one is not None and one.resolve() == other.resolve()


def load_weights(module: nn.Module, state_dict: dict, path: str | Path) -> None:
    """Load all of `state_dict` into `module`, or nothing.

    Raises:
        UserError: a tensor is missing, surplus or of another shape; the message names the first.
    """
    own = module.state_dict()
    for name in [*own, *state_dict]:
        if name not in state_dict:
            raise UserError(f"{path} lacks {name}")
        if name not in own:
            raise UserError(f"{path} has {name}, which this model has not")
        if own[name].shape != state_dict[name].shape:
            raise UserError(f"{path}: {name} is {tuple(state_dict[name].shape)}, this model's {tuple(own[name].shape)}")
    module.load_state_dict(state_dict)


def restore_optimizer(optimizer: Optimizer, module: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Give the optimiser the state it had in a checkpoint of `load_checkpoint`; one without any leaves it fresh.

    Raises:
        UserError: the state is that of other parameters.
    """
    if "optimizer" not in checkpoint:
        return
    try:
        if "reference" not in checkpoint:
            # the state alone: momentum and weight decay are those of this run's flags, as its log says
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": checkpoint["optimizer"]["state"], "param_groups": groups})
            return
        momentum = momentum_from_reference(checkpoint["reference"], checkpoint["optimizer"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the optimiser's state does not fit: {_first_line(error)}") from None
    for name, parameter in module.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter)


def encoder_of(checkpoint: dict, path: str | Path, given: dict[str, int]) -> Encoder:
    """Return the (query) encoder of a checkpoint.

    Args:
        checkpoint: of `load_checkpoint`, of pre-training or a downstream task.
        path: where it was.
        given: sizes that the caller insists on. The heads are in no shape: those of a reference checkpoint are the paper's
            unless given.

    Raises:
        UserError: there is no encoder in it, or one of other sizes than those given.
    """
    state_dict = checkpoint["state_dict"]
    prefix = "encoder_q.encoder." if any(name.startswith("encoder_q.") for name in state_dict) else "encoder."
    weights = {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}
    try:
        told: dict[str, Any] = given | (remembered_sizes(checkpoint) or sizes(weights))
        for name, value in given.items():
            if told[name] != value:
                raise UserError(f"{path} has {name} {told[name]}, not {value}; leave the flag out")
        encoder = Encoder(**told)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: {_first_line(error)}") from None
    load_weights(encoder, weights, path)
    return encoder


def get_encoder(pretrained: str | Path | None, sizes: dict[str, Any]) -> tuple[Encoder, dict[str, Any]]:
    """Return the encoder of the checkpoint `pretrained` and how it was pre-trained; for None, a random one and {}.

    What a checkpoint of ours says of its pre-training are the options named in `ORIGIN`; another's says nothing.

    Raises:
        UserError: see `load_checkpoint` and `encoder_of`; or sizes that do not fit together.
    """
    if pretrained is not None:
        checkpoint = load_checkpoint(pretrained)
        options = checkpoint.get("options")
        told = {name: options[name] for name in ORIGIN if name in options} if isinstance(options, dict) else {}
        return encoder_of(checkpoint, pretrained, sizes), told
    try:
        return Encoder(**sizes), {}
    except ValueError as error:
        raise UserError(str(error)) from None


def remembered_sizes(checkpoint: dict) -> dict[str, int]:
    """Return the encoder's sizes that a checkpoint of ours remembers, none for another's."""
    remembered = checkpoint.get("sizes")
    return remembered.get("encoder", {}) if isinstance(remembered, dict) else {}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
