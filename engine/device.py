"""Which device, and how random."""

import random
import secrets

import numpy as np
import torch

from engine.errors import RunError


def pick_device(name: str = "auto", gpu: int | None = None) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, else the CPU; `gpu` N is "cuda:N".

    Raises:
        RunError: there is no such device here, or the two contradict each other.
    """
    if gpu is not None:
        if name not in ("auto", f"cuda:{gpu}"):
            raise RunError(f"--device {name} and --gpu {gpu} contradict each other")
        name = f"cuda:{gpu}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RunError(f"no device {name!r}: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RunError(f"device {name!r} is not supported: choose auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RunError(f"device {name!r} asked for, but torch sees {count} GPUs; --device cpu runs without")
    return device


def seed_everything(seed: int | None) -> int:
    """Return the seed (a fresh one for None) after giving it to Python, NumPy and torch."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def random_states() -> dict:
    """Return the state of every global generator, as plain types and tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict) -> None:
    """Set every global generator to a state of `random_states`; GPUs' only where their number is the same."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
