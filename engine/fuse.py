"""Fuse the class scores of finished runs.

    python -m engine.fuse log/RUN log/RUN --stream-weights 1 0.6

prints the accuracy of each stream of these runs of action_classification.py and of the sum of their scores.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from engine.evaluation import accuracy, fuse
from feeder.cli import CommandLine, UserError, script


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """Return names (N,), labels (N,), streams (S,), scores and best_scores (S, N, classes) of a run folder or its .npz file."""
    path = path / "predictions.npz" if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("names", "labels", "streams", "scores", "best_scores")}
        names, labels, streams, scores, best = found.values()
        num_streams, samples, classes = scores.shape
        shapes = [(samples,), (samples,), (num_streams,), scores.shape, scores.shape]
        fits = "".join(array.dtype.kind for array in found.values()) == "UiUff" and scores.size > 0
        fits = (
            fits
            and [array.shape for array in found.values()] == shapes
            and 0 <= labels.min() <= labels.max() < classes
        )
        fits = fits and np.isfinite(scores).all() and np.isfinite(best).all()
    except FileNotFoundError:
        raise
    except Exception:  # a damaged file can raise almost any error
        fits = False
    if not fits:
        raise UserError(f"{path} is damaged or not the predictions.npz of a classification run")
    return found


def get_parser() -> CommandLine:
    """Return the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = CommandLine(prog="python -m engine.fuse", description=__doc__, formatter_class=form)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or its predictions.npz"
    )
    parser.add_argument(
        "--stream-weights", type=float, nargs="+", metavar="W", help="one for each stream, in order (equal)"
    )
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the accuracy of each stream and of their sum."""
    parser = get_parser()
    args = parser.parse_args(argv)
    found = [read_scores(run) for run in args.runs]
    for run, content in zip(args.runs, found, strict=True):
        same = all(np.array_equal(content[field], found[0][field]) for field in ("names", "labels"))
        if not same or content["scores"].shape[2] != found[0]["scores"].shape[2]:
            raise UserError(
                f"{run} and {args.runs[0]} have different test samples or classes and cannot be fused"
            )
    streams = [stream for content in found for stream in content["streams"]]
    weights = args.stream_weights or [1.0] * len(streams)
    if len(weights) != len(streams) or not all(0 < weight < float("inf") for weight in weights):
        parser.error(f"--stream-weights: set a finite number above 0 for each of {', '.join(streams)}")

    labels = torch.from_numpy(found[0]["labels"])
    for kind, field in (("last epoch", "scores"), ("epoch best on the test set", "best_scores")):
        scores = torch.from_numpy(
            np.concatenate([content[field] for content in found])
        ).float()  # (streams, N, classes)
        for name, part in [*zip(streams, scores, strict=True), ("fusion", fuse(scores, weights))]:
            print(f"{kind}: {name} Acc@1 {accuracy(part, labels):.3f}")


if __name__ == "__main__":
    main()
