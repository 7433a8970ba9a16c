"""The one table of data sets. A data set of your own is one more row here (and arrays in its folder)."""

from dataclasses import dataclass
from pathlib import Path

# A protocol's name on the command line and its folder beside the others, as the whole family of repositories names them.
PROTOCOL_FOLDERS = {"cross_subject": "xsub", "cross_view": "xview", "cross_setup": "xsetup"}


@dataclass(frozen=True)
class DataSet:
    """A data set as the scripts know it.

    Args:
        folder: below `--data-path`; it holds one folder a protocol.
        num_classes: outputs of the linear layer.
        protocols: those that the data set is evaluated by.
    """

    folder: str
    num_classes: int
    protocols: tuple[str, ...]


DATA_SETS = {
    "ntu60": DataSet("NTU-RGB-D-60-AGCN", 60, ("cross_subject", "cross_view")),
    "ntu120": DataSet("NTU-RGB-D-120-AGCN", 120, ("cross_subject", "cross_setup")),
    "pku_part1": DataSet("pku_v1", 51, ("cross_subject", "cross_view")),
    "pku_part2": DataSet("pku_v2", 51, ("cross_subject", "cross_view")),
    "ui_prmd": DataSet("UI-PRMD", 10, ("cross_subject",)),
    "demo": DataSet("demo", 10, ("cross_subject",)),
}


def split_folder(data_path: str | Path, name: str, protocol: str) -> Path:
    """Return the folder that holds the arrays of a data set under a protocol.

    Raises:
        ValueError: the data set is not evaluated by that protocol; the message names those it is.
    """
    data_set = DATA_SETS[name]
    if protocol not in data_set.protocols:
        raise ValueError(f"{name} has no protocol {protocol}: choose from {', '.join(data_set.protocols)}")
    return Path(data_path) / data_set.folder / PROTOCOL_FOLDERS[protocol]
