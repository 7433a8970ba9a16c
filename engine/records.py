"""Read what finished runs left in their folders: options and results, scores of each sample; all of it checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engine.files import load_npz
from feeder.cli import UserError

PREDICTIONS = "predictions"  # .npz, in the folder of a run
FIGURES = ("last_acc1", "last_acc1_std", "best_acc1", "best_acc1_std", "knn_acc1", "mean_average_precision")


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """Return names (N,), labels (N,), streams (S,), scores and best_scores (S, N, classes) of a classification.

    Args:
        path: the folder of a run, or a file like predictions.npz in it.

    Raises:
        UserError: there is no such file, or it is damaged or holds something else.
    """
    path = path / f"{PREDICTIONS}.npz" if path.is_dir() else path
    found = load_npz(path, ("names", "labels", "streams", "scores", "best_scores"))
    names, labels, streams, scores = (found[field] for field in ("names", "labels", "streams", "scores"))
    fits = (
        scores.ndim == 3
        and scores.size > 0
        and scores.shape == found["best_scores"].shape
        and all(found[field].dtype.kind == "f" and np.isfinite(found[field]).all() for field in ("scores", "best_scores"))
        and (names.dtype.kind, names.shape) == ("U", (scores.shape[1],))
        and (labels.dtype.kind, labels.shape) == ("i", (scores.shape[1],))
        and (streams.dtype.kind, streams.shape) == ("U", (scores.shape[0],))
        and 0 <= labels.min() <= labels.max() < scores.shape[2]
    )
    if not fits:
        raise UserError(f"{path}: names, labels, streams and scores are not those of a run of action_classification.py")
    return found


def read_run(folder: Path) -> dict | None:
    """Return the checked record of a finished evaluation; None for pre-training, an unfinished run or another program's folder.

    Returns:
        {"run", "options", "history", "results"}: what it was about and its options, when it was last started; the options of
        all its starts; the lines of metrics.jsonl that belong to no epoch, of which the last is the whole run's.

    Raises:
        UserError: the folder is damaged.
    """
    try:
        paths = sorted(folder.glob("options*.yaml"), key=lambda path: (len(path.name), path.name))  # -2 is before -10
        records = [yaml.safe_load(path.read_text()) for path in paths]
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        parsed = [json.loads(line) for line in lines[:-1]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{folder} is damaged: {' '.join(str(error).split())[:200]}") from None
    if not records or not all(isinstance(record, dict) and {"run", "options"} <= record.keys() for record in records):
        return None
    try:
        parsed += [json.loads(line) for line in lines[-1:]]
    except (ValueError, RecursionError):
        return None  # killed while it wrote the line
    results = [line for line in parsed if not (isinstance(line, dict) and "epoch" in line)]
    if not results or parsed[-1] is not results[-1]:
        return None
    record = {**records[-1], "history": [record["options"] for record in records], "results": results}
    if reason := _fault(record):
        raise UserError(f"{folder} is damaged: {reason}")
    finished = "stream" not in results[-1] and ("last_acc1" in results[-1] or "knn_acc1" in results[-1])
    return record if finished else None


def _fault(record: dict) -> str | None:
    """Return what is wrong with a record, None if everything that the table uses has its type and range."""
    run, results = record["run"], record["results"]
    if not isinstance(run, dict) or not all(
        isinstance(run.get(name), str) for name in ("task", "data_set", "protocol", "stream")
    ):
        return "its run is not task, data_set, protocol and stream"
    for options in record["history"]:
        if not isinstance(options, dict) or type(options.get("seed")) is not int:
            return "its options have no seed"
        if (fraction := options.get("label_fraction")) is not None and not (_is_number(fraction) and 0 < fraction <= 1):
            return "its label_fraction is not a number in 0 .. 1"
        data = options.get("data") or {"train": 0, "test": 0}
        if not isinstance(data, dict) or not all(type(data.get(part)) is int for part in ("train", "test")):
            return "its data have no numbers of samples"
        if not _are_origins(options.get("origins") or []):
            return "its origins are not those of encoders"
    for result in results:
        if not isinstance(result, dict) or not isinstance(result.get("stream", ""), str):
            return "a result is not a figure of a stream"
        if not all(_is_number(result[name]) for name in FIGURES if name in result):
            return "a figure is not a number"
        if type(result.get("knn_neighbours", 1)) is not int:
            return "a knn_neighbours is not a whole number"
    return None


def _are_origins(origins: Any) -> bool:
    """Return whether these are origins of encoders: dicts, whose `pairs` are strings and whose `origins` are such again."""
    return isinstance(origins, list) and all(
        isinstance(origin, dict)
        and isinstance(origin.get("pairs", []), list)
        and all(isinstance(pair, str) for pair in origin.get("pairs", []))
        and _are_origins(origin.get("origins") or [])
        for origin in origins
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6  # neither NaN nor infinite
