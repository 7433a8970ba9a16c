"""Several processes, one a GPU, as `torchrun` starts them. Without `torchrun`, or with one process, every function here does
nothing or the plain thing: world size 1, gathering gives its argument back."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from feeder.cli import UserError
from model.batchnorm import synchronise

PATIENCE = timedelta(minutes=30)  # for the slowest process, which may be writing a checkpoint


def launched() -> int:
    """Return how many processes the launcher said it starts; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int | None:
    """Return the number of this process on its machine, that of the GPU it takes; None in a run of one process."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() > 1 else None


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes while entered: NCCL for tensors on GPUs, gloo for those on CPUs.

    After an error the connection is left as it is: closing it could wait for processes that wait for this one. The launcher
    ends them.

    Raises:
        UserError: another process ended in the midst of an exchange, which says why itself.
    """
    if launched() == 1:
        yield
        return
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        yield
    except RuntimeError as error:
        if "gloo" in str(error) or isinstance(error, dist.DistError):
            raise UserError(f"lost the other processes; the first to end says why ({str(error).splitlines()[0]})") from None
        raise
    dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that are connected."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 .. world_size() - 1; 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(total: int) -> slice:
    """Return which rows of a batch of `total`, a multiple of the world size, are this process's: rank r has the r-th part."""
    size = total // world_size()
    return slice(rank() * size, (rank() + 1) * size)


def gather_batch(x: Tensor) -> Tensor:
    """Return the x (N, ...) of all processes, of one shape, in rank order: (world * N, ...). No gradient passes."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_rows(x: Tensor, total: int) -> Tensor:
    """Return the rows of all processes in the order of a data set that was dealt out in turn: (total, ...).

    Args:
        x: of rank r the rows r, r + world, r + 2 world, ... of `total`; the last may be lacking.
        total: rows of the data set.
    """
    if world_size() == 1:
        return x
    longest = -(-total // world_size())
    padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])])  # (longest, ...)
    parts = gather_batch(padded).view(world_size(), longest, *x.shape[1:])
    return parts.transpose(0, 1).flatten(0, 1)[:total]  # (total, ...)


def average(x: Tensor) -> Tensor:
    """Return the mean of x over the processes, without gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world_size()


def average_gradients(module: nn.Module) -> None:
    """Replace the gradients of `module` by their means over the processes, in one exchange."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = average(torch.cat([g.flatten() for g in gradients]))
    means = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [mean.view_as(g) for mean, g in zip(means, gradients, strict=True)])


def make_alike(module: nn.Module, device: torch.device, sync_batchnorm: bool = True) -> None:
    """Give `module` rank 0's weights and buffers in every process and, if asked for, BatchNorms over the total batch.

    Args:
        module: already on `device`; its BatchNorms are replaced in it.
        device: torch's own synchronised BatchNorm is for GPUs alone; on CPUs ours does the same.
        sync_batchnorm: whether statistics are those of the total batch, or of each process's part.
    """
    if world_size() == 1:
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.detach(), src=0)
    if not sync_batchnorm:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    else:
        synchronise(module, total)


def total(x: Tensor) -> Tensor:
    """Return the sum of x over the processes; the gradient is summed over them as well."""
    return x if world_size() == 1 else _Total.apply(x)


def any_process(*flags: bool) -> list[bool]:
    """Return for each flag whether it is true in some process: what all then do alike."""
    if world_size() == 1:
        return list(flags)
    counts = torch.tensor(flags, dtype=torch.int32)  # on the CPU: never waits for a GPU's work
    dist.all_reduce(counts)
    return [count > 0 for count in counts.tolist()]


def from_rank_0(x: Any) -> Any:
    """Return rank 0's x, a number, text or the like."""
    if world_size() == 1:
        return x
    box = [x]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(x: Any) -> list:
    """Return the x of all processes, plain types or tensors on the CPU, in rank order."""
    if world_size() == 1:
        return [x]
    gathered = [None] * world_size()
    dist.all_gather_object(gathered, x)
    return gathered


def check_alike(what: str, x: Any) -> None:
    """Raise `UserError` unless all processes have the same x.

    Args:
        what: names x and the remedy.
        x: something that compares.
    """
    found: Iterable = gather_objects(x)
    if any(other != x for other in found):
        raise UserError(f"the processes differ in {what}: {', '.join(map(str, found))}")


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad
