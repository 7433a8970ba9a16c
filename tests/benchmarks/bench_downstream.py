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
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import action_classification  # noqa: E402
from engine.checkpoint import save_checkpoint  # noqa: E402
from engine.device import keep_freed_memory, pick_device  # noqa: E402
from engine.features import extract_features, open_both  # noqa: E402
from engine.retrieval import knn_predict, mean_average_precision  # noqa: E402
from feeder.arrays import SplitWriter, publish  # noqa: E402
from model import Encoder  # noqa: E402


def seconds(run, rounds: int) -> float:
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


def write_arrays(folder: Path, samples: dict[str, int]) -> None:
    """Write clips of noise, 100 frames each, 60 classes in turn."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in samples.items():
        writer = SplitWriter(folder, part, count)
        for row in range(count):
            writer.write(row, rng.standard_normal((3, 300, 25, 2), dtype=np.float32))
        rows = list(range(count))
        writer.finish(rows, [f"clip{row}" for row in rows], [row % 60 for row in rows], [100] * count)
        publish([writer])


def linear_evaluation(args: argparse.Namespace, root: Path, device: torch.device) -> None:
    """Print the time of linear evaluation over that of a feature pass."""
    folder = root / "NTU-RGB-D-60-AGCN" / "xsub"
    write_arrays(folder, {"train": args.train, "val": args.test})
    encoder = Encoder(args.hidden_size, 8, 1, args.channels)
    state_dict = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_checkpoint(root / "x.tar", {"state_dict": state_dict, "sizes": {"encoder": encoder.sizes}})
    flags = ["--data-path", str(root), "--pretrained", str(root / "x.tar"), "--checkpoint-path", str(root / "ck"),
             "--log-dir", str(root / "log"), "--workers", "0", "--device", str(device), "--seed", "0"]  # fmt: skip
    parts = open_both(folder, 60)
    keep_freed_memory()
    one = seconds(lambda: [extract_features(encoder, part, "joint", device) for part in parts], 1 + args.rounds)
    whole = seconds(lambda: action_classification.main(flags), args.rounds)
    print(f"linear evaluation, {args.train} + {args.test} clips, d {args.hidden_size}, c {args.channels}\n"
          f"  one feature pass {one:.2f} s, whole {whole:.2f} s, ratio {whole / one:.2f}")  # fmt: skip


def retrieval(args: argparse.Namespace, device: torch.device) -> None:
    """Print the time of retrieval over that of the similarity product."""
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(args.gallery, args.width, generator=generator).to(device)
    query = torch.randn(args.queries, args.width, generator=generator).to(device)
    labels = torch.arange(args.gallery, device=device) % 60, torch.arange(args.queries, device=device) % 60

    def product() -> None:
        g, q = F.normalize(gallery, dim=1), F.normalize(query, dim=1)
        for part in q.split(1024):
            part @ g.T

    one = seconds(product, args.rounds)
    knn = seconds(lambda: knn_predict(gallery, labels[0], query, 1), args.rounds)
    precision = seconds(lambda: mean_average_precision(gallery, labels[0], query, labels[1]), args.rounds)
    print(f"retrieval, gallery {args.gallery} x {args.queries} queries x {args.width}\n  product {one:.2f} s, "
          f"1-NN {knn:.2f} s, ratio {knn / one:.2f}, mAP {precision:.2f} s, ratio {precision / one:.2f}")  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = dict(train=600, test=300, hidden_size=256, channels=16, gallery=40091, queries=1024, width=4096, rounds=2)
    for flag, default in defaults.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", type=int, default=default, metavar="N", help="(%(default)s)")
    return parser


if __name__ == "__main__":
    args, device = get_parser().parse_args(), pick_device()
    print(f"{device}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as root:
        linear_evaluation(args, Path(root), device)
    retrieval(args, device)
