"""Which device, and how exactly the encoders calculate on it.

Loss, normalisation, similarities and queues are in float32 whatever precision is chosen (with tf32's products in "tf32").
"""

import contextlib
import ctypes
import resource
import sys

import torch

from engine.distributed import local_rank
from feeder.cli import UserError

PRECISIONS = ("fp32", "tf32", "bf16")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of handing it back to the kernel.

    Training frees and asks for the same large blocks in every step; each time the kernel would map and clear them anew.
    On CPUs steps became 1.3 to 1.6 times faster. Does nothing with other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def pick_device(name: str = "auto", gpu: int | None = None) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, else the CPU; `gpu` N is "cuda:N".

    A GPU becomes torch's current one. Of several processes on a machine, the n-th takes its n-th GPU.

    Raises:
        UserError: there is no such device here, the two contradict each other, or several processes are to share a GPU.
    """
    if gpu is not None:
        if name not in ("auto", f"cuda:{gpu}"):
            raise UserError(f"--device {name} and --gpu {gpu} contradict each other")
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank() is not None and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(f"each process takes a GPU of its own: leave {name!r} out; CUDA_VISIBLE_DEVICES chooses among them")
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device {name!r}: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported: choose auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(f"device {name!r} asked for, but torch sees {count} GPUs; --device cpu runs without")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def set_precision(precision: str, device: torch.device) -> None:
    """Allow tf32 products for "tf32" alone; fp32 is the reference's numerics, and what bf16 leaves in float32 is float32.

    Raises:
        UserError: tf32 asked of a device that has none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32 is CUDA's: choose fp32 or bf16 on a CPU")
    allowed = precision == "tf32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which to run a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has taken so far: of the GPU's memory for tensors, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB
