"""Seeds and the states of the global generators: torch's draws weights and dropout."""

import random
import secrets

import numpy as np
import torch

from engine.distributed import from_rank_0, rank


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
