"""The device of a run, its precision and its memory.

Normalisation, loss, similarities and queues are computed in float32 at every precision; with "tf32", their
matrix products use tf32.
"""

import contextlib
import ctypes
import re
import resource
import sys

import torch

from engine.distributed import local_rank
from feeder.cli import UserError


def pick_device(name: str = "auto", gpu: int | None = None) -> torch.device:
    """Return a device, with an index if it is a GPU, and make that GPU torch's current device.

    Args:
        name: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one and the CPU otherwise. "cuda" is
            the first GPU that torch sees, or the GPU of this process under torchrun.
        gpu: N, the same as "cuda:N".
    """
    if gpu is not None:
        if name not in ("auto", "cuda", f"cuda:{gpu}"):
            raise UserError(f"--device {name} and --gpu {gpu} contradict each other")
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:[1-9]?\d)?", name):
        raise UserError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.index is None:
        device = torch.device("cuda", local_rank() or 0)
    elif local_rank() is not None:
        remedy = f"omit {name!r} and set CUDA_VISIBLE_DEVICES"
        raise UserError(f"under torchrun each process uses its own GPU: {remedy}")
    if device.index >= torch.cuda.device_count():
        found = f"torch sees {torch.cuda.device_count()} GPUs"
        raise UserError(f"no device {device}: {found}; use --device cpu to run without a GPU")
    torch.cuda.set_device(device)
    return device


def set_up(
    name: str, gpu: int | None = None, threads: int | None = None, precision: str = "fp32"
) -> torch.device:
    """Return the device of a run, as `pick_device` does, after setting torch's threads and precision."""
    device = pick_device(name, gpu)
    if precision == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32 needs a GPU: choose fp32 or bf16 on a CPU")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        _keep_freed_memory()
    return device


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context of a forward pass: bfloat16 autocast with "bf16", a null context otherwise."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, which allocates the same large blocks.

    Otherwise, the kernel maps and clears them in each step; keeping them makes steps on a CPU 1.3 to 1.6
    times faster. Not used with GPUs, where the memory of a loaded checkpoint would never be freed. It has no
    effect with other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX of malloc.h
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: of tensors on a GPU, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB
