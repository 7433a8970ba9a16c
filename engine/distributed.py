"""Processes started by torchrun, one per GPU. In a single process, nothing here communicates."""

import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from feeder.cli import UserError


def launched() -> int:
    """Return the number of processes that torchrun starts; 1 without it."""
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    if processes > 1 and "LOCAL_RANK" not in os.environ:  # set by a cluster's scheduler
        raise UserError(f"WORLD_SIZE={processes}: start several processes with torchrun, or unset it")
    return processes


def local_rank() -> int | None:
    """Return the index of this process, and of its GPU, on its machine; None in a run of one process."""
    return int(os.environ["LOCAL_RANK"]) if launched() > 1 else None


def init_processes(device: torch.device) -> None:
    """Connect the processes: NCCL for tensors on GPUs, gloo for tensors on CPUs."""
    if launched() > 1:
        timeout = timedelta(minutes=30)  # a process may be writing a checkpoint
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)


def close_processes() -> None:
    """Disconnect the processes after success, once all are done."""
    if dist.is_initialized():
        gather_objects(None)
        # torch 2.6 and 2.7 end gloo's threads while holding the GIL, and hang if one still needs it to free
        # a tensor
        time.sleep(0.5)
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of connected processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, 0 .. world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def any_process(*flags: bool) -> list[bool]:
    """Return, for each flag, whether it is true in any process."""
    return [any(values) for values in zip(*gather_objects(flags), strict=True)]


def gather_objects(x: Any) -> list:
    """Return `x` (plain types or CPU tensors) of every process, in rank order; wait for all of them."""
    gathered = [x] * world_size()
    if world_size() > 1:
        dist.all_gather_object(gathered, x)
    return gathered
