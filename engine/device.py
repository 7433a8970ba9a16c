"""The device of a run, its precision and its memory.

Normalisation, loss, similarities and queues are computed in float32 at every precision (products in tf32 with "tf32").
"""

import contextlib
import ctypes
import resource
import sys

import torch

from engine.distributed import local_rank
from feeder.cli import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def pick_device(name: str = "auto", gpu: int | None = None) -> torch.device:
    """Return a device with an index if it is a GPU, and make that GPU torch's current one.

    Args:
        name: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one and the CPU otherwise. "cuda" is the first GPU that
            torch sees, or the process's own under torchrun.
        gpu: N, the same as "cuda:N".

    Raises:
        UserError: there is no such device, `name` and `gpu` contradict each other, or several processes name one GPU.
    """
    if gpu is not None:
        if name not in ("auto", "cuda", f"cuda:{gpu}"):
            raise UserError(f"--device {name} and --gpu {gpu} contradict each other")
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # refused below
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.index is None:
        device = torch.device("cuda", local_rank() or 0)
    elif local_rank() is not None:
        raise UserError(
            f"under torchrun each process takes its own GPU: omit {name!r}, set CUDA_VISIBLE_DEVICES to choose among them"
        )
    if device.index >= torch.cuda.device_count():
        raise UserError(f"no device {device}: torch sees {torch.cuda.device_count()} GPUs; use --device cpu to run without")
    torch.cuda.set_device(device)
    return device


def set_precision(precision: str, device: torch.device) -> None:
    """Allow tf32 products with "tf32" only; "fp32" has the reference's numerics.

    Raises:
        UserError: tf32 on a CPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32 needs a GPU: choose fp32 or bf16 on a CPU")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context of a forward pass: bfloat16 autocast with "bf16", nothing otherwise."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the kernel.

    Training allocates the same large blocks in every step, and the kernel would map and clear them each time: steps on CPUs
    became 1.3 to 1.6 times faster. No effect with other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: tensors on a GPU, or main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB
