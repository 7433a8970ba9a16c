"""What stays of an evaluation besides its accuracy: predictions, classes, a confusion matrix, features to look at."""

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from engine.confusion import confusion_matrix, describe
from engine.confusion_image import draw_confusion
from engine.errors import RunError
from engine.projector import write_projector
from engine.runlog import RunLog
from feeder.class_names import class_names


def report(
    log: RunLog,
    data_set: str,
    num_classes: int,
    names: list[str],
    labels: Tensor,
    predictions: Tensor,
    scores: Tensor | None = None,
    features: Tensor | None = None,
) -> None:
    """Print the accuracy of the classes and the most confused pairs; keep predictions, confusion matrix and features.

    In the run's folder: `predictions.npz` (see `save_predictions`), the confusion matrix among TensorBoard's images and
    the features in its projector.

    Args:
        log: of the run.
        data_set: by its name in the table of data sets.
        num_classes: of the data set.
        names: of the N test samples.
        labels: (N,) ints.
        predictions: (N,) ints, 0 .. num_classes - 1.
        scores: (N, num_classes), larger is likelier; None where a task has none.
        features: (N, D); None leaves the projector out.
    """
    classes = class_names(data_set, num_classes)
    truth, taken = labels.cpu().numpy(), predictions.cpu().numpy()
    matrix = confusion_matrix(truth, taken, num_classes)
    for line in describe(matrix, classes):
        log.print(line)
    log.image("confusion/test", draw_confusion(matrix, classes))
    arrays = {} if scores is None else {"scores": scores.detach().float().cpu().numpy()}
    save_predictions(log.folder / "predictions.npz", names, truth, taken, class_names=np.array(classes), **arrays)
    if features is not None:
        columns = {
            "class": [classes[label] for label in truth], "taken for": [classes[label] for label in taken],
            "right": ["yes" if same else "no" for same in truth == taken], "label": truth.tolist(), "sample": names,
        }  # fmt: skip
        write_projector(log.folder, features, columns)


def save_predictions(path: Path, names: list[str], labels: np.ndarray, predictions: np.ndarray, **more: np.ndarray) -> None:
    """Write an .npz that `numpy.load(path, allow_pickle=False)` reads, aside and renamed.

    Args:
        path: the file.
        names: of the N samples; texts.
        labels: (N,) ints.
        predictions: (N,) ints.
        more: further arrays, such as scores (N, classes) and class_names (classes,).

    Raises:
        RunError: it cannot be written (disk full, no permission).
    """
    aside = path.with_name(path.name + ".tmp")
    try:
        with open(aside, "wb") as file:
            np.savez_compressed(file, names=np.array(names, dtype=str), labels=labels, predictions=predictions, **more)
        os.replace(aside, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; make room and run again") from None
    finally:
        aside.unlink(missing_ok=True)  # half a file where it could not be written
