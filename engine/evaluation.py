"""Figures of evaluations: accuracy, fusion of streams, label subsets, and the rows of result.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.encoders import as_published, describe_encoder
from engine.runlog import Run
from feeder.cli import UserError
from feeder.data_sets import DATA_SETS
from options.flags import as_flag

TOLERANCE = 0.002  # share of a whole data set's samples; for PKU-MMD, scripts differ slightly in their number


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Return the top-k accuracy in percent of scores (N, classes) and labels (N,); k at most classes."""
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices  # (N, k)
    return (top == labels[:, None]).any(dim=1).double().mean().item() * 100


def fuse(scores: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Return the weighted sum (...) of the scores (streams, ...); weights are 1 by default."""
    return torch.tensordot(torch.tensor(weights or [1.0] * len(scores)), scores, dims=1)


def summarise(scores: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Return the accuracies of the last and the best epoch, mean and standard deviation over repeats.

    `scores` are (repeats, E, N, classes): of the last epoch and, if E is 2, of the best on the test set.
    """
    found: dict[str, float | None] = {}
    for name, repeats in zip(("acc1", "best_acc1"), scores.unbind(dim=1), strict=False):
        values = torch.tensor([accuracy(x, labels) for x in repeats], dtype=torch.float64)
        found[name] = values.mean().item()
        found[f"{name}_std"] = values.std().item() if len(values) > 1 else None
    return dict.fromkeys(("acc1", "acc1_std", "best_acc1", "best_acc1_std")) | found


def result_row(
    run: Run, record: dict[str, Any], stream: str, task: str, **figures: float | None
) -> dict[str, Any]:
    """Return a row of result.json; its columns are those of `engine.results`.

    Args:
        run: task and data of the run.
        record: what the run records: "options", "seed", "setup", "data", "encoders" (origins of its streams).
        stream: the stream of this row, or "joint+motion" etc. for their fusion.
        task: such as "linear" or "1-NN retrieval".
        figures: accuracies in percent.
    """
    streams, data, options = stream.split("+"), record["data"], record["options"]
    origins = [record["encoders"][run.stream.split("+").index(name)] for name in streams]
    encoders = [describe_encoder(origin, run, name) for name, origin in zip(streams, origins, strict=True)]
    labels = record.get("labels", options.get("label_fraction", 1.0))

    # what was trained and how; digests identify the data, and weights of unknown origin
    parts = [
        origin.get("setup") or (origin["digest"][:8] if "seed" not in origin else "") for origin in origins
    ]
    parts += [record["setup"], f"{data['train']} + {data['test']} clips {data['digest'][:8]}"]
    if len(streams) > 1 and options.get("stream_weights"):
        parts.append(as_flag("stream_weights", options["stream_weights"]))

    # the published figure is comparable with the paper's method on the whole data set
    full = DATA_SETS[run.data_set].protocols.get(run.protocol)
    counts = zip((data["train"], data["test"]), full or (), strict=bool(full))
    whole = bool(full) and all(abs(found - n) <= TOLERANCE * n for found, n in counts)
    comparable = whole and stream == "joint" and labels == 1 and as_published(origins[0], run)
    return {
        "task": task,
        "data_set": run.data_set,
        "protocol": run.protocol,
        "stream": stream,
        "encoder": "; ".join(dict.fromkeys(encoders)),
        "labels": labels,
        "setup": "; ".join(part for part in dict.fromkeys(parts) if part),
        "seed": record["seed"],
        "weights": " ".join(origin.get("digest", "")[:8] for origin in origins),
        "comparable": comparable,
        **figures,
    }


def repeat_seed(seed: int, repeat: int) -> int:
    """Return the seed of a repeat: `seed` for the first, one derived from both for the others."""
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed


def balanced_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the sorted rows (n,) of n = round(fraction * N) samples, balanced over the classes.

    The classes take turns, in random order, to contribute a random sample until there are n; a class without
    further samples is skipped. Raise `UserError` if a class of `labels` (N,) would be empty.
    """
    total, classes = round(fraction * len(labels)), np.unique(labels)
    if total < len(classes):
        problem = f"--label-fraction {fraction:g} of {len(labels)} samples is {total}"
        needed = f"at least {len(classes) / len(labels):.4g} is needed"
        raise UserError(f"{problem}, which leaves some of the {len(classes)} classes empty: {needed}")
    rng = np.random.default_rng([seed, 0, 1])  # batches are shuffled by [seed, epoch]
    queues = [rng.permutation(np.flatnonzero(labels == label)).tolist() for label in rng.permutation(classes)]
    longest = max(map(len, queues))
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return np.sort(turns[:total])
