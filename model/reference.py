"""Conversion between state dicts of the reference implementation and ours, by name and shape.

Names differ, and layers of the reference that read the same input are one parameter of ours. Joining and
splitting only move values, so gradients and momentum buffers are converted by the same functions.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product

import torch
from torch import Tensor

from model.contrast import DOMAINS

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# How tensors of the reference become one of ours, and back.
JOINS: dict[str, tuple[Callable, Callable]] = {
    "one": (
        lambda parts: parts[0].clone(memory_format=torch.contiguous_format),
        lambda tensor, count: [tensor] * count,
    ),
    "cat": (torch.cat, torch.chunk),
    "stack0": (torch.stack, lambda tensor, _: tensor.unbind(0)),
    "stack1": (lambda parts: torch.stack(parts, dim=1), lambda tensor, _: tensor.unbind(1)),
    "relation": (
        lambda parts: torch.stack(parts).unflatten(0, (2, 3)),
        lambda tensor, _: tensor.flatten(0, 1).unbind(0),
    ),
}
# Our name, the reference's names, how they are joined. "*" is weight and bias or, for a BatchNorm
# ("bn"), all of `NORM`.
UNIT = (
    ("gcn.PA", ["gcn1.PA"], "one"),
    ("gcn.alpha", ["gcn1.alpha"], "one"),
    ("gcn.relation_*", [f"gcn1.convs.{k}.conv{j}.*" for j in (1, 2) for k in range(3)], "relation"),
    ("gcn.value_*", [f"gcn1.convs.{k}.conv3.*" for k in range(3)], "stack1"),
    ("gcn.topology_*", [f"gcn1.convs.{k}.conv4.*" for k in range(3)], "stack0"),
    ("gcn.bn.*", ["gcn1.bn.*"], "one"),
    ("gcn.down.*", ["gcn1.down.0.*"], "one"),
    ("gcn.down.bn.*", ["gcn1.down.1.*"], "one"),
    ("tcn.stem.*", [f"tcn1.branches.{b}.0.*" for b in range(4)], "cat"),
    ("tcn.stem.bn.*", [f"tcn1.branches.{b}.1.*" for b in range(4)], "cat"),
    ("tcn.conv1.*", ["tcn1.branches.0.3.conv.*"], "one"),
    ("tcn.conv2.*", ["tcn1.branches.1.3.conv.*"], "one"),
    ("tcn.bn1.*", ["tcn1.branches.0.3.bn.*"], "one"),
    ("tcn.bn2.*", ["tcn1.branches.1.3.bn.*"], "one"),
    ("tcn.bn3.*", ["tcn1.branches.2.4.*"], "one"),
    ("residual.*", ["residual.conv.*"], "one"),
    ("residual.bn.*", ["residual.bn.*"], "one"),
)
LAYER = ("self_attn.in_proj_*", "self_attn.out_proj.*", "linear1.*", "linear2.*", "norm1.*", "norm2.*")
Rule = tuple[str, list[str], str]


def encoder_rules(prefix: str, layers: Iterable[int]) -> Iterator[Rule]:
    """Yield the rules of an encoder whose names start with `prefix`."""
    for d in "ts":
        yield f"{prefix}backbone_{d}.data_bn.*", [f"{prefix}gcn_{d}.data_bn.*"], "one"
        for unit in ("l1", "l2", "l3"):
            for ours, theirs, how in UNIT[:-2] if unit == "l1" else UNIT:  # no residual in the first
                yield (
                    f"{prefix}backbone_{d}.{unit}.{ours}",
                    [f"{prefix}gcn_{d}.{unit}.{name}" for name in theirs],
                    how,
                )
        for i in (0, 1, 3):
            yield f"{prefix}embed_{d}.{i}.*", [f"{prefix}channel_{d}.{i}.*"], "one"
        for layer, name in product(layers, LAYER):
            yield (
                f"{prefix}transformer_{d}.layers.{layer}.{name}",
                [f"{prefix}{d}_encoder.layers.{layer}.{name}"],
                "one",
            )


def rules(state_dict: dict[str, Tensor]) -> Iterator[Rule]:
    """Yield (our name, the reference's names, how) of each tensor of a state dict of either kind."""
    found: list[Rule] = []
    if {"t_queue", "queue_t"} & state_dict.keys():
        found += [(f"queue_{d}", [f"{d}_queue"], "one") for d in DOMAINS]
        found.append(("queue_pointer", [f"{d}_queue_ptr" for d in DOMAINS], "one"))
    for network in ("encoder_q.", "encoder_k.", ""):
        for prefix in (f"{network}encoder.", network):
            pattern = re.compile(rf"{prefix}(?:t_encoder|transformer_t)\.layers\.(\d+)\.")
            layers = {int(match[1]) for name in state_dict if (match := pattern.match(name))}
            if layers:
                found += encoder_rules(prefix, sorted(layers))
        if any(name.startswith((f"{network}t_proj.", f"{network}decoder.t.")) for name in state_dict):
            found += [
                (f"{network}decoder.{d}.{i}.*", [f"{network}{d}_proj.{i}.*"], "one")
                for d in DOMAINS
                for i in (0, 2)
            ]
    if "fc.weight" in state_dict:
        found.append(("fc.*", ["fc.*"], "one"))
    for ours, theirs, how in found:
        for leaf in NORM if "bn" in ours else NORM[:2] if "*" in ours else ("",):
            kind = "one" if leaf == "num_batches_tracked" else how
            yield ours.replace("*", leaf), [name.replace("*", leaf) for name in theirs], kind


def join(parts: list[Tensor], how: str) -> Tensor:
    """Join the reference's `parts` to our tensor; 1x1 convolutions become (out, in), others (..., V, T)."""
    parts = [
        p if p.dim() != 4 else p.flatten(1) if p.shape[2:] == (1, 1) else p.transpose(2, 3) for p in parts
    ]
    return JOINS[how][0](parts)


def split(name: str, tensor: Tensor, how: str, count: int) -> list[Tensor]:
    """Return the `count` tensors of the reference that make up our tensor `name`; the inverse of `join`."""
    parts = JOINS[how][1](tensor, count)
    if "backbone_" in name:
        parts = [
            p[..., None, None] if p.dim() == 2 else p.transpose(2, 3) if p.dim() == 4 else p for p in parts
        ]
    return [p.clone() for p in parts]


def from_reference(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the reference's state dict of a pre-training model, downstream model or encoder to ours.

    Raises:
        ValueError: a tensor is missing, unknown or does not match the others; the message names it.
    """
    state_dict, result = strip_module(state_dict), {}
    unknown = set(state_dict)
    for ours, theirs, how in rules(state_dict):
        if missing := [name for name in theirs if name not in state_dict]:
            raise ValueError(f"the reference checkpoint has no {missing[0]}")
        try:
            result[ours] = join([state_dict[name] for name in theirs], how)
        except RuntimeError as error:
            raise ValueError(
                f"{theirs[0]} does not match the tensors that it is joined with: {error}"
            ) from None
        unknown.difference_update(theirs)
    if unknown:
        raise ValueError(f"{min(unknown)} is not a tensor of the reference (one of {len(unknown)})")
    return result


def to_reference(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state dict to the reference's; the inverse of `from_reference`."""
    result: dict[str, Tensor] = {}
    for ours, theirs, how in rules(state_dict):
        if ours in state_dict:
            result.update(zip(theirs, split(ours, state_dict[ours], how, len(theirs)), strict=True))
    return result


def momentum_from_reference(state_dict: dict[str, Tensor], optimizer: dict) -> dict[str, Tensor]:
    """Return the momentum buffers of the reference's SGD by the names of our parameters.

    The reference's optimiser numbers the parameters in the order of its `state_dict`. Raise ValueError if a
    buffer does not match.
    """
    names = [name for name in state_dict if name.rsplit(".", 1)[-1] not in NORM[2:] and "_queue" not in name]
    if "fc.weight" in names and len(optimizer.get("state", {})) <= 2:
        names = ["fc.weight", "fc.bias"]  # of a linear evaluation, whose encoder is frozen
    buffers = {}
    for number, state in optimizer.get("state", {}).items():
        buffer = state.get("momentum_buffer")
        if buffer is not None:
            if number >= len(names) or buffer.shape != state_dict[names[number]].shape:
                raise ValueError(f"momentum buffer {number} does not match the parameters")
            buffers[names[number]] = buffer
    found = [rule for rule in rules(state_dict) if buffers.keys() >= set(rule[1])]
    return {ours: join([buffers[name] for name in theirs], how) for ours, theirs, how in found}


def is_reference(state_dict: dict[str, Tensor]) -> bool:
    """Return whether the names are the reference's."""
    return any(".gcn_t." in f".{name}" for name in state_dict)


def sizes(encoder: dict[str, Tensor]) -> dict[str, int]:
    """Return the sizes of an encoder, except `num_head`, from the shapes of its state dict with our names.

    Raises:
        ValueError: there is no encoder.
    """
    if "embed_t.0.weight" not in encoder:
        raise ValueError("it has no encoder")
    d, width_t = encoder["embed_t.0.weight"].shape
    layers = sum(name.startswith("transformer_t.") and name.endswith("in_proj_weight") for name in encoder)
    channels, joints = len(encoder["backbone_t.l1.tcn.stem.bias"]), len(encoder["backbone_t.l1.gcn.PA"][0])
    frames, bodies = encoder["embed_s.0.weight"].shape[1] // channels, width_t // (joints * channels)
    found = dict(hidden_size=d, num_layer=layers, channels=channels)
    return found | dict(frames=frames, joints=joints, bodies=bodies)


def strip_module(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict without the "module." of `DistributedDataParallel`, if every name has it."""
    if not all(name.startswith("module.") for name in state_dict):
        return state_dict
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
