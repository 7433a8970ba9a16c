"""Fuse the class scores of finished runs.

    python -m engine.fuse log/RUN log/RUN --stream-weights 1 0.6

This prints the accuracy of each stream of these action_classification.py runs, and of their summed scores.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import torch

from engine.evaluation import accuracy, fuse
from feeder.cli import CommandLine, UserError, script


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """Return names (N,) in order, labels (N,), streams (S,), scores and best_scores (S, N, classes)."""
    path = path / "predictions.npz" if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as file:
            order = np.argsort(file["names"])
            found = {name: file[name][order] for name in ("names", "labels")}
            found |= {name: file[name][:, order] for name in ("scores", "best_scores")}
            return found | {"streams": file["streams"]}
    except (ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path} is damaged or not the predictions.npz of a classification run") from None


def get_parser() -> CommandLine:
    """Return the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = CommandLine(prog="python -m engine.fuse", description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or its predictions.npz")
    add("--stream-weights", type=float, nargs="+", metavar="W", help="one for each stream, in order (equal)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the accuracy of each stream and of their sum."""
    parser = get_parser()
    args = parser.parse_args(argv)
    found = [read_scores(run) for run in args.runs]
    first = found[0]
    for run, content in zip(args.runs, found, strict=True):
        same = all(np.array_equal(content[name], first[name]) for name in ("names", "labels"))
        if not same or content["scores"].shape[2] != first["scores"].shape[2]:
            raise UserError(f"{run} and {args.runs[0]} have different test samples or classes")
    streams = [stream for content in found for stream in content["streams"]]
    weights = args.stream_weights or [1.0] * len(streams)
    if len(weights) != len(streams) or not all(0 < weight < float("inf") for weight in weights):
        parser.error(f"--stream-weights: set a finite number above 0 for each of {', '.join(streams)}")

    labels = torch.from_numpy(first["labels"])
    for kind, name in (("last epoch", "scores"), ("epoch best on the test set", "best_scores")):
        scores = torch.from_numpy(
            np.concatenate([content[name] for content in found])
        )  # (streams, N, classes)
        for stream, part in [*zip(streams, scores, strict=True), ("fusion", fuse(scores, weights))]:
            print(f"{kind}: {stream} Acc@1 {accuracy(part, labels):.3f}")


if __name__ == "__main__":
    main()
