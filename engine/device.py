"""Which device, and how random."""

import random
import secrets

import numpy as np
import torch

from engine.distributed import from_rank_0, local_rank, rank
from engine.errors import RunError


def pick_device(name: str = "auto", gpu: int | None = None) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, else the CPU; `gpu` N is "cuda:N".

    A GPU becomes torch's current one. Of several processes on a machine, the n-th takes its n-th GPU.

    Raises:
        RunError: there is no such device here, the two contradict each other, or several processes are to share a GPU.
    """
    if gpu is not None:
        if name not in ("auto", f"cuda:{gpu}"):
            raise RunError(f"--device {name} and --gpu {gpu} contradict each other")
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank() is not None and name.startswith("cuda"):
        if name != "cuda":
            raise RunError(f"each process takes a GPU of its own: leave {name!r} out; CUDA_VISIBLE_DEVICES chooses among them")
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RunError(f"no device {name!r}: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RunError(f"device {name!r} is not supported: choose auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RunError(f"device {name!r} asked for, but torch sees {count} GPUs; --device cpu runs without")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def seed_everything(seed: int | None) -> int:
    """Return the seed after giving it to Python, NumPy and torch; for None a fresh one, in all processes the same."""
    seed = from_rank_0(secrets.randbelow(2**31)) if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def part_dropout(seed: int) -> None:
    """Give each process but rank 0 a torch generator of its own, so that they do not drop the same units."""
    if rank():
        torch.manual_seed((seed + rank()) % 2**63)


def random_states() -> dict:
    """Return the state of every global generator of this process, as plain types and tensors; of GPUs the current one's."""
    version, numbers, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    gaussian = [numpy["has_gauss"], numpy["gauss"]]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [numpy["bit_generator"], numpy["state"]["key"].tolist(), numpy["state"]["pos"], *gaussian],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_random_states(states: dict) -> None:
    """Set every global generator to a state of `random_states`; a GPU's only where both runs have one."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_initialized() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
