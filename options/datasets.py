"""The table of data sets. To add one, add a row here and its arrays in that folder."""

from dataclasses import dataclass
from pathlib import Path

# Protocols on the command line -> folders, named as in related repositories.
PROTOCOL_FOLDERS = {"cross_subject": "xsub", "cross_view": "xview", "cross_setup": "xsetup"}


@dataclass(frozen=True)
class DataSet:
    """A row of the table."""

    folder: str  # below --data-path, with one folder for each protocol
    num_classes: int  # outputs of the linear layer
    protocols: dict[str, tuple[int, int] | None]  # training and test samples of the whole data set, if known


# Counts of NTU: without the missing skeletons. PKU-MMD part 1: label rows without the one that ends before it
# starts; part 2: as commonly quoted. Segments without any body are skipped too; their number is not known.
DATA_SETS = {
    "ntu60": DataSet(
        "NTU-RGB-D-60-AGCN", 60, {"cross_subject": (40091, 16487), "cross_view": (37646, 18932)}
    ),
    "ntu120": DataSet(
        "NTU-RGB-D-120-AGCN", 120, {"cross_subject": (63026, 50919), "cross_setup": (54468, 59477)}
    ),
    "pku_part1": DataSet("pku_v1", 51, {"cross_subject": (18840, 2704), "cross_view": (14356, 7188)}),
    "pku_part2": DataSet("pku_v2", 51, {"cross_subject": (5332, 1613), "cross_view": None}),
    "ui_prmd": DataSet("UI-PRMD", 10, {"cross_subject": (600, 400)}),
    "nw_ucla": DataSet("NW-UCLA", 10, {"cross_view": (1020, 464), "cross_subject": (892, 592)}),
    "demo": DataSet("demo", 10, {"cross_subject": None}),
}


def split_folder(data_path: str | Path, name: str, protocol: str) -> Path:
    """Return the folder of the arrays; raise ValueError if the data set has no such protocol."""
    data_set = DATA_SETS[name]
    if protocol not in data_set.protocols:
        raise ValueError(f"{name} has no protocol {protocol}: choose from {', '.join(data_set.protocols)}")
    return Path(data_path) / data_set.folder / PROTOCOL_FOLDERS[protocol]
