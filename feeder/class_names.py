"""The names of a data set's classes, by the names of options/datasets.py."""

from pathlib import Path

from feeder import ntu, pku
from feeder.motions import ACTIONS


def class_names(data_set: str, num_classes: int) -> tuple[str, ...]:
    """Return a name for each label 0 .. num_classes - 1; "class 7" for label 7 where no name is known.

    Args:
        data_set: a row of the table of data sets; one that is not known here (a user's own) has no names.
        num_classes: outputs of the linear layer.
    """
    known = _known(data_set)[:num_classes]
    return (*known, *(f"class {label}" for label in range(len(known), num_classes)))


def _known(data_set: str) -> tuple[str, ...]:
    if data_set in ("ntu60", "ntu120"):
        return ntu.class_names(data_set)
    if data_set in ("pku_part1", "pku_part2"):
        return pku.class_names()
    if data_set == "demo":
        return tuple(action.name for action in ACTIONS)
    if data_set == "ui_prmd":
        return tuple(Path(__file__).with_name("ui_prmd_classes.txt").read_text(encoding="utf-8").splitlines())
    return ()
