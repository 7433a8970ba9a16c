"""Where a training stands, and what happens between two steps: saving when it is time, ending when a signal came."""

from collections.abc import Iterator
from typing import cast

from torch.utils.data import DataLoader

from engine.checkpoint_folder import CheckpointFolder
from engine.distributed import any_process, world_size
from engine.meters import Meter
from engine.training import StopSignals
from feeder.cli import UserError
from feeder.dataset import Batch, Batches


class Progress:
    """Epochs done, steps done of the epoch that runs, and that epoch's meters.

    Args:
        epoch: epochs done.
        steps: steps of an epoch.
        batch_size: clips a step, of all processes.
        meters: names and formats of the figures that an epoch averages.

    Attributes:
        stopping: a signal came to one of the processes.
    """

    def __init__(self, epoch: int, steps: int, batch_size: int, meters: dict[str, str]):
        self.epoch, self.step, self.steps, self.batch_size = epoch, 0, steps, batch_size
        self.meters = [Meter(name, form) for name, form in meters.items()]
        self.stopping = False

    @property
    def epoch_done(self) -> bool:
        """Whether all steps of the epoch are done."""
        return self.step == self.steps

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f", step {self.step}" if self.step else "")

    def next_epoch(self) -> None:
        """Count the epoch as done and begin the next with empty meters."""
        self.epoch, self.step = self.epoch + 1, 0
        for meter in self.meters:
            meter.reset()

    def state(self) -> dict:
        """Return the entries of a checkpoint that `restore` takes; `epoch` is the number of epochs that are done, whole."""
        return dict(epoch=self.epoch, step=self.step, steps=self.steps, batch_size=self.batch_size,
                    meters={meter.name: meter.state() for meter in self.meters})  # fmt: skip

    def restore(self, checkpoint: dict) -> None:
        """Go on where `checkpoint` was written; one without a step was written between two epochs.

        Raises:
            UserError: it was written within an epoch of other batches.
        """
        self.epoch, self.step = checkpoint.get("epoch", self.epoch), checkpoint.get("step", 0)
        if not self.step:
            return
        theirs, ours = [checkpoint["steps"], checkpoint["batch_size"]], [self.steps, self.batch_size]
        if theirs != ours:
            raise UserError(
                f"the checkpoint stands at step {self.step} of {theirs[0]} of --batch-size {theirs[1]}, this run has {ours[0]} "
                f"of {ours[1]}: go on with the same data and --batch-size to the end of the epoch"
            )
        for meter in self.meters:
            meter.restore(checkpoint["meters"][meter.name])

    def batches(self, loader: DataLoader, stop: StopSignals, folder: CheckpointFolder) -> Iterator[Batch]:
        """Yield what is left of the epoch; between steps save where --save-minutes have passed, and end where a signal came.

        All processes save and end after the same step.

        Args:
            loader: its sampler is a `Batches`, which is told where to begin.
            stop: asked after each step.
            folder: says when it is time, and saves.
        """
        order = cast(Batches, loader.sampler)  # torch says no more than Iterable
        order.epoch, order.start = self.epoch, self.step
        remaining = iter(loader)
        while not self.stopping and self.step < self.steps:
            try:
                batch = next(remaining)
            except RuntimeError:
                if stop.signum is None or world_size() > 1:
                    raise
                self.stopping = True  # the signal reached the workers as well, and ended them
                return
            yield batch
            self.step += 1
            self.stopping, due = any_process(stop.signum is not None, folder.due)
            if due and not self.stopping and self.step < self.steps:
                folder.save()
