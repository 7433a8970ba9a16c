"""Which classes are recognised and which are taken for each other: figures and text."""

import numpy as np

ALL_CLASSES = 20  # up to here every class is printed
WORST, PAIRS = 10, 10


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Return how many clips of class i were taken for class j: (num_classes, num_classes) ints, [i, j].

    Args:
        labels: (N,) ints, 0 .. num_classes - 1.
        predictions: (N,) ints, 0 .. num_classes - 1.
        num_classes: rows and columns.
    """
    cells = labels * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracies(matrix: np.ndarray) -> np.ndarray:
    """Return in percent how much of each class is recognised, (classes,), NaN without clips; matrix (classes, classes)."""
    counts = matrix.sum(axis=1)
    return np.divide(100 * matrix.diagonal(), counts, out=np.full(len(matrix), np.nan), where=counts > 0)


def confused_pairs(matrix: np.ndarray, most: int = PAIRS) -> list[tuple[int, int, int]]:
    """Return (count, label, prediction) of the errors that are made most, most first, ties by label; at most `most`.

    Args:
        matrix: counts (classes, classes), [class, prediction].
        most: length of the list.
    """
    rows, columns = np.nonzero(matrix * ~np.eye(len(matrix), dtype=bool))
    pairs = zip(matrix[rows, columns].tolist(), rows.tolist(), columns.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:most]


def describe(matrix: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """Return lines of text: the accuracy of each class (of many, the worst) and the most confused pairs.

    Args:
        matrix: counts (classes, classes), [class, prediction].
        names: of the classes.
    """
    counts, accuracies = matrix.sum(axis=1), class_accuracies(matrix)
    tested = np.flatnonzero(counts)
    order = tested[np.argsort(accuracies[tested], kind="stable")]
    heading = f"Acc@1 of each class, mean {accuracies[tested].mean():.1f}"
    if len(order) > ALL_CLASSES:
        heading, order = f"{heading}; the worst {WORST} of {len(order)}", order[:WORST]
    titles = numbered(names)
    lines = [f"{heading}:"]
    lines += [f"  {accuracies[i]:5.1f}  {matrix[i, i]}/{counts[i]}  {titles[i]}" for i in order]
    if pairs := confused_pairs(matrix):
        lines.append("most confused (clips, class -> taken for):")
        lines += [f"  {count}/{counts[i]}  {titles[i]} -> {titles[j]}" for count, i, j in pairs]
    return lines


def numbered(names: tuple[str, ...]) -> list[str]:
    """Return "7 name" for the class with label 7; a class without a name of its own is "class 7" as it is."""
    return [name if name == f"class {label}" else f"{label} {name}" for label, name in enumerate(names)]
