"""What the downstream tasks cost beside their unavoidable part; prints ratios, asserts nothing about time.

    python tests/benchmarks/bench_downstream.py [--train 600 --test 300 --hidden-size 256 --channels 16]

1. Linear evaluation, 80 epochs, whole, against one pass of feature extraction over both sets (wanted: at most 1.3).
2. Retrieval, k = 1, 5, 20 with mean average precision, against the similarity product alone (wanted: at most 1.5).
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import action_classification  # noqa: E402
from engine.checkpoint import save_checkpoint  # noqa: E402
from engine.device import keep_freed_memory, pick_device  # noqa: E402
from engine.downstream import open_both  # noqa: E402
from engine.features import extract_features  # noqa: E402
from engine.retrieval import retrieve  # noqa: E402
from feeder.arrays import SplitWriter, publish  # noqa: E402
from model import Encoder  # noqa: E402


class Cost(NamedTuple):
    """Wall-clock and processor seconds; the latter count no other job's, and no waiting for a GPU or a disk."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s CPU)"

    def over(self, other: "Cost") -> str:
        """Return the ratio to another cost."""
        return f"ratio {self.wall / other.wall:.2f} ({self.cpu / other.cpu:.2f} CPU)"


def cost(run) -> Cost:
    """Return what a call costs, its child processes included; what it prints is kept away."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - wall, sum(os.times()[:4]) - cpu)


def cheapest(costs: list[Cost]) -> Cost:
    """Return the least wall-clock and the least processor time."""
    return Cost(*map(min, zip(*costs, strict=True)))


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

    def one_pass() -> None:
        for part in parts:
            extract_features(encoder, part, "joint", device)

    one_pass()  # files in the page cache, memory kept
    command = [sys.executable, str(ROOT / "action_classification.py"), *flags]
    passes, wholes, processes = [], [], []
    for _ in range(args.rounds):
        passes.append(cost(one_pass))
        wholes.append(cost(lambda: action_classification.main(flags)))
        processes.append(cost(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)))
    one, whole, process = map(cheapest, (passes, wholes, processes))
    kept, again = (cost(lambda: action_classification.main([*flags, "--feature-cache", str(root / "cache")])) for _ in "12")
    print(f"linear evaluation, {args.train} + {args.test} clips, d {args.hidden_size}, c {args.channels}\n"
          f"  one feature pass      {one}\n"
          f"  whole                 {whole}, {whole.over(one)}\n"
          f"  as a command          {process}, {process.over(one)}; imports included\n"
          f"  writing the cache     {kept}, {kept.over(one)}\n"
          f"  reading the cache     {again}, {again.over(one)}")  # fmt: skip


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

    def run(with_map: bool, ks=(1, 5, 20)):
        return lambda: retrieve(gallery, labels[0], query, labels[1], ks, mean_average_precision=with_map)

    calls = {"product": product, "1-NN": run(False, (1,)), "k = 1, 5, 20": run(False), "the same and mAP": run(True)}
    costs = {name: cheapest([cost(call) for _ in range(args.rounds)]) for name, call in calls.items()}
    print(f"retrieval, gallery {args.gallery} x {args.queries} queries x {args.width}")
    for name, found in costs.items():
        print(f"  {name:22}{found}, {found.over(costs['product'])}")


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in dict(train=600, test=300, hidden_size=256, channels=16, gallery=40091, queries=1024, width=4096,
                              rounds=2).items():  # fmt: skip
        parser.add_argument(f"--{flag.replace('_', '-')}", type=int, default=default, metavar="N", help="(%(default)s)")
    return parser


if __name__ == "__main__":
    args, device = get_parser().parse_args(), pick_device()
    print(f"{device}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as root:
        linear_evaluation(args, Path(root), device)
    retrieval(args, device)
