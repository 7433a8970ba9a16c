"""Cost of the downstream tasks over that of their unavoidable part; prints ratios, asserts nothing about time.

    python tests/benchmarks/bench_downstream.py [--train 600 --test 300 --hidden-size 256 --channels 16]

1. Linear evaluation, 80 epochs, whole, over one pass of feature extraction over both sets (wanted: at most 1.3).
2. Retrieval, k = 1, and mean average precision, over one similarity product.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import action_classification  # noqa: E402
from engine.checkpoint import save_checkpoint  # noqa: E402
from engine.device import pick_device  # noqa: E402
from engine.features import extract_features, open_task  # noqa: E402
from engine.retrieval import CHUNK, knn_predict, mean_average_precision  # noqa: E402
from engine.runlog import Run  # noqa: E402
from feeder.arrays import write_splits  # noqa: E402
from model import Encoder  # noqa: E402


def seconds(run, rounds: int = 2) -> float:
    """Return the least wall-clock time of a call that prints nothing."""
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - before)
    return min(found)


def linear_evaluation(args: argparse.Namespace, root: Path, device: torch.device) -> None:
    """Print the time of linear evaluation over that of a feature pass, on clips of noise."""
    folder, rng = root / "NTU-RGB-D-60-AGCN", np.random.default_rng(0)
    with write_splits(folder, ["xsub"]) as writer:
        for part, count in (("train", args.train), ("val", args.test)):
            for row in range(count):
                writer.add(
                    {"xsub": part},
                    f"clip{row}",
                    row % 60,
                    100,
                    rng.standard_normal((3, 300, 25, 2), np.float32),
                )
    encoder = Encoder(args.hidden_size, 8, 1, args.channels)
    state_dict = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_checkpoint(root / "x.tar", {"state_dict": state_dict, "sizes": {"encoder": encoder.sizes}})
    paths = {
        "data-path": root,
        "pretrained": root / "x.tar",
        "checkpoint-path": root / "ck",
        "log-dir": root / "log",
    }
    flags = [
        f"--{name}={path}" for name, path in paths.items()
    ] + f"--workers 0 --device {device} --seed 0".split()
    task = open_task(
        Run("linear", "ntu60", "cross_subject", "joint"), folder / "xsub", 60, [root / "x.tar"], {}, device, 0
    )
    one = seconds(lambda: extract_features(task, encoder, "joint", 0), 3)
    whole = seconds(lambda: action_classification.main(flags))
    print(f"linear evaluation: one feature pass {one:.2f} s, whole {whole:.2f} s, ratio {whole / one:.2f}")


def retrieval(args: argparse.Namespace, device: torch.device) -> None:
    """Print the time of retrieval over that of the similarity product."""
    gallery, query = (torch.randn(n, args.width, device=device) for n in (args.gallery, args.queries))
    labels = [torch.arange(len(x), device=device) % 60 for x in (gallery, query)]
    one = seconds(lambda: [part @ gallery.T for part in query.split(CHUNK)])
    knn = seconds(lambda: knn_predict(gallery, labels[0], query, 1))
    precision = seconds(lambda: mean_average_precision(gallery, labels[0], query, labels[1]))
    ratios = f"ratio {knn / one:.2f}, mAP {precision:.2f} s, ratio {precision / one:.2f}"
    print(f"retrieval: product {one:.2f} s, 1-NN {knn:.2f} s, {ratios}")


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = dict(
        train=600, test=300, hidden_size=256, channels=16, gallery=40091, queries=1024, width=4096
    )
    for flag, default in defaults.items():
        parser.add_argument(
            f"--{flag.replace('_', '-')}", type=int, default=default, metavar="N", help="(%(default)s)"
        )
    return parser


if __name__ == "__main__":
    args, device = get_parser().parse_args(), pick_device()
    print(f"{device}, {torch.get_num_threads()} threads, {vars(args)}")
    with tempfile.TemporaryDirectory() as root:
        linear_evaluation(args, Path(root), device)
    retrieval(args, device)
