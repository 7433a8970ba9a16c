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
    features: Tensor | None = None,
    **arrays: Tensor | np.ndarray,
) -> None:
    """Print the accuracy of the classes and the most confused pairs; keep predictions, confusion matrix and features.

    They are in the run's folder: `predictions.npz` (see `save_predictions`), the confusion matrix among TensorBoard's
    images, the features in its projector.

    Args:
        log: of the run.
        data_set: by its name in the table of data sets.
        num_classes: of the data set.
        names: of the N test samples.
        labels: (N,) ints, 0 .. num_classes - 1.
        predictions: (N,) ints, 0 .. num_classes - 1.
        features: (N, D); None leaves the projector out.
        arrays: what else belongs into predictions.npz, such as scores (N, num_classes).

    Raises:
        RunError: the predictions cannot be written.
    """
    classes = class_names(data_set, num_classes)
    truth, taken = labels.cpu().numpy(), predictions.cpu().numpy()
    matrix = confusion_matrix(truth, taken, num_classes)
    for line in describe(matrix, classes):
        log.print(line)
    log.image("confusion/test", draw_confusion(matrix, classes))
    save_predictions(log.folder / "predictions.npz", names, truth, taken, class_names=np.array(classes), **arrays)
    if features is not None:
        columns = {
            "class": [classes[label] for label in truth], "taken for": [classes[label] for label in taken],
            "right": ["yes" if same else "no" for same in truth == taken], "label": truth.tolist(), "sample": names,
        }  # fmt: skip
        write_projector(log.folder, features, columns)


def save_predictions(
    path: Path, names: list[str], labels: np.ndarray, predictions: np.ndarray, **arrays: Tensor | np.ndarray
) -> None:
    """Write an .npz that `numpy.load(path, allow_pickle=False)` reads, aside and renamed.

    Args:
        path: the file.
        names: of the N samples.
        labels: (N,) ints.
        predictions: (N,) ints.
        arrays: further arrays by their names.

    Raises:
        RunError: it cannot be written (disk full, no permission); an older file is untouched.
    """
    more = {name: x.detach().cpu().numpy() if isinstance(x, Tensor) else x for name, x in arrays.items()}
    aside = path.with_name(path.name + ".tmp")
    try:
        with open(aside, "wb") as file:
            np.savez(file, names=np.array(names, dtype=str), labels=labels, predictions=predictions, **more)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)  # half a file where it could not be written
