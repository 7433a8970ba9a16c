"""Progress of an epoch in the reference's line format."""


class Meter:
    """Latest value and weighted mean of a figure; `form` is a format such as "6.2f"."""

    def __init__(self, name: str, form: str):
        self.name, self.form = name, form
        self.value = self.total = 0.0
        self.count = 0

    def update(self, value: float, n: int = 1) -> None:
        """Take the mean `value` of `n` samples."""
        self.value = value
        self.total += value * n
        self.count += n

    @property
    def mean(self) -> float:
        """The mean so far, 0 before the first value."""
        return self.total / max(self.count, 1)

    def __str__(self) -> str:
        return f"{self.name} {self.value:{self.form}} ({self.mean:{self.form}})"


def progress_line(epoch: int, step: int, steps: int, meters: list[Meter]) -> str:
    """Return `Epoch: [0][ 0/40]\\tTime ...\\tLoss ...`, tabs between the meters."""
    return "\t".join([f"Epoch: [{epoch}][{step:{len(str(steps))}d}/{steps}]", *map(str, meters)])
