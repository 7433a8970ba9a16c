"""Count ops, bytes and copies of a full-size pre-training step on "meta", without a device.

    python tests/benchmarks/bench_step_cost.py [--batch-size 64] [--top 10]

Bytes are the inputs and outputs of every op that is not a view, in float32. Counts are exact and the same on
every machine. On "meta" a read on the host is an error, so a step that runs here never waits for the device.
"""

import argparse
import collections
import math
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import pretraining  # noqa: E402
from feeder.augmentations import PretrainingViews  # noqa: E402
from feeder.dataset import Batch  # noqa: E402
from model import SCDNet  # noqa: E402

META = torch.device("meta")
FREE = """view _unsafe_view t transpose permute expand slice select split split_with_sizes detach alias
    as_strided unsqueeze squeeze unbind chunk _reshape_alias lift_fresh empty empty_like
    empty_strided""".split()


class Count(TorchDispatchMode):
    """Count the kernels on "meta", the bytes that they touch, and the copies from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.ops, self.bytes = collections.Counter(), collections.Counter()
        self.copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), function._schema.name.removeprefix("aten::")
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        on_meta = [t for t in tensors if t.device.type == "meta"]
        if on_meta and name not in FREE:
            self.ops[name] += 1
            self.bytes[name] += sum(touched(t) for t in on_meta)
        on_cpu = [t for t in tensors if t.device.type == "cpu" and (t.dim() or name == "_to_copy")]
        self.copies += bool(on_meta and on_cpu)
        return out


def touched(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor; an expanded axis counts once."""
    lengths = [length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return tensor.element_size() * math.prod(lengths) if tensor.numel() else 0


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="clips (%(default)s)")
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="ops, most bytes first (%(default)s)"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    args = get_parser().parse_args(argv)
    with META:
        net = SCDNet({})
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.01, 0.9, weight_decay=1e-4, foreach=True)
    x, num_frames = torch.empty(args.batch_size, 3, 100, 25, 2), torch.full((args.batch_size,), 80)
    views, generator = PretrainingViews(), torch.Generator().manual_seed(0)
    for _ in range(2):  # momentum and constants exist from the second step on
        with Count() as count, FlopCounterMode(display=False) as flops:
            pretraining.train_step(net, optimizer, views, Batch(x, num_frames, num_frames), generator)
    total, products = sum(count.bytes.values()) / 1e9, flops.get_total_flops() / 1e9
    print("| | ops | GB | GFLOP of products | copies from the host |\n|---|---|---|---|---|")
    step = f"step, fp32, batch {args.batch_size}"
    print(f"| {step} | {count.ops.total():,} | {total:.1f} | {products:,.0f} | {count.copies} |")
    for name, size in count.bytes.most_common(args.top):
        print(f"| {name} | {count.ops[name]} | {size / 1e9:.1f} | | |")


if __name__ == "__main__":
    main()
