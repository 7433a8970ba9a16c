"""The flags that several scripts share, one function for each group."""

import os
from argparse import Namespace
from collections.abc import Collection, Sequence
from typing import Any

from options.parser import Parser, fraction, natural, natural_float, positive_float, positive_int, seed

STREAM, STREAM_FLAG = "--skeleton-representation", "--finetune-skeleton-representation"
# Options that do not change a result, and options with their own columns in the table of results.
INCIDENTAL = """seed config data_path log_dir checkpoint_path pretrained resume save_freq print_freq
    save_minutes workers device gpu threads compile save_features pre_dataset finetune_dataset protocol
    skeleton_representation finetune finetune_skeleton_representation label_fraction knn_neighbours
    random_encoder raw_coordinates evaluate stream_weights""".split()
SIZES = ("hidden_size", "num_head", "num_layer", "channels", "frames", "bodies")


def add_data_flags(
    parser: Parser, flag: str, choices: Sequence[Collection[str]], several: bool = False
) -> None:
    """Add the data flags.

    Args:
        parser: the command line.
        flag: the script's flag for the data set.
        choices: names of data sets, protocols, streams.
        several: allow several streams.
    """
    data_sets, protocols, streams = choices
    add = parser.add_argument_group("data").add_argument
    add("--data-path", default="./data", metavar="DIR", help="root folder of the arrays")
    add(flag, choices=data_sets, metavar="NAME", help=", ".join(data_sets))
    add("--protocol", choices=protocols, metavar="NAME", help=", ".join(protocols))
    names, nargs = ([STREAM_FLAG, STREAM], "+") if several else ([STREAM], None)
    add(*names, nargs=nargs, choices=streams, metavar="NAME", help=", ".join(streams))
    add("-j", "--workers", type=natural, metavar="N", help="processes that read data")


def add_size_flags(parser: Parser, note: str) -> None:
    """Add the sizes of the encoder."""
    add = parser.add_argument_group("sizes of the encoder", note).add_argument
    add("--hidden-size", type=positive_int, metavar="N", help="d, width of tokens and features")
    add("--num-head", type=positive_int, metavar="N", help="attention heads; must divide d")
    add("--num-layer", type=positive_int, metavar="N", help="transformer layers in each domain")
    add("--channels", type=positive_int, metavar="N", help="c of the backbone, a multiple of 4")
    add("--frames", type=positive_int, metavar="N", help="T of a resized clip, a multiple of 16")
    add("--bodies", type=positive_int, choices=(1, 2), metavar="N", help="M of a clip, 1 or 2")


def add_encoder_flags(parser: Parser, raw: bool = False) -> None:
    """Add the choice of the encoder of a downstream task; `raw` adds raw coordinates."""
    add = parser.add_argument_group("encoder, one of").add_argument
    pretrained = "checkpoint, ours or the reference's, one for each stream"
    add("--pretrained", nargs="+", metavar="PATH", help=pretrained)
    add("--random-encoder", action="store_true", help="an untrained encoder, as a baseline")
    if raw:
        add("--raw-coordinates", action="store_true", help="no encoder: the cropped clips themselves")
    parser.set_defaults(raw_coordinates=False)
    add = parser.add_argument_group("streams and features").add_argument
    weights = "weights of the streams in their fusion (all 1)"
    add("--stream-weights", type=positive_float, nargs="+", metavar="W", help=weights)
    add("--save-features", action="store_true", help="write the features as .npz to the run's folder")
    note = "from the checkpoint; with --random-encoder the paper's: 2048, 8, 1, 64, 64, 2."
    add_size_flags(parser, f"{note}\n  A checkpoint of the reference does not record --num-head.")


def check_encoder_flags(parser: Parser, args: Namespace, raw: bool = False) -> None:
    """Exit with status 2 unless one kind of encoder is chosen, with one checkpoint for each stream."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        parser.error("evaluation runs in one process: start it without torchrun")
    if sum(map(bool, (args.pretrained, args.random_encoder, args.raw_coordinates))) != 1:
        others = ", --raw-coordinates" if raw else ""
        parser.error(f"choose one of --pretrained, --random-encoder{others}")
    if args.raw_coordinates and (sizes := given_sizes(args)):
        parser.error(f"--raw-coordinates has no encoder: omit --{next(iter(sizes)).replace('_', '-')}")
    streams = args.finetune_skeleton_representation
    if len(set(streams)) < len(streams):
        parser.error(f"{STREAM_FLAG} {' '.join(streams)}: list each stream once")
    for flag, values in (("--pretrained", args.pretrained), ("--stream-weights", args.stream_weights)):
        if values and len(values) != len(streams):
            parser.error(f"{len(values)} {flag} for {len(streams)} {STREAM_FLAG}: set one for each stream")


def check_protocol(parser: Parser, data_set: str, protocol: str, protocols: Collection[str]) -> None:
    """Exit with status 2 unless the data set has the protocol."""
    if protocol not in protocols:
        parser.error(f"{data_set} has no protocol {protocol}: choose from {', '.join(protocols)}")


def given_sizes(args: Namespace) -> dict[str, int]:
    """Return the sizes of the encoder that are set, by their names in `Encoder`."""
    return {name: value for name in SIZES if (value := getattr(args, name)) is not None}


def add_optimizer_flags(parser: Parser) -> None:
    """Add epochs, batch size, learning rate and SGD."""
    add = parser.add_argument_group("optimisation (SGD)").add_argument
    add("--epochs", type=positive_int, metavar="N", help="passes over the training set")
    add("--start-epoch", type=natural, default=0, metavar="N", help="number of the first epoch")
    add("-b", "--batch-size", type=positive_int, metavar="N", help="clips per step, over all processes")
    add("--lr", "--learning-rate", type=positive_float, metavar="X", help="initial learning rate")
    add("--schedule", type=natural, nargs="*", metavar="EPOCH", help="epochs at which lr is divided by 10")
    warmup = "--warmup-lr until epoch A, then a linear rise to --lr at epoch B"
    add("--warmup-epochs", type=natural, nargs=2, metavar=("A", "B"), help=warmup)
    add("--warmup-lr", type=natural_float, metavar="X", help="learning rate before the rise")
    add("--cos", action="store_true", help="cosine decay of the lr instead of --schedule")
    add("--momentum", type=fraction, metavar="X", help="momentum of SGD")
    decay = "weight decay of all parameters"
    add("--wd", "--weight-decay", type=natural_float, dest="weight_decay", metavar="X", help=decay)


def check_warmup(parser: Parser, args: Namespace) -> None:
    """Exit with status 2 unless both flags of the warm-up are set, or none, and epoch B is above A."""
    if (args.warmup_epochs is None) != (args.warmup_lr is None):
        parser.error("--warmup-epochs and --warmup-lr must be set together")
    if args.warmup_epochs and args.warmup_epochs[0] >= args.warmup_epochs[1]:
        parser.error("--warmup-epochs A B: B must be above A")


def add_contrast_flags(parser: Parser) -> None:
    """Add the contrast of pre-training and its ablations."""
    add = parser.add_argument_group("contrast").add_argument
    add("--encoder-dim", type=positive_int, metavar="N", help="size of the embeddings")
    add("--encoder-k", type=positive_int, metavar="K", help="keys in each queue, a multiple of the batch")
    add("--encoder-m", type=fraction, metavar="m", help="momentum of the key encoder")
    add("--encoder-t", type=positive_float, metavar="T", help="temperature")
    pairs = "domains of query and key of each loss term; other pairs are ablations"
    add("--pairs", nargs="+", metavar="PAIR", help=pairs)
    add("--no-masks", action="store_true", help="views without spatial and temporal masks, an ablation")


def add_speed_flags(parser: Parser) -> None:
    """Add precision and compilation of pre-training."""
    add = parser.add_argument_group("speed").add_argument
    precisions = ("fp32", "tf32", "bf16")
    add("--precision", choices=precisions, default="fp32", metavar="NAME", help="fp32, tf32 (GPU) or bf16")
    add("--compile", action="store_true", help="apply torch.compile to the encoders, on GPUs")
    add("--sync-batchnorm", action="store_true", help="several GPUs: BatchNorm over the clips of all GPUs")


def add_checkpoint_flags(parser: Parser, save_freq: int, save_minutes: float | None = None) -> None:
    """Add the folder of a run's checkpoint, the checkpoint to resume, and how often to save."""
    add = parser.add_argument_group("checkpoints").add_argument
    add("--checkpoint-path", metavar="DIR", help="folder of checkpoint.pth.tar")
    resume = "checkpoint to continue (fine-tuning, pre-training); auto: the one in --checkpoint-path, if any"
    add("--resume", metavar="PATH", help=resume)
    add("--save-freq", type=positive_int, default=save_freq, metavar="N", help="epochs between checkpoints")
    if save_minutes is not None:
        minutes = "minutes between checkpoints within an epoch"
        add("--save-minutes", type=positive_float, default=save_minutes, metavar="X", help=minutes)


def add_run_flags(parser: Parser) -> None:
    """Add device, seed and log."""
    add = parser.add_argument_group("run").add_argument
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    add("--gpu", type=natural, metavar="N", help="the same as --device cuda:N")
    add("--seed", type=seed, metavar="N", help="seed of all random numbers (drawn and logged if not set)")
    add("--log-dir", default="./log", metavar="DIR", help="each run creates a folder here")
    threads = "CPU threads of a process; use 1 for small networks (default: torch's)"
    add("--threads", type=positive_int, metavar="N", help=threads)
    add("-p", "--print-freq", type=positive_int, metavar="N", help="steps between log lines")


def as_flag(name: str, value: Any) -> str:
    """Return an option as it is written on the command line."""
    values = value if isinstance(value, list) else [] if value is True else [value]
    return " ".join([f"--{name.replace('_', '-')}", *map(str, values)])


def changed_flags(args: Namespace, recipe: Namespace, incidental: Sequence[str] = ()) -> str:
    """Return the flags of a run that differ from a recipe and may change the result, as one text."""
    changed = {name: value for name, value in vars(args).items() if value != getattr(recipe, name)}
    names = [name for name in changed if name not in INCIDENTAL and name not in incidental]
    return " ".join(as_flag(name, changed[name]) for name in names)
