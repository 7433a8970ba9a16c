"""Processes started by torchrun, one per GPU. In a single process every function here is a no-op."""

import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from feeder.cli import UserError

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> int:
    """Return the number of processes that torchrun starts; 1 without it."""
    text = os.environ.get("WORLD_SIZE", "1").strip() or "1"
    if text == "1":
        return 1
    if not text.isdecimal() or int(text) < 1 or not all(os.environ.get(name) for name in LAUNCHER):
        remedy = "start several processes with torchrun, or unset it"
        raise UserError(f"WORLD_SIZE={text} without {', '.join(LAUNCHER)}: {remedy}")
    return int(text)


def local_rank() -> int | None:
    """Return the index of this process on its machine and of its GPU; None in a run of one process."""
    return int(os.environ["LOCAL_RANK"]) if launched() > 1 else None


def init_processes(device: torch.device) -> None:
    """Connect the processes: NCCL for tensors on GPUs, gloo for tensors on CPUs."""
    if launched() > 1:
        timeout = timedelta(minutes=30)  # a process may be writing a checkpoint
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)


def close_processes() -> None:
    """Disconnect the processes after success, once all are done: torchrun ends them together."""
    if dist.is_initialized():
        wait_for_all()
        # torch 2.6 and 2.7 end gloo's threads with the GIL held, and hang if one still needs it to free a
        # tensor
        time.sleep(0.5)
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of connected processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, 0 .. world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def average(x: Tensor) -> Tensor:
    """Return the mean of x over the processes, without gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world_size()


def any_process(*flags: bool) -> list[bool]:
    """Return, for each flag, whether it is true in any process."""
    counts = torch.tensor(flags, dtype=torch.int32)  # on the CPU: does not wait for a GPU
    if world_size() > 1:
        dist.all_reduce(counts)
    return [count > 0 for count in counts.tolist()]


def wait_for_all() -> None:
    """Wait until all processes have reached this call."""
    any_process(False)


def gather_objects(x: Any) -> list:
    """Return the x of all processes, plain types or CPU tensors, in rank order."""
    gathered = [x] * world_size()
    if world_size() > 1:
        dist.all_gather_object(gathered, x)
    return gathered
