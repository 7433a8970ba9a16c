"""Time of a full-size pre-training step, next to the matrix products that it consists of; and of its feed.

    python tests/benchmarks/bench_pretraining.py [--batch-size 16] [--steps 3] [--device cuda] [--compile]

The bound is the time of the step's arithmetic, 4 x 13.2 GFLOP per sample (query forward and backward, key
forward), at the rate of a large matrix product measured in the same run.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import pretraining  # noqa: E402
from engine.device import peak_memory, set_up  # noqa: E402
from feeder.augmentations import PretrainingViews  # noqa: E402
from feeder.cli import script  # noqa: E402
from feeder.dataset import Batch  # noqa: E402
from model import SCDNet  # noqa: E402

STEP_FLOP = 4 * 13.2e9  # per sample


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of `run`, after one call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--batch-size", type=int, default=16, help="clips (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed ones; the median counts (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the encoders")
    names = ("fp32", "tf32", "bf16")
    parser.add_argument("--precisions", nargs="+", choices=names, help="(all that the device has)")
    parser.set_defaults(gpu=None, threads=None)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    args = get_parser().parse_args(argv)
    device, n = set_up(args.device, args.gpu, args.threads), args.batch_size
    precisions = args.precisions or (["fp32", "tf32", "bf16"] if device.type == "cuda" else ["fp32", "bf16"])
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {n}")
    views, generator = PretrainingViews(), torch.Generator().manual_seed(0)
    x, num_frames = torch.randn(n, 3, 90, 25, 2), torch.full((n,), 90)
    took = seconds(lambda: views(x.to(device), num_frames, generator), device, 10)
    print(f"two views: {n / took:.0f} samples/s")

    for precision in precisions:
        set_up(args.device, args.gpu, args.threads, precision)
        size = 8192 if device.type == "cuda" else 3072
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = torch.randn(2, size, size, device=device, dtype=dtype)
        rate = 2 * size**3 / seconds(lambda a=a, b=b: a @ b, device, 5)
        net = SCDNet({}).to(device).train()
        if args.compile:
            net.encoder_q.compile(fullgraph=True)
            net.encoder_k.compile(fullgraph=True)
        fused = device.type == "cuda"
        optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.01, 0.9, weight_decay=1e-4, fused=fused)
        inputs = (net, optimizer, views, Batch(x, num_frames, num_frames), generator, precision)
        took = seconds(functools.partial(pretraining.train_step, *inputs), device, args.steps)
        bound, memory = STEP_FLOP * n / rate, peak_memory(device) / 2**30
        print(f"{precision}: matrix product {rate / 1e9:.0f} GFLOP/s; step {took:.3f} s", end=", ")
        print(f"{n / took:.1f} samples/s, {took / bound:.2f} x bound; peak memory {memory:.1f} GiB")


if __name__ == "__main__":
    main()
