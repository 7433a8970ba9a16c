"""What stays of an evaluation besides its accuracy: classes, a confusion matrix, features to look at."""

from torch import Tensor

from engine.confusion import confusion_matrix, describe
from engine.confusion_image import draw_confusion
from engine.projector import write_projector
from engine.runlog import RunLog
from feeder.class_names import class_names


def report_classes(
    log: RunLog,
    data_set: str,
    num_classes: int,
    names: list[str],
    labels: Tensor,
    predictions: Tensor,
    features: Tensor | None = None,
) -> None:
    """Print the accuracy of the classes and the most confused pairs; show TensorBoard the confusion matrix and the features.

    Args:
        log: of the run.
        data_set: by its name in the table of data sets.
        num_classes: of the data set.
        names: of the N test samples.
        labels: (N,) ints, 0 .. num_classes - 1.
        predictions: (N,) ints, 0 .. num_classes - 1.
        features: (N, D) for the projector; None leaves it out.
    """
    classes = class_names(data_set, num_classes)
    truth, taken = labels.cpu().numpy(), predictions.cpu().numpy()
    matrix = confusion_matrix(truth, taken, num_classes)
    for line in describe(matrix, classes):
        log.print(line)
    log.image("confusion/test", draw_confusion(matrix, classes))
    if features is not None:
        columns = {
            "class": [classes[label] for label in truth], "taken for": [classes[label] for label in taken],
            "right": ["yes" if same else "no" for same in truth == taken], "label": truth.tolist(), "sample": names,
        }  # fmt: skip
        write_projector(log.folder, features, columns)
