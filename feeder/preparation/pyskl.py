"""The 3-D annotations of NTU RGB+D by pyskl and MMAction2: ntu60_3danno.pkl, ntu120_3d.pkl and so on.

A pickle of {"split": lists of names, which follow from the protocols, "annotations": [annotation, ...]}. An
annotation has "frame_dir", the sample's name, "label" from 0, and "keypoint", (bodies, frames, 25, 3) in
metres along the axes of the raw files. The authors removed noise: clips of several people can differ.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from feeder.cli import UserError
from feeder.plain_pickle import load_plain
from feeder.preparation.ntu import SUFFIX
from feeder.preparation.sources import Result, Source, to_result
from feeder.skeleton import NUM_JOINTS


def read_annotations(path: Path) -> dict[str, dict[str, Any]]:
    """Return the annotations of a file by sample name.

    Raises:
        UserError: the file is damaged, would run code, or has other content such as two-dimensional poses.
    """
    try:
        annotations = {annotation["frame_dir"]: annotation for annotation in load_plain(path)["annotations"]}
        shape = next(iter(annotations.values()))["keypoint"].shape
    except ValueError as error:
        raise UserError(f"{path}: not a readable pickle of annotations: {error}") from None
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise UserError(f"{path}: not annotations of pyskl or MMAction2; expected ntu60_3danno.pkl") from None
    if shape[2:] != (NUM_JOINTS, 3):
        found = "two-dimensional poses" if shape[3:] == (2,) else "not the 25 joints of NTU RGB+D in metres"
        raise UserError(f"{path}: {found}, {shape}; use 3-D annotations such as ntu60_3danno.pkl")
    return annotations


def read_clips(annotations: Mapping[str, dict[str, Any]], source: Source) -> list[Result]:
    """Return the only clip of a source from its annotation."""
    (sample,) = source.samples
    name = sample.name.removesuffix(SUFFIX)
    where, label, bodies = f"{source.path}: {name}", annotations[name]["label"], annotations[name]["keypoint"]
    if label != sample.label:
        raise UserError(f"{where}: label {label}, expected {sample.label}")
    if bodies.ndim != 4 or bodies.shape[2:] != (NUM_JOINTS, 3) or not np.isfinite(bodies).all():
        raise UserError(f"{where}: {bodies.shape} is not (bodies, frames, {NUM_JOINTS}, 3) of finite numbers")
    return [to_result(where, bodies.astype(np.float64))]
