"""What a training step changes, and what a checkpoint therefore holds."""

from pathlib import Path

import torch
from torch.optim import Optimizer

from engine.checkpoint import load_weights, remembered_sizes, restore_optimizer
from engine.distributed import gather_objects, rank
from engine.progress import Progress
from engine.training import random_states, restore_random_states
from feeder.cli import UserError
from model import SCDNet


class Training:
    """Model, optimiser, position and the generator of the views; torch's global generator (dropout) belongs to it as well.

    Args:
        net: on its device.
        optimizer: of the query encoder.
        generator: what `PretrainingViews` draws from.
        progress: where the training stands.
    """

    def __init__(self, net: SCDNet, optimizer: Optimizer, generator: torch.Generator, progress: Progress):
        self.net, self.optimizer, self.generator, self.progress = net, optimizer, generator, progress

    def state(self) -> dict:
        """Return the entries of a checkpoint that `restore` takes; all processes take part.

        Raises:
            UserError: a weight is not finite: no checkpoint shall hold that.
        """
        if not all(torch.isfinite(p).all() for p in self.net.encoder_q.parameters()):
            raise UserError(f"weights are not finite at {self.progress}: stopped, the last checkpoint stands; try a lower --lr")
        return self.progress.state() | dict(
            state_dict=self.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            sizes=self.net.sizes,
            random=gather_objects(random_states()),
            views=self.generator.get_state(),
        )

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Put everything where `checkpoint` of `load_checkpoint` left it; the reference's has no generators.

        Raises:
            UserError: the checkpoint is of other sizes, or within an epoch of other batches; `path` is for the message.
        """
        sizes = self.net.encoder_q.encoder.sizes
        for name, value in remembered_sizes(checkpoint).items():
            if sizes[name] != value:
                raise UserError(f"{path} has {name} {value}, the run {sizes[name]}")
        load_weights(self.net, checkpoint["state_dict"], path)
        restore_optimizer(self.optimizer, self.net, checkpoint, path)
        self.progress.restore(checkpoint)
        if "random" in checkpoint:
            self.generator.set_state(checkpoint["views"])
            if rank() < len(checkpoint["random"]):  # of more processes than then, the others begin with their own
                restore_random_states(checkpoint["random"][rank()])
