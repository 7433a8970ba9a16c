"""The flags that several scripts share, one function a group."""

import argparse
import os
from pathlib import Path
from typing import Any

from options.datasets import DATA_SETS, PROTOCOL_FOLDERS, split_folder
from options.parser import (
    OneOrMore,
    Parser,
    fraction,
    listed,
    natural,
    natural_float,
    positive_float,
    positive_int,
    seed,
)

DOWNSTREAM_REPRESENTATION = ("--finetune-skeleton-representation", "--skeleton-representation")
SIZES = ("hidden_size", "num_head", "num_layer", "channels", "frames", "bodies")


def add_data_flags(parser: Parser, data_set: str, representation: tuple[str, ...], streams: tuple[str, ...]) -> None:
    """Add the choice of data; `data_set` and `representation` are the script's names of two flags, `streams` its choices."""
    group = parser.add_argument_group("data")
    group.add_argument("--data-path", default="./data", metavar="DIR", help="root of the array folders (%(default)s)")
    group.add_argument(data_set, choices=DATA_SETS, metavar="NAME", help=f"{', '.join(DATA_SETS)} (%(default)s)")
    group.add_argument("--protocol", choices=PROTOCOL_FOLDERS, metavar="NAME",
                       help=f"{', '.join(PROTOCOL_FOLDERS)} (%(default)s)")  # fmt: skip
    several: dict[str, Any] = dict(action=OneOrMore) if representation is DOWNSTREAM_REPRESENTATION else {}
    group.add_argument(*representation, **several, choices=streams, metavar="STREAM",
                       help=f"{', '.join(streams)} (%(default)s)")  # fmt: skip
    group.add_argument("-j", "--workers", type=natural, metavar="N", help="processes that read data (%(default)s)")


def add_size_flags(parser: Parser, note: str) -> None:
    """Add the sizes of the encoder."""
    group = parser.add_argument_group("sizes of the encoder", note)
    group.add_argument("--hidden-size", type=positive_int, metavar="N", help="d, width of tokens and features")
    group.add_argument("--num-head", type=positive_int, metavar="N", help="attention heads, divides d")
    group.add_argument("--num-layer", type=positive_int, metavar="N", help="transformer layers of each domain")
    group.add_argument("--channels", type=positive_int, metavar="N", help="c of the backbone, a multiple of 4")
    group.add_argument("--frames", type=positive_int, metavar="N", help="T, to which clips are resized, a multiple of 16")
    group.add_argument("--bodies", type=positive_int, choices=(1, 2), metavar="N", help="M, the first or both of a clip")


def add_encoder_flags(parser: Parser, raw: bool = False) -> None:
    """Add where the encoder of a downstream task comes from; `raw` offers raw coordinates as well."""
    group = parser.add_argument_group("encoder, one of")
    group.add_argument("--pretrained", action=OneOrMore, metavar="PATH", help="checkpoint of pre-training, ours or the "
                       "reference's; one for each stream")  # fmt: skip
    group.add_argument("--random-encoder", action="store_true", help="no training: the baseline that training must beat")
    if raw:
        group.add_argument("--raw-coordinates", action="store_true", help="no encoder: the cropped clips themselves")
    group = parser.add_argument_group("streams and features")
    group.add_argument("--stream-weights", type=positive_float, nargs="+", metavar="W", help="of each stream in their fusion "
                       "(all 1)")  # fmt: skip
    group.add_argument("--save-features", action="store_true", help="write features, labels, names and predictions as .npz "
                       "into the run's folder")  # fmt: skip
    add_size_flags(
        parser,
        note="without a flag those of the checkpoint, with --random-encoder the paper's: 2048, 8, 1, 64, "
        "64, 2;\n  a reference checkpoint does not tell --num-head",
    )


def check_encoder_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Exit with status 2 unless exactly one encoder is chosen for each stream, on the command line or in --config.

    Evaluation runs in one process: a single GPU computes the features of a data set in minutes.
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        parser.error("evaluation runs in one process: start it without torchrun")
    for name in ("pretrained", "finetune_skeleton_representation", "stream_weights", "knn_neighbours"):
        if getattr(args, name, None) == []:
            parser.error(f"--{name.replace('_', '-')} has no value: give at least one")
    choices = [name for name in ("pretrained", "random_encoder", "raw_coordinates") if hasattr(args, name)]
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in choices)
    if sum(getattr(args, name) not in (None, False) for name in choices) != 1:
        parser.error(f"choose one of {flags}")
    if getattr(args, "raw_coordinates", False) and (sizes := given_sizes(args)):
        parser.error(f"--raw-coordinates has no encoder: leave --{next(iter(sizes)).replace('_', '-')} out")
    streams, checkpoints = listed(args.finetune_skeleton_representation), listed(args.pretrained)
    if checkpoints and len(checkpoints) != len(streams):
        parser.error(f"{len(checkpoints)} --pretrained for {len(streams)} {DOWNSTREAM_REPRESENTATION[0]}: give one for each")
    if len(set(streams)) < len(streams):
        parser.error(f"{DOWNSTREAM_REPRESENTATION[0]} {' '.join(streams)}: give each stream once")
    if args.stream_weights is not None and len(args.stream_weights) != len(streams):
        parser.error(f"{len(args.stream_weights)} --stream-weights for {len(streams)} {DOWNSTREAM_REPRESENTATION[0]}")


def given_folder(parser: Parser, args: argparse.Namespace, data_set: str) -> Path:
    """Return the folder of the data set's arrays; exits with status 2 where it has no such protocol."""
    try:
        return split_folder(args.data_path, data_set, args.protocol)
    except ValueError as error:
        parser.error(str(error))


def given_sizes(args: argparse.Namespace) -> dict[str, int]:
    """Return the sizes of the encoder that were given, by `Encoder`'s names."""
    return {name: value for name in SIZES if (value := getattr(args, name)) is not None}


def add_optimizer_flags(parser: Parser) -> argparse._ArgumentGroup:
    """Add epochs, batch and SGD."""
    group = parser.add_argument_group("optimisation (SGD)")
    group.add_argument("--epochs", type=positive_int, metavar="N", help="passes over the training set (%(default)s)")
    group.add_argument("--start-epoch", type=natural, default=0, metavar="N", help="count epochs from here (%(default)s)")
    group.add_argument("-b", "--batch-size", type=positive_int, metavar="N", help="clips a step, the total over all "
                       "processes (%(default)s)")  # fmt: skip
    group.add_argument("--lr", "--learning-rate", type=positive_float, metavar="X", help="at the start "
                       "(%(default)s)")  # fmt: skip
    group.add_argument("--schedule", type=natural, nargs="*", metavar="EPOCH", help="epochs at which lr drops to a tenth "
                       "(%(default)s)")  # fmt: skip
    group.add_argument("--cos", action="store_true", help="half a cosine for the lr instead of --schedule")
    group.add_argument("--momentum", type=fraction, metavar="X", help="of SGD (%(default)s)")
    group.add_argument("--wd", "--weight-decay", type=natural_float, dest="weight_decay", metavar="X", help="on all "
                       "weights (%(default)s)")  # fmt: skip
    return group


def add_checkpoint_flags(parser: Parser, save_freq: int) -> argparse._ArgumentGroup:
    """Add where a run keeps its checkpoint, what it goes on with, and how often it saves: `save_freq` epochs unless given."""
    group = parser.add_argument_group("checkpoints")
    group.add_argument("--checkpoint-path", metavar="DIR", help="where checkpoint.pth.tar is kept (%(default)s)")
    group.add_argument("--resume", metavar="PATH", help="a checkpoint of this script to go on with, ours or the reference's; "
                       "auto takes the one in --checkpoint-path, if there is one")  # fmt: skip
    group.add_argument("--save-freq", type=positive_int, default=save_freq, metavar="N", help="epochs between checkpoints; the "
                       "last epoch is always saved (%(default)s)")  # fmt: skip
    return group


def add_run_flags(parser: Parser) -> None:
    """Add device, seed and log."""
    group = parser.add_argument_group("run")
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (%(default)s)", default="auto")
    group.add_argument("--gpu", type=natural, metavar="N", help="the same as --device cuda:N (none)")
    group.add_argument("--seed", type=seed, metavar="N", help="of Python, NumPy, torch and workers (drawn and logged)")
    group.add_argument("--log-dir", default="./log", metavar="DIR", help="a folder for each run is made in it (%(default)s)")
    group.add_argument("-p", "--print-freq", type=positive_int, metavar="N", help="steps between log lines (%(default)s)")
