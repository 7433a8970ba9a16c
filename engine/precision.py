"""How exactly the encoders calculate. Loss, normalisation and queues are in float32 whatever is chosen."""

import contextlib

import torch

from engine.errors import RunError

PRECISIONS = ("fp32", "tf32", "bf16")


def set_precision(precision: str, device: torch.device) -> None:
    """Allow or forbid tf32 products; fp32 is the reference's numerics.

    Raises:
        RunError: tf32 asked of a device that has none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise RunError("--precision tf32 is CUDA's: choose fp32 or bf16 on a CPU")
    allowed = precision != "fp32" and device.type == "cuda"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which to run a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
