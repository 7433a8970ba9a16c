"""The names of the classes of each data set, in label order."""

from pathlib import Path

FILES = {
    "ntu60": "ntu",
    "ntu120": "ntu",
    "pku_part1": "pku",
    "pku_part2": "pku",
    "ui_prmd": "ui_prmd",
    "nw_ucla": "nw_ucla",
    "demo": "demo",
}


def class_names(data_set: str, num_classes: int) -> tuple[str, ...]:
    """Return a name for each label 0 .. num_classes - 1; "class 7" for label 7 if its name is unknown.

    Args:
        data_set: a name of `options.datasets.DATA_SETS`.
        num_classes: number of labels.
    """
    path = Path(__file__).with_name("classes") / f"{FILES.get(data_set)}.txt"
    names = path.read_text("utf-8").splitlines() if data_set in FILES else []
    return (*names[:num_classes], *(f"class {label}" for label in range(len(names), num_classes)))
