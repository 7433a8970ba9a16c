"""How the C library keeps memory, and how much was taken."""

import ctypes
import resource
import sys

import torch

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


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has taken so far: of the GPU's memory for tensors, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB
