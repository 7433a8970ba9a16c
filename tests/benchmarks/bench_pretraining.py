"""Pre-training's step beside the matrix products it is made of, precisions, feed, end to end, memory; figures, no verdicts.

    python tests/benchmarks/bench_pretraining.py [--batch-size 16] [--steps 3] [--device cuda] [--compile]

The bound is the time of the step's arithmetic, 4 x 13.2 GFLOP a sample (query forward and backward, key forward), at the rate
of a large matrix product measured in the same run.
"""

import argparse
import pickle
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from engine.device import (  # noqa: E402
    PRECISIONS,
    autocast,
    keep_freed_memory,  # noqa: E402
    pick_device,
    set_precision,
)
from feeder.augmentations import PretrainingViews  # noqa: E402
from feeder.cli import script  # noqa: E402
from feeder.dataset import SkeletonDataset  # noqa: E402
from model import SCDNet  # noqa: E402

STEP_FLOP = 4 * 13.2e9  # a sample, at full size
FRAMES = 90  # of a valid clip, about NTU RGB+D's mean
Feed = Callable[[], tuple[torch.Tensor, torch.Tensor]]  # reads a batch and makes two views of it


def seconds(run, device: torch.device, repeats: int) -> float:
    """Return the median time of `run`, after one more call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - before)
    return statistics.median(times[1:])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP a second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 3072
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b, device, 5)


def write_clips(folder: Path, n: int) -> SkeletonDataset:
    """Return a data set of n clips, on disk as the real ones are."""
    rng = np.random.default_rng(0)
    np.save(folder / "train_data_joint.npy", rng.normal(0, 0.5, (n, 3, 300, 25, 2)).astype(np.float32))
    np.save(folder / "train_num_frame.npy", np.full(n, FRAMES))
    (folder / "train_label.pkl").write_bytes(pickle.dumps(([f"clip{i}" for i in range(n)], [0] * n)))
    return SkeletonDataset(folder, "train")


def measure(precision: str, feed: Feed, device: torch.device, steps: int, compiled: bool) -> tuple[float, float, float]:
    """Return the seconds of a full-size step, of a step with its feed, and the rate of a matrix product."""
    set_precision(precision, device)
    rate = matmul_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    net = SCDNet({}).to(device).train()
    if compiled:
        net.encoder_q.compile()
        net.encoder_k.compile()
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.01, 0.9, weight_decay=1e-4)

    def step(q: torch.Tensor, k: torch.Tensor) -> None:
        with autocast(precision, device):
            loss = sum(net.loss(net(q, k)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    q, k = feed()
    return seconds(lambda: step(q, k), device, steps), seconds(lambda: step(*feed()), device, steps), rate


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16, help="clips (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed ones; the median counts (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the encoders")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, help="(all that the device has)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    args = get_parser().parse_args(argv)
    keep_freed_memory()
    device = pick_device(args.device, None)
    n = args.batch_size
    precisions = args.precision or (["fp32", "tf32", "bf16"] if device.type == "cuda" else ["fp32", "bf16"])
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {n}")

    with tempfile.TemporaryDirectory() as folder:
        batch = (dataset := write_clips(Path(folder), n))[range(n)]
    views, generator, x = PretrainingViews(), torch.Generator().manual_seed(0), batch.x.to(device)

    def feed() -> tuple[torch.Tensor, torch.Tensor]:
        read = dataset[range(n)]
        return views(read.x.to(device), read.num_frames, generator)

    made = seconds(lambda: views(x, batch.num_frames, generator), device, 10)
    print(f"two views: {n / made:.0f} samples/s; read and two views: {n / seconds(feed, device, 10):.0f} samples/s")

    first = None
    for precision in precisions:
        took, whole, rate = measure(precision, feed, device, args.steps, args.compile)
        first = first or took
        bound = STEP_FLOP * n / rate
        print(f"{precision}: matrix product {rate / 1e9:.0f} GFLOP/s; step {took:.2f} s, {n / took:.1f} samples/s, "
              f"{took / bound:.2f} x bound, {first / took:.2f} x {precisions[0]}; "
              f"end to end {n / whole:.1f} samples/s")  # fmt: skip
        if device.type == "cuda":
            print(f"{precision}: peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
