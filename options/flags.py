"""The flags that several scripts share, one function a group."""

import argparse
import os
from pathlib import Path

from options.datasets import DATA_SETS, PROTOCOL_FOLDERS, split_folder
from options.parser import OneOrMore, Parser, fraction, listed, natural, natural_float, positive_float, positive_int, seed

DOWNSTREAM_REPRESENTATION = ("--finetune-skeleton-representation", "--skeleton-representation")
SIZES = ("hidden_size", "num_head", "num_layer", "channels", "frames", "bodies")


def add_data_flags(parser: Parser, data_set: str, representation: tuple[str, ...], streams: tuple[str, ...]) -> None:
    """Add the choice of data; `data_set` and `representation` are the script's names of two flags, `streams` its choices."""
    add = parser.add_argument_group("data").add_argument
    add("--data-path", default="./data", metavar="DIR", help="root of the array folders")
    add(data_set, choices=DATA_SETS, metavar="NAME", help=", ".join(DATA_SETS))
    add("--protocol", choices=PROTOCOL_FOLDERS, metavar="NAME", help=", ".join(PROTOCOL_FOLDERS))
    action = OneOrMore if representation is DOWNSTREAM_REPRESENTATION else "store"
    add(*representation, action=action, choices=streams, metavar="NAME", help=", ".join(streams))
    add("-j", "--workers", type=natural, metavar="N", help="processes that read data")


def add_size_flags(parser: Parser, note: str) -> None:
    """Add the sizes of the encoder."""
    add = parser.add_argument_group("sizes of the encoder", note).add_argument
    add("--hidden-size", type=positive_int, metavar="N", help="d, width of tokens and features")
    add("--num-head", type=positive_int, metavar="N", help="attention heads, divides d")
    add("--num-layer", type=positive_int, metavar="N", help="transformer layers of each domain")
    add("--channels", type=positive_int, metavar="N", help="c of the backbone, a multiple of 4")
    add("--frames", type=positive_int, metavar="N", help="T, to which clips are resized, a multiple of 16")
    add("--bodies", type=positive_int, choices=(1, 2), metavar="N", help="M, the first or both of a clip")


def add_encoder_flags(parser: Parser, raw: bool = False) -> None:
    """Add where the encoder of a downstream task comes from; `raw` offers raw coordinates as well."""
    add = parser.add_argument_group("encoder, one of").add_argument
    checkpoint = "checkpoint of pre-training, ours or the reference's; one for each stream"
    add("--pretrained", action=OneOrMore, metavar="PATH", help=checkpoint)
    add("--random-encoder", action="store_true", help="no training: the baseline that training must beat")
    if raw:
        add("--raw-coordinates", action="store_true", help="no encoder: the cropped clips themselves")
    add = parser.add_argument_group("streams and features").add_argument
    add("--stream-weights", type=positive_float, nargs="+", metavar="W", help="weights of the streams in their fusion (all 1)")
    saved = "write features, labels, names and predictions as .npz into the run's folder"
    add("--save-features", action="store_true", help=saved)
    add_size_flags(
        parser,
        "those of the checkpoint; with --random-encoder the paper's: 2048, 8, 1, 64, 64, 2.\n"
        "  A checkpoint of the reference does not contain --num-head.",
    )


def check_encoder_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Exit with status 2 unless exactly one encoder is chosen for each stream, on the command line or in --config.

    Evaluation runs in one process: a single GPU computes the features of a data set in minutes.
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        parser.error("evaluation runs in one process: start it without torchrun")
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
    add = group.add_argument
    add("--epochs", type=positive_int, metavar="N", help="passes over the training set")
    add("--start-epoch", type=natural, default=0, metavar="N", help="count epochs from here")
    add("-b", "--batch-size", type=positive_int, metavar="N", help="clips in a step, over all processes")
    add("--lr", "--learning-rate", type=positive_float, metavar="X", help="at the start")
    add("--schedule", type=natural, nargs="*", metavar="EPOCH", help="epochs at which lr drops to a tenth")
    add("--cos", action="store_true", help="half a cosine for the lr instead of --schedule")
    add("--momentum", type=fraction, metavar="X", help="of SGD")
    add("--wd", "--weight-decay", type=natural_float, dest="weight_decay", metavar="X", help="on all weights")
    return group


def add_checkpoint_flags(parser: Parser, save_freq: int) -> argparse._ArgumentGroup:
    """Add where a run keeps its checkpoint, what it resumes, and how often it saves: `save_freq` epochs unless given."""
    group = parser.add_argument_group("checkpoints")
    add = group.add_argument
    add("--checkpoint-path", metavar="DIR", help="folder of checkpoint.pth.tar")
    resume = "checkpoint of this script to continue, ours or the reference's; auto: the one in --checkpoint-path, if any"
    add("--resume", metavar="PATH", help=resume)
    saved = "epochs between checkpoints; the last epoch is always saved"
    add("--save-freq", type=positive_int, default=save_freq, metavar="N", help=saved)
    return group


def add_run_flags(parser: Parser) -> None:
    """Add device, seed and log."""
    add = parser.add_argument_group("run").add_argument
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    add("--gpu", type=natural, metavar="N", help="the same as --device cuda:N")
    add("--seed", type=seed, metavar="N", help="of Python, NumPy, torch and workers (drawn and logged)")
    add("--log-dir", default="./log", metavar="DIR", help="where each run writes a folder of its own")
    add("-p", "--print-freq", type=positive_int, metavar="N", help="steps between log lines")
