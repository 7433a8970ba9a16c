"""Encoders and classifiers from checkpoints, random encoders, and the record of their origin."""

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoint import load_checkpoint, restoring
from engine.runlog import Run
from engine.training import seed_everything
from feeder.cli import UserError
from feeder.skeleton import NUM_JOINTS
from model import DownstreamModel, Encoder
from model.contrast import PAIRS
from model.reference import sizes
from options import flags

# An origin is a dict: "task" of the run that made the weights (or raw, random, reference, unknown), "digest"
# of the weights, and these entries of the record of that run.
ENTRIES = ("run", "epoch", "seed", "options", "setup", "encoders", "best_on_test", "stream")


def open_encoders(args: Namespace, seed: int) -> list[tuple[Encoder, dict[str, Any]]]:
    """Return the encoder of each stream and its origin; a random encoder is drawn from `seed`."""
    if args.pretrained:
        return [open_encoder(path, flags.given_sizes(args)) for path in args.pretrained]
    found = []
    for _ in args.finetune_skeleton_representation:
        seed_everything(seed)  # a random encoder does not depend on the other streams of the run
        try:
            encoder = Encoder(**flags.given_sizes(args))
        except ValueError as error:
            raise UserError(f"random encoder: {error}") from None
        found.append((encoder, {"task": "random", "seed": seed, "digest": _digest(encoder)}))
    return found


def open_encoder(path: str | Path, given: dict[str, int] | None = None) -> tuple[Encoder, dict[str, Any]]:
    """Return the (query) encoder of a checkpoint, on the CPU, and its origin.

    Args:
        path: checkpoint of pre-training or of a classifier, ours or the reference's, or its folder.
        given: sizes set by flags. If a checkpoint does not record its sizes, they are inferred from its
            shapes, except for num_head.

    Raises:
        UserError: the checkpoint is damaged, or does not fit the given sizes.
    """
    checkpoint = load_checkpoint(path)
    with restoring(path):
        encoder = _restore(checkpoint, given or {})
        return encoder, origin_of(checkpoint) | {"digest": _digest(encoder)}


def open_classifier(path: str | Path) -> tuple[DownstreamModel, dict[str, Any]]:
    """Return the network of a linear evaluation or of fine-tuning, on the CPU, and its origin.

    Raises:
        UserError: the checkpoint at `path` has no linear layer, or is not ours.
    """
    checkpoint = load_checkpoint(path)
    with restoring(path):
        if "fc.weight" not in checkpoint["state_dict"] or "run" not in checkpoint:
            raise ValueError("it is not a classifier of action_classification.py")
        model = DownstreamModel(_restore(checkpoint, {}), len(checkpoint["state_dict"]["fc.weight"]))
        model.load_state_dict(checkpoint["state_dict"])
        return model.eval(), origin_of(checkpoint)


def _restore(checkpoint: dict[str, Any], given: dict[str, int]) -> Encoder:
    weights = encoder_weights(checkpoint["state_dict"])
    found = given | (checkpoint.get("sizes", {}).get("encoder") or sizes(weights))
    for name, value in given.items():
        if found[name] != value:
            raise ValueError(f"it has {name} {found[name]}, not {value}: omit the flag")
    if found["joints"] != NUM_JOINTS:
        raise ValueError(f"it was trained on {found['joints']} joints, feeder/skeleton.py has {NUM_JOINTS}")
    encoder = Encoder(**found)
    encoder.load_state_dict(weights)
    if "num_head" not in found:
        heads = encoder.sizes["num_head"]
        print(f"note: the checkpoint does not record its number of heads: using --num-head {heads}")
    return encoder


def encoder_weights(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the (query) encoder's part of the state dict of a pre-trained network or of a classifier."""
    prefix = "encoder_q.encoder." if any(name.startswith("encoder_q.") for name in state_dict) else "encoder."
    return {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}


def _digest(encoder: Encoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def origin_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of the weights of a checkpoint, without their digest."""
    if "run" not in checkpoint:
        return {"task": "reference" if "reference" in checkpoint else "unknown"}
    return {"task": checkpoint["run"][0]} | {name: checkpoint[name] for name in ENTRIES if name in checkpoint}


def stream_of(origin: dict[str, Any]) -> str:
    """Return the stream that a network was trained on; joint for a network that is not ours."""
    return origin.get("stream") or origin.get("options", {}).get("skeleton_representation", "joint")


def describe_encoder(origin: dict[str, Any], run: Run, stream: str) -> str:
    """Return the origin of an encoder in words, and how it differs from the paper's for a run and stream."""
    task = origin["task"]
    if task == "linear":  # its encoder was frozen
        return describe_encoder(origin["encoders"][0], run, stream)
    verbs = {"pretraining": "pre-trained", "finetune": "fine-tuned", "supervised": "supervised"}
    if task in verbs:
        return ", ".join([f"{verbs[task]} on {origin['run'][1]}", *departures(origin, run, stream)])
    return "none (raw coordinates)" if task == "raw" else task  # random, reference, unknown


def departures(origin: dict[str, Any], run: Run, stream: str) -> list[str]:
    """Return how a training differs from the paper's for this run and stream, apart from its recipe."""
    options, found = origin["options"], []
    _, data_set, protocol, _ = origin["run"]
    if origin["epoch"] < options["epochs"] and not origin.get("best_on_test"):
        found.append(f"unfinished: epoch {origin['epoch']} of {options['epochs']}")
    same_recordings = {data_set, run.data_set} in ({run.data_set}, {"ntu60", "ntu120"})
    if same_recordings and protocol != run.protocol:
        found.append(f"{protocol}: may have seen test clips")
    if stream_of(origin) != stream:
        found.append(f"{stream_of(origin)} stream")
    if options.get("no_masks"):
        found.append("without masks")
    if set(options.get("pairs", PAIRS)) != set(PAIRS):
        found.append(f"pairs {' '.join(options['pairs'])}")
    return found


def as_published(origin: dict[str, Any], run: Run) -> bool:
    """Return whether an encoder is the paper's for the joint stream of this run, apart from its recipe."""
    if origin["task"] == "linear":
        return as_published(origin["encoders"][0], run)
    on_same = origin["task"] == "pretraining" and origin["run"][1] == run.data_set
    return on_same and not departures(origin, run, "joint")
