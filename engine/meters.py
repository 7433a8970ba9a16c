"""Running means in the reference's line format, and statistics of the contrast."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Meter:
    """Latest value and mean of a metric, printed in a format such as "6.2f".

    A tensor stays on its device until the metric is read, because reading waits for the device.
    """

    form: str = ".4f"
    value: float | Tensor = 0.0
    total: float | Tensor = 0.0
    count: int = 0

    def update(self, value: float | Tensor, n: int = 1) -> None:
        """Add the mean `value` of n samples; a tensor must be a scalar without gradient."""
        self.value, self.total, self.count = value, self.total + value * n, self.count + n

    def mean(self) -> float:
        """Return the mean of all samples, 0 if there are none."""
        return float(self.total) / max(self.count, 1)

    def __str__(self) -> str:
        return f"{float(self.value):{self.form}} ({self.mean():{self.form}})"


def progress_line(epoch: int, step: int, steps: int, meters: dict[str, Meter]) -> str:
    """Return `Epoch: [0][ 0/40]\\tTime ...`: latest value and mean of each meter, separated by tabs."""
    position = f"Epoch: [{epoch}][{step:{len(str(steps))}d}/{steps}]"
    return "\t".join([position, *(f"{name} {meter}" for name, meter in meters.items())])


def top1(logits: dict[str, Tensor]) -> Tensor:
    """Return the percentage of queries whose positive key ranks first, averaged over pairs, on the device."""
    return 100 * torch.stack([(x.detach().argmax(dim=1) == 0).float().mean() for x in logits.values()]).mean()


@torch.no_grad()
def contrast_statistics(
    logits: dict[str, Tensor], losses: dict[str, Tensor], queues: dict[str, Tensor], T: float
) -> dict[str, Tensor]:
    """Return statistics of a step by TensorBoard tag, scalars on the device.

    - loss/ti etc.: cross-entropy of a pair; ln(K + 1) is chance.
    - accuracy/ti: percentage of queries whose positive key ranks first.
    - similarity/positive_ti, negative_ti, hardest_ti: cosine of a query with its positive key, with the keys
      of the queue, and with the nearest of these; mean over the queries.
    - queue/mean_norm_t: norm of the mean key, 0 .. 1; 1 if all keys are equal (collapse).
    - queue/spread_t: root mean squared distance from the mean key, 0 .. 1.
    - queue/dimensions_t: (sum of variances)^2 / sum of squared variances along the principal axes, 1 .. dim:
      the number of directions that the keys use.

    `logits` are those of each pair, (N, 1 + K) with the positive at 0 and temperature T; `queues` are (dim,
    K).
    """
    statistics = {f"loss/{pair}": loss.detach().float() for pair, loss in losses.items()}
    for pair, x in logits.items():
        cosine = x.float() * T
        statistics[f"accuracy/{pair}"] = 100 * (x.argmax(dim=1) == 0).float().mean()
        statistics[f"similarity/positive_{pair}"] = cosine[:, 0].mean()
        statistics[f"similarity/negative_{pair}"] = cosine[:, 1:].mean()
        statistics[f"similarity/hardest_{pair}"] = cosine[:, 1:].amax(dim=1).mean()
    for domain, keys in queues.items():
        mean = keys.float().mean(dim=1, keepdim=True)  # (dim, 1)
        centred = keys.float() - mean
        covariance = centred @ centred.T / keys.shape[1]  # (dim, dim)
        variance = covariance.trace()
        statistics[f"queue/mean_norm_{domain}"] = mean.norm()
        statistics[f"queue/spread_{domain}"] = variance.sqrt()
        statistics[f"queue/dimensions_{domain}"] = variance**2 / covariance.square().sum().clamp(min=1e-30)
    return statistics
