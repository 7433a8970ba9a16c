"""Learning rates."""

import math

from torch.optim import Optimizer


def learning_rate(lr: float, epoch: int, epochs: int, schedule: list[int], cos: bool = False) -> float:
    """Return the learning rate of an epoch: a tenth at each milestone of `schedule`, or half a cosine down to 0."""
    if cos:
        return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return lr * 0.1 ** sum(epoch >= milestone for milestone in schedule)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
