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
    protocols: tuple[str, ...]


DATA_SETS = {
    "ntu60": DataSet("NTU-RGB-D-60-AGCN", 60, ("cross_subject", "cross_view")),
    "ntu120": DataSet("NTU-RGB-D-120-AGCN", 120, ("cross_subject", "cross_setup")),
    "pku_part1": DataSet("pku_v1", 51, ("cross_subject", "cross_view")),
    "pku_part2": DataSet("pku_v2", 51, ("cross_subject", "cross_view")),
    "ui_prmd": DataSet("UI-PRMD", 10, ("cross_subject",)),
    "nw_ucla": DataSet("NW-UCLA", 10, ("cross_subject", "cross_view")),
    "demo": DataSet("demo", 10, ("cross_subject",)),
}


def split_folder(data_path: str | Path, name: str, protocol: str) -> Path:
    """Return the folder with the arrays of a data set and protocol; raise ValueError if the data set has no such protocol."""
    data_set = DATA_SETS[name]
    if protocol not in data_set.protocols:
        raise ValueError(f"{name} has no protocol {protocol}: choose from {', '.join(data_set.protocols)}")
    return Path(data_path) / data_set.folder / PROTOCOL_FOLDERS[protocol]
