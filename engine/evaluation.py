"""Figures of evaluations: accuracy, fusion of streams, balanced label subsets, and the rows of a run's result.json."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.runlog import Run
from feeder.cli import UserError
from feeder.preparation.ntu import SAMPLE_COUNTS as NTU
from feeder.preparation.pku import SAMPLE_COUNTS as PKU
from model.contrast import PAIRS
from options.datasets import PROTOCOL_FOLDERS

# Training and test samples of the whole data sets. Those of PKU-MMD depend slightly on the script.
FULL = NTU | {(f"pku_part{part}", split): counts for (part, split), counts in PKU.items()}
TOLERANCE = 0.002  # of these numbers
# Options that do not change the result. `pretrained` is only a path; `origins` identify the encoders.
INCIDENTAL = set(
    "seed config data_path log_dir checkpoint_path pretrained resume save_freq print_freq save_minutes workers device gpu "
    "compile save_features threads".split()
)


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Return the top-k accuracy in percent of scores (N, classes) and labels (N,); k is at most the number of classes."""
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices  # (N, k)
    return (top == labels[:, None]).any(dim=1).double().mean().item() * 100


def fuse(scores: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Return the weighted sum (...) of the scores (streams, ...); weights are 1 by default."""
    return torch.tensordot(torch.tensor(weights or [1.0] * len(scores)), scores, dims=1)


def summarise(scores: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Return the accuracies of a row of result.json: mean and standard deviation over repeats, of the last and the best epoch.

    `scores` are (repeats, 2, N, classes), of the last epoch and of the epoch with the best test accuracy.
    """
    found = torch.tensor(
        [[accuracy(epoch, labels) for epoch in repeat] for repeat in scores], dtype=torch.float64
    )
    last, best = found.mean(dim=0).tolist()
    last_std, best_std = found.std(dim=0).tolist() if len(found) > 1 else (None, None)
    return {"acc1": last, "acc1_std": last_std, "best_acc1": best, "best_acc1_std": best_std}


def describe_encoder(origin: dict, protocol: str, stream: str) -> str:
    """Return the origin of an encoder and how it differs from the paper's pre-training with this protocol and stream.

    `origin` has the "task" and the options of the run that made the encoder; return "unknown" if they are incomplete.
    """
    try:
        task = origin["task"]
        if task == "linear":  # its encoder was frozen
            return describe_encoder(origin["origins"][0], protocol, stream)
        if task in ("finetune", "supervised"):
            return f"{'fine-tuned' if task == 'finetune' else 'supervised'} on {origin['finetune_dataset']}"
        if task != "pretraining":
            return {"random": "random", "raw": "none (raw coordinates)", "reference": "reference"}[task]
        words = [f"pre-trained on {origin['pre_dataset']}"]
        epochs = origin.get("epochs", 0)
        words += (
            [f"unfinished: epoch {origin['epoch']} of {epochs}"]
            if origin.get("epoch", epochs) < epochs
            else []
        )
        words += [f"{origin['protocol']}: may have seen test clips"] if origin["protocol"] != protocol else []
        words += (
            [f"{origin['skeleton_representation']} stream"]
            if origin["skeleton_representation"] != stream
            else []
        )
        words += ["without masks"] if origin.get("no_masks") else []
        pairs = origin.get("pairs", PAIRS)
        words += [f"pairs {' '.join(pairs)}"] if set(pairs) != set(PAIRS) else []
        return ", ".join(words)
    except (KeyError, IndexError, TypeError):
        return "unknown"


def result_row(
    run: Run, options: dict[str, Any], stream: str, task: str, **figures: float | None
) -> dict[str, Any]:
    """Return a row of result.json, with the entries of `engine.results.FIELDS`.

    Args:
        run: task and data of the run.
        options: all its options, and "seed", "data" and "origins" of its `Task`.
        stream: the stream of this row, or "joint+motion" etc. for their fusion.
        task: such as "linear" or "1-NN retrieval".
        figures: accuracies in percent.
    """
    streams = stream.split("+")
    origins = [
        origin
        for name, origin in zip(run.stream.split("+"), options["origins"], strict=True)
        if name in streams
    ]
    encoders = [
        describe_encoder(origin, run.protocol, name) for name, origin in zip(streams, origins, strict=True)
    ]
    encoder, labels = "; ".join(dict.fromkeys(encoders)), float(options.get("label_fraction", 1))
    row = dict(
        task=task, data_set=run.data_set, protocol=run.protocol, stream=stream, encoder=encoder, labels=labels
    )

    # the published figure is comparable with the paper's method on the whole data set
    full, found = FULL.get((run.data_set, PROTOCOL_FOLDERS.get(run.protocol))), options["data"]
    whole = full and all(
        abs(found[part] - n) <= TOLERANCE * n for part, n in zip(("train", "test"), full, strict=True)
    )
    comparable = bool(whole) and (stream, labels, encoder) == ("joint", 1, f"pre-trained on {run.data_set}")

    # task and stream of the row already identify these options
    own = options | {"origins": origins, "finetune_skeleton_representation": None, "knn_neighbours": None}
    group = hashlib.sha256(repr((row, essential(own))).encode()).hexdigest()[:16]
    return row | {"seed": options["seed"], "comparable": comparable, "group": group} | figures


def essential(value: Any) -> Any:
    """Return (nested) options as sorted pairs, without those that do not affect results."""
    if isinstance(value, list):
        return [essential(item) for item in value]
    if not isinstance(value, dict):
        return value
    # the weights differ between seeds; without a seed, the digest of the weights identifies the encoder
    omitted = INCIDENTAL | ({"digest"} if "seed" in value else set())
    return sorted(
        ((str(name), essential(item)) for name, item in value.items() if name not in omitted), key=str
    )


def repeat_seed(seed: int, repeat: int) -> int:
    """Return the seed of a repeat: `seed` for the first, then one derived from both, so that no two runs share a seed."""
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed


def balanced_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the sorted rows (n,) of round(fraction * N) samples, the same number of each class as far as possible.

    A class with too few samples contributes all its samples and other classes contribute more; a remainder goes to randomly
    drawn classes. Raise UserError if a class of `labels` (N,) would be empty.
    """
    total, classes = round(fraction * len(labels)), np.unique(labels)
    if total < len(classes):
        problem = f"--label-fraction {fraction:g} of {len(labels)} samples is {total}"
        needed = f"at least {len(classes) / len(labels):.4g} is needed"
        raise UserError(f"{problem}, which leaves some of the {len(classes)} classes empty: {needed}")
    rng = np.random.default_rng([seed, 0, 1])  # batches are shuffled by [seed, epoch]
    turn, tie = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)
    for place, label in enumerate(rng.permutation(classes)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        turn[rows], tie[rows] = np.arange(len(rows)), place
    return np.sort(
        np.lexsort((tie, turn))[:total]
    )  # the first sample of every class, then the second of every class, ...
