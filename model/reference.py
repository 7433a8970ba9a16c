"""State dicts of the reference implementation <-> ours, by name and shape.

Names differ, and layers of the reference that read the same input are one parameter of ours. Joining and splitting only
moves numbers, so gradients and momentum buffers go through the same functions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.contrast import DOMAINS

SUBSETS, BRANCHES = range(3), range(4)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass
class Rule:
    """How one tensor of ours is made of the reference's.

    Args:
        ours: name of our tensor.
        theirs: names of the reference's tensors.
        how: "same"; "time" swaps the kernel axes (theirs T V, ours V T); "cat" joins along channels; "stack0", "stack1"
            join along a new axis; "relation" along a new first axis of (2, 3); "pointer" keeps one of equals.
        pointwise: they are weights of 1x1 convolutions, (out, in, 1, 1), where ours are (out, in).
    """

    ours: str
    theirs: list[str]
    how: str = "same"
    pointwise: bool = False

    def join(self, parts: list[Tensor]) -> Tensor:
        """Return our tensor of the reference's `parts`."""
        if self.pointwise:
            parts = [p.flatten(1) for p in parts]
        match self.how:
            case "time":
                return parts[0].transpose(2, 3).contiguous()
            case "relation":
                return torch.stack(parts).unflatten(0, (2, len(SUBSETS)))
            case "stack0" | "stack1":
                return torch.stack(parts, dim=int(self.how[-1]))
            case "cat" if parts[0].dim():
                return torch.cat(parts)
        return parts[0].clone()

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Return the reference's parts of our `tensor`."""
        match self.how:
            case "time":
                parts = [tensor.transpose(2, 3)]
            case "relation":
                parts = list(tensor.flatten(0, 1).unbind(0))
            case "stack0" | "stack1":
                parts = list(tensor.unbind(int(self.how[-1])))
            case "cat" if tensor.dim():
                parts = list(tensor.chunk(len(self.theirs)))
            case _:
                parts = [tensor] * len(self.theirs)
        return [(p[..., None, None] if self.pointwise else p).clone() for p in parts]


def from_reference(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our state dict of a reference's: a pre-training model, a downstream model, or either one's encoder.

    Raises:
        ValueError: a tensor is missing, is unknown or does not fit its neighbours; the message names it.
    """
    state_dict = strip_module(state_dict)
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in rules(state_dict):
        missing = [name for name in rule.theirs if name not in state_dict]
        if missing:
            raise ValueError(f"the reference checkpoint lacks {missing[0]}")
        try:
            result[rule.ours] = rule.join([state_dict[name] for name in rule.theirs])
        except RuntimeError as error:
            raise ValueError(f"{rule.theirs[0]} and its neighbours do not fit together: {error}") from None
        used.update(rule.theirs)
    unknown = sorted(set(state_dict) - used)
    if unknown:
        raise ValueError(f"{unknown[0]} is no tensor of the reference ({len(unknown)} such)")
    return result


def to_reference(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the reference's state dict of one of ours; the inverse of `from_reference`."""
    result: dict[str, Tensor] = {}
    for rule in rules(state_dict):
        if rule.ours in state_dict:
            result.update(zip(rule.theirs, rule.split(state_dict[rule.ours]), strict=True))
    return result


def momentum_from_reference(state_dict: dict[str, Tensor], optimizer: dict) -> dict[str, Tensor]:
    """Return our momentum buffers by our parameters' names.

    Args:
        state_dict: the reference's, whose parameters stand in the order in which its optimiser numbers them.
        optimizer: state dict of its SGD.

    Raises:
        ValueError: a buffer has another shape than its parameter.
    """
    names = [name for name in state_dict if name.rsplit(".", 1)[-1] not in NORM[2:] and "_queue" not in name]
    if "fc.weight" in names and len(optimizer.get("state", {})) <= 2:  # linear evaluation: the encoder is frozen
        names = ["fc.weight", "fc.bias"]
    buffers = {}
    for number, state in optimizer.get("state", {}).items():
        buffer = state.get("momentum_buffer")
        if buffer is not None:
            if number >= len(names) or buffer.shape != state_dict[names[number]].shape:
                raise ValueError(f"momentum {number} of its optimiser does not fit the parameters")
            buffers[names[number]] = buffer
    return {
        rule.ours: rule.join([buffers[name] for name in rule.theirs])
        for rule in rules(state_dict)
        if all(name in buffers for name in rule.theirs)
    }


def is_reference(state_dict: dict[str, Tensor]) -> bool:
    """Return whether the names are the reference's."""
    return any(".gcn_t." in f".{name}" for name in state_dict)


def sizes(state_dict: dict[str, Tensor]) -> dict[str, int]:
    """Return the sizes that the shapes of an encoder tell, ours or the reference's: all of `Encoder`'s but the heads.

    Raises:
        ValueError: there is no encoder in it.
    """
    if is_reference(state_dict):
        state_dict = from_reference(state_dict)
    found = [name.removesuffix("embed_t.0.weight") for name in state_dict if name.endswith("embed_t.0.weight")]
    if not found:
        raise ValueError("there is no encoder in it")
    prefix = sorted(found, reverse=True)[0]  # encoder_q before encoder_k
    get = lambda name: state_dict[prefix + name]  # noqa: E731
    channels, joints = get("backbone_t.l1.tcn.stem.bias").numel(), get("backbone_t.l1.gcn.PA").shape[-1]
    return {
        "hidden_size": get("embed_t.0.weight").shape[0],
        "num_layer": len([name for name in state_dict if name.startswith(prefix) and _is_layer_of_t(name)]),
        "channels": channels,
        "frames": get("embed_s.0.weight").shape[1] // channels,
        "joints": joints,
        "bodies": get("embed_t.0.weight").shape[1] // (joints * channels),
    }


def strip_module(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict without DistributedDataParallel's "module." where every name begins with it."""
    if state_dict and all(name.startswith("module.") for name in state_dict):
        return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return state_dict


def _is_layer_of_t(name: str) -> bool:
    return "transformer_t." in name and name.endswith("in_proj_weight")


def rules(state_dict: dict[str, Tensor]) -> Iterator[Rule]:
    """Yield the rules for what `state_dict` (of either side) holds, as its names tell."""
    if any(name in state_dict for name in ("t_queue", "queue_t")):
        yield from (Rule(f"queue_{d}", [f"{d}_queue"]) for d in DOMAINS)
        yield Rule("queue_pointer", [f"{d}_queue_ptr" for d in DOMAINS], "pointer")
    for network in ("encoder_q.", "encoder_k.", ""):
        inside = [name.removeprefix(network) for name in state_dict if name.startswith(network)]
        for prefix in ("encoder.", ""):
            if any(name.startswith((prefix + "gcn_t.", prefix + "backbone_t.")) for name in inside):
                yield from _encoder_rules(network + prefix, inside)
        if any(name.startswith(("t_proj.", "decoder.t.")) for name in inside):
            for d in DOMAINS:
                yield from _same(f"{network}decoder.{d}.", f"{network}{d}_proj.", _pairs("0", "2"))
    if "fc.weight" in state_dict:
        yield from _same("fc.", "fc.", ("weight", "bias"))


def _encoder_rules(prefix: str, names: list[str]) -> Iterator[Rule]:
    for d in "ts":
        backbone, gcn = f"{prefix}backbone_{d}.", f"{prefix}gcn_{d}."
        yield from _same(f"{backbone}data_bn.", f"{gcn}data_bn.", NORM)
        for unit in ("l1.", "l2.", "l3."):
            yield from _unit_rules(backbone + unit, gcn + unit, residual=unit != "l1.")
        yield from _same(f"{prefix}embed_{d}.", f"{prefix}channel_{d}.", _pairs("0", "1", "3"))
        ours, theirs = f"{prefix}transformer_{d}.layers.", f"{prefix}{d}_encoder.layers."
        layers = {n.split("_encoder.layers.")[-1].split(f"transformer_{d}.layers.")[-1].split(".")[0]
                  for n in names if f"{d}_encoder.layers." in n or f"transformer_{d}.layers." in n}  # fmt: skip
        for layer in sorted(layers, key=int):
            attention = ("self_attn.in_proj_weight", "self_attn.in_proj_bias")
            others = _pairs("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
            yield from _same(f"{ours}{layer}.", f"{theirs}{layer}.", (*attention, *others))


def _unit_rules(ours: str, theirs: str, residual: bool) -> Iterator[Rule]:
    gcn, tcn = f"{theirs}gcn1.", f"{theirs}tcn1.branches."
    yield from _same(f"{ours}gcn.", gcn, ("PA", "alpha"))
    for leaf in ("weight", "bias"):
        weight = leaf == "weight"
        subsets = {j: [f"{gcn}convs.{k}.conv{j}.{leaf}" for k in SUBSETS] for j in (1, 2, 3, 4)}
        yield Rule(f"{ours}gcn.relation_{leaf}", subsets[1] + subsets[2], "relation", weight)
        yield Rule(f"{ours}gcn.value_{leaf}", subsets[3], "stack1", weight)
        yield Rule(f"{ours}gcn.topology_{leaf}", subsets[4], "stack0", weight)
        yield Rule(f"{ours}tcn.stem.{leaf}", [f"{tcn}{b}.0.{leaf}" for b in BRANCHES], "cat", weight)
        for b in (0, 1):
            yield Rule(f"{ours}tcn.conv{b + 1}.{leaf}", [f"{tcn}{b}.3.conv.{leaf}"], "time" if weight else "same")
    yield from _same(f"{ours}gcn.bn.", f"{gcn}bn.", NORM)
    yield from _projection_rules(f"{ours}gcn.down.", f"{gcn}down.0.", f"{gcn}down.1.")
    for leaf in NORM:
        yield Rule(f"{ours}tcn.stem.bn.{leaf}", [f"{tcn}{b}.1.{leaf}" for b in BRANCHES], "cat")
        for b, norm in enumerate(("0.3.bn", "1.3.bn", "2.4"), start=1):
            yield Rule(f"{ours}tcn.bn{b}.{leaf}", [f"{tcn}{norm}.{leaf}"])
    if residual:
        yield from _projection_rules(f"{ours}residual.", f"{theirs}residual.conv.", f"{theirs}residual.bn.")


def _projection_rules(ours: str, conv: str, norm: str) -> Iterator[Rule]:
    yield Rule(f"{ours}weight", [f"{conv}weight"], pointwise=True)
    yield Rule(f"{ours}bias", [f"{conv}bias"])
    yield from _same(f"{ours}bn.", norm, NORM)


def _same(ours: str, theirs: str, leaves: tuple[str, ...]) -> Iterator[Rule]:
    return (Rule(ours + leaf, [theirs + leaf]) for leaf in leaves)


def _pairs(*layers: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias"))
