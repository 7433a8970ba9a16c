"""What tells how a contrast goes: the loss and accuracy of each pair, the similarities, whether the queues' keys collapse."""

import torch
from torch import Tensor


class ContrastStatistics:
    """Means over the logged steps of an epoch.

    Only these steps are looked at, and their figures stay on the device until `means`, so that training does not wait.

    Args:
        T: temperature that the logits were divided by.
    """

    def __init__(self, T: float):
        self.T = T
        self._names: list[str] = []
        self._steps: list[Tensor] = []

    def update(self, logits: dict[str, Tensor], losses: dict[str, Tensor], queues: dict[str, Tensor]) -> None:
        """Take the logits (N, 1 + K) and the loss of each pair and the keys (dim, K) of each queue, as `SCDNet` has them."""
        figures = step_statistics(logits, losses, queues, self.T)
        self._names = list(figures)
        self._steps.append(torch.stack(list(figures.values())))

    def means(self) -> dict[str, float]:
        """Return the mean of each figure since the last call, by TensorBoard's name; nothing where no step was taken."""
        if not self._steps:
            return {}
        values = torch.stack(self._steps).mean(dim=0).tolist()
        self._steps.clear()
        return dict(zip(self._names, values, strict=True))


@torch.no_grad()
def step_statistics(
    logits: dict[str, Tensor], losses: dict[str, Tensor], queues: dict[str, Tensor], T: float
) -> dict[str, Tensor]:
    """Return the figures of a step, scalars on the device of the logits.

    - loss/ti and so on: the cross-entropy of a pair; chance is ln(K + 1).
    - accuracy/ti: the share in percent of queries whose key ranks first.
    - similarity/positive_ti, negative_ti, hardest_ti: cosine of a query with its key, with the queue's keys, and with the
      nearest of them, mean over the queries.
    - queue/mean_norm_t: length of the mean key, 0 .. 1; 1 where all keys are the same, which is collapse.
    - queue/spread_t: root of the mean squared distance from the mean key, 0 .. 1.
    - queue/dimensions_t: (sum of variances)^2 / sum of squared variances along the principal axes, 1 .. dim: how many
      directions the keys use.

    Args:
        logits: of each pair, (N, 1 + K), positive at 0.
        losses: of each pair, a scalar.
        queues: of each domain, (dim, K), normalised over dim.
        T: temperature that the logits were divided by.
    """
    figures = {f"loss/{pair}": loss.detach().float() for pair, loss in losses.items()}
    for pair, x in logits.items():
        figures[f"accuracy/{pair}"] = 100 * (x.argmax(dim=1) == 0).float().mean()
        cosine = x.float() * T
        figures[f"similarity/positive_{pair}"] = cosine[:, 0].mean()
        figures[f"similarity/negative_{pair}"] = cosine[:, 1:].mean()
        figures[f"similarity/hardest_{pair}"] = cosine[:, 1:].amax(dim=1).mean()
    for domain, keys in queues.items():
        mean, spread, dimensions = _key_statistics(keys.float())
        figures[f"queue/mean_norm_{domain}"] = mean
        figures[f"queue/spread_{domain}"] = spread
        figures[f"queue/dimensions_{domain}"] = dimensions
    return figures


def _key_statistics(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return length of the mean, spread and used dimensions of keys (dim, K)."""
    mean = keys.mean(dim=1, keepdim=True)  # (dim, 1)
    centred = keys - mean
    covariance = centred @ centred.T / keys.shape[1]  # (dim, dim)
    variance = covariance.trace()
    dimensions = variance**2 / covariance.square().sum().clamp(min=1e-30)  # 0 where all keys are the same
    return mean.norm(), variance.sqrt(), dimensions
