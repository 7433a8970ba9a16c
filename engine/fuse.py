"""Fuse the class scores of finished runs.

    python -m engine.fuse log/RUN log/RUN --stream-weights 1 0.6

adds the scores of all streams of these runs of action_classification.py and prints the accuracy of each and of the sum.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from engine.evaluation import accuracy, fuse
from engine.records import read_scores
from feeder.cli import CommandLine, UserError, script


def weight(text: str) -> float:
    """Return a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return value


def get_parser() -> CommandLine:
    """Return the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = CommandLine(prog="python -m engine.fuse", description=__doc__, formatter_class=formatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or a file like its predictions.npz")
    parser.add_argument("--stream-weights", type=weight, nargs="+", metavar="W", help="one for each stream, in order (equal)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the accuracy of each stream and of their sum."""
    parser = get_parser()
    args = parser.parse_args(argv)
    found = [read_scores(run) for run in args.runs]
    for run, content in zip(args.runs, found, strict=True):
        for field in ("names", "labels"):
            if not np.array_equal(content[field], found[0][field]):
                raise UserError(f"{run} has other {field} than {args.runs[0]}: only runs on the same test samples can be fused")
        if (classes := content["scores"].shape[2]) != (expected := found[0]["scores"].shape[2]):
            raise UserError(f"{run} has {classes} classes, {args.runs[0]} {expected}")
    streams = [stream for content in found for stream in content["streams"]]
    if args.stream_weights is not None and len(args.stream_weights) != len(streams):
        parser.error(f"{len(args.stream_weights)} --stream-weights for {len(streams)} streams: {', '.join(streams)}")

    labels = torch.from_numpy(found[0]["labels"])
    for kind, field in (("last epoch", "scores"), ("epoch best on the test set", "best_scores")):
        scores = [torch.from_numpy(part) for content in found for part in content[field]]
        for stream, part in zip(streams, scores, strict=True):
            print(f"{kind}: {stream} Acc@1 {accuracy(part, labels):.3f}")
        print(f"{kind}: fusion Acc@1 {accuracy(fuse(scores, args.stream_weights), labels):.3f}")


if __name__ == "__main__":
    main()
