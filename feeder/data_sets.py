"""The table of data sets: all that is known before a file is opened. To add one, add a row and its arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Protocols on the command line -> folders, named as in related repositories.
PROTOCOL_FOLDERS = {"cross_subject": "xsub", "cross_view": "xview", "cross_setup": "xsetup"}
# Cross-subject training of all data sets whose names have a subject. NTU-60 has subjects up to 40 and the
# list of NTU-120 starts with its list; the ten subjects of UI-PRMD and NW-UCLA are divided in the same way.
TRAIN_SUBJECTS = frozenset(
    (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
    + (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89)
    + (91, 92, 93, 94, 95, 97, 98, 100, 103)
)
TRAIN_SETUPS = range(2, 33, 2)
_NTU = r"C(?P<view>00[123])P(?P<subject>\d{3})R\d{3}A(?P<action>\d{3})(?:\.skeleton)?"


@dataclass(frozen=True)
class DataSet:
    """A row of the table."""

    folder: str  # below --data-path, with one folder for each protocol
    num_classes: int  # outputs of the linear layer
    protocols: dict[str, tuple[int, int] | None]  # training and test samples of the whole data set, if known
    class_file: str = ""  # in feeder/classes: the name of each class
    # of a sample name, with the group action and, if the part follows from them, subject, view or setup
    pattern: str = ""
    train_views: tuple[int, ...] = ()
    actions: Sequence[int] = ()  # the action of label 0, 1, ..., if not 1, 2, ...

    @property
    def counts(self) -> dict[str, tuple[int, int] | None]:
        """Return `protocols` by folder: "xsub", "xview" or "xsetup"."""
        return {PROTOCOL_FOLDERS[protocol]: counts for protocol, counts in self.protocols.items()}

    def split_folder(self, data_path: str | Path, protocol: str) -> Path:
        """Return the folder of the arrays of a protocol."""
        return Path(data_path) / self.folder / PROTOCOL_FOLDERS[protocol]

    def place(self, name: str) -> tuple[int, dict[str, str]] | None:
        """Return the label of a sample and its part, "train" or "val", under each protocol, by folder.

        There is no part if it does not follow from the name. The result is None if it is not a name of this
        data set.
        """
        match = re.fullmatch(self.pattern, name, re.ASCII)
        actions = self.actions or range(1, self.num_classes + 1)
        if not match or int(match["action"]) not in actions:
            return None
        trains = {
            "xsub": ("subject", TRAIN_SUBJECTS),
            "xview": ("view", self.train_views),
            "xsetup": ("setup", TRAIN_SETUPS),
        }
        numbers = match.groupdict()
        parts = {
            benchmark: "train" if int(numbers[group]) in train else "val"
            for benchmark, (group, train) in trains.items()
            if benchmark in self.counts and group in numbers
        }
        return actions.index(int(match["action"])), parts


# Counts of NTU: without the missing skeletons. PKU-MMD part 1: label rows without the one that ends before it
# starts; part 2: as commonly quoted, with 51 outputs although ten of the classes do not occur. Segments
# without any body are skipped too; their number is not known.
DATA_SETS = {
    "ntu60": DataSet(
        "NTU-RGB-D-60-AGCN",
        60,
        {"cross_subject": (40091, 16487), "cross_view": (37646, 18932)},
        class_file="ntu",
        pattern=r"S0(?:0\d|1[0-7])" + _NTU,
        train_views=(2, 3),
    ),
    "ntu120": DataSet(
        "NTU-RGB-D-120-AGCN",
        120,
        {"cross_subject": (63026, 50919), "cross_setup": (54468, 59477)},
        class_file="ntu",
        pattern=r"S(?P<setup>0[0-2]\d|03[0-2])" + _NTU,
    ),
    "pku_part1": DataSet(
        "pku_v1",
        51,
        {"cross_subject": (18840, 2704), "cross_view": (14356, 7188)},
        class_file="pku",
        pattern=r"\d{4}-[LMR]_r\d+_c(?P<action>\d+)",
    ),
    "pku_part2": DataSet(
        "pku_v2",
        51,
        {"cross_subject": (5332, 1613), "cross_view": None},
        class_file="pku",
        pattern=r"A\d{2}N\d{2}-[LMR]_r\d+_c(?P<action>\d+)",
    ),
    "ui_prmd": DataSet(
        "UI-PRMD",
        10,
        {"cross_subject": (600, 400)},
        class_file="ui_prmd",
        pattern=r"m(?P<action>\d\d)_s(?P<subject>\d\d)_e\d\d",
    ),
    "nw_ucla": DataSet(
        "NW-UCLA",
        10,
        {"cross_view": (1020, 464), "cross_subject": (892, 592)},
        class_file="nw_ucla",
        pattern=r"a(?P<action>\d\d)_s(?P<subject>\d\d)_e\d\d_v(?P<view>0[123])",
        train_views=(1, 2),
        actions=(1, 2, 3, 4, 5, 6, 8, 9, 11, 12),
    ),
    "demo": DataSet("demo", 10, {"cross_subject": None}, class_file="demo"),
}


def class_names(data_set: str, num_classes: int) -> tuple[str, ...]:
    """Return a name for each label 0 .. num_classes - 1; "class 7" for label 7 if its name is unknown.

    Args:
        data_set: a name of `DATA_SETS`, or any other.
        num_classes: number of labels.
    """
    file = DATA_SETS[data_set].class_file if data_set in DATA_SETS else ""
    path = Path(__file__).with_name("classes") / f"{file}.txt"
    names = path.read_text("utf-8").splitlines() if file else []
    return (*names[:num_classes], *(f"class {label}" for label in range(len(names), num_classes)))
