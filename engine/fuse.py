"""Scores of runs, sample by sample, and their fusion.

    python -m engine.fuse log/RUN log/RUN --stream-weights 1 0.6

adds the class scores of all streams of these runs of action_classification.py and prints the accuracy of the sum.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.files import load_npz
from feeder.cli import CommandLine, UserError, script

PREDICTIONS = "predictions"  # .npz, in a run's folder
FIELDS = ("names", "labels", "streams", "scores", "best_scores")


def weighted_sum(scores: Sequence[np.ndarray], weights: Sequence[float] | None) -> np.ndarray:
    """Return the sum (N, classes) of scores, each (N, classes), times their weights, 1 by default."""
    first, *others = (w * s for w, s in zip([1.0] * len(scores) if weights is None else weights, scores, strict=True))
    return sum(others, start=first)


def acc1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the top-1 accuracy in percent of scores (N, classes) and labels (N,)."""
    return float((scores.argmax(axis=1) == labels).mean() * 100)


def read_runs(runs: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return `FIELDS` of all runs together, their streams one after the other.

    Args:
        runs: folders of runs, or files like predictions.npz in them.

    Raises:
        UserError: one has no scores, damaged ones, or scores of other samples or classes than the first.
    """
    found = [load_npz(run / f"{PREDICTIONS}.npz" if run.is_dir() else run, FIELDS) for run in runs]
    for run, content in zip(runs[1:], found[1:], strict=True):
        for field in ("names", "labels"):
            if not np.array_equal(content[field], found[0][field]):
                raise UserError(f"{run} has other {field} than {runs[0]}: only runs on the same test samples can be fused")
        if content["scores"].shape[2] != found[0]["scores"].shape[2]:
            raise UserError(f"{run} has {content['scores'].shape[2]} classes, {runs[0]} {found[0]['scores'].shape[2]}")
    joined = {field: np.concatenate([content[field] for content in found]) for field in ("streams", "scores", "best_scores")}
    return {"names": found[0]["names"], "labels": found[0]["labels"], **joined}


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(prog="python -m engine.fuse", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a file like its predictions.npz")
    parser.add_argument("--stream-weights", type=float, nargs="+", metavar="W", help="one for each stream, in order (equal)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the accuracy of each stream and of their sum."""
    parser = get_parser()
    args = parser.parse_args(argv)
    runs = read_runs(args.runs)
    streams, weights = runs["streams"], args.stream_weights
    if weights is not None and len(weights) != len(streams):
        parser.error(f"{len(weights)} --stream-weights for {len(streams)} streams: {', '.join(streams)}")
    for kind, field in (("last epoch", "scores"), ("epoch best on the test set", "best_scores")):
        for stream, scores in zip(streams, runs[field], strict=True):
            print(f"{kind}: {stream} Acc@1 {acc1(scores, runs['labels']):.3f}")
        print(f"{kind}: fusion Acc@1 {acc1(weighted_sum(list(runs[field]), weights), runs['labels']):.3f}")


if __name__ == "__main__":
    main()
