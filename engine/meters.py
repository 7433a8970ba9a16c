"""Progress of an epoch in the reference's line format."""

from torch import Tensor


class Meter:
    """Latest value and weighted mean of a figure; `form` is a format such as "6.2f"."""

    def __init__(self, name: str, form: str):
        self.name, self.form = name, form
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._value = self._total = 0.0
        self._count: float = 0
        self._unread: list[tuple[float | Tensor, int]] = []

    def update(self, value: float | Tensor, n: int = 1) -> None:
        """Take the mean `value` of `n` samples; a tensor is read when a figure is asked for, as that waits for its device."""
        self._unread.append((value, n))

    @property
    def value(self) -> float:
        """The latest value, 0 before the first."""
        return self.state()[0]

    @property
    def total(self) -> float:
        """The sum of value times samples."""
        return self.state()[1]

    @property
    def mean(self) -> float:
        """The mean so far, 0 before the first value."""
        _, total, count = self.state()
        return total / max(count, 1)

    def state(self) -> list[float]:
        """Return what `restore` takes: value, total and number of samples."""
        for value, n in self._unread:
            self._value = float(value)
            self._total += self._value * n
            self._count += n
        self._unread.clear()
        return [self._value, self._total, self._count]

    def restore(self, state: list[float]) -> None:
        """Go on from a `state`."""
        self._value, self._total, self._count = state
        self._unread.clear()

    def __str__(self) -> str:
        return f"{self.name} {self.value:{self.form}} ({self.mean:{self.form}})"


def progress_line(epoch: int, step: int, steps: int, meters: list[Meter]) -> str:
    """Return `Epoch: [0][ 0/40]\\tTime ...\\tLoss ...`, tabs between the meters."""
    return "\t".join([f"Epoch: [{epoch}][{step:{len(str(steps))}d}/{steps}]", *map(str, meters)])
