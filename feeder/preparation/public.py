"""UI-PRMD and NW-UCLA: sample names, classes, protocols and counts, and what their two commands have in common."""

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feeder.cli import CommandLine, UserError
from feeder.preparation.generate import Result, Sample, Source, default_workers
from feeder.preparation.normalize import to_sample
from feeder.preparation.ntu import TRAIN_SUBJECTS
from feeder.skeleton import MAX_FRAMES


@dataclass(frozen=True, eq=False)
class PublicSet:
    """What is known of a data set before its files are opened."""

    title: str
    pattern: str  # of a sample name, with the groups action, subject and, if there are several, view
    actions: tuple[int, ...]  # the number in the names of label 0, 1, ...
    counts: dict[str, tuple[int, int]]  # samples of (train, val) of each benchmark

    def sample(self, name: str) -> Sample | None:
        """Return the sample of a name with its label and parts, None if it is not a name of this data set."""
        match = re.fullmatch(self.pattern, name, re.ASCII)
        if not match or int(match["action"]) not in self.actions:
            return None
        # xsub: NTU's training subjects; xview: views 1 and 2 train
        trains = {"xsub": int(match["subject"]) in TRAIN_SUBJECTS}
        if "xview" in self.counts:
            trains["xview"] = int(match["view"]) in (1, 2)
        parts = {benchmark: "train" if train else "val" for benchmark, train in trains.items()}
        return Sample(name, self.actions.index(int(match["action"])), parts)


UI_PRMD = PublicSet(
    "UI-PRMD", r"m(?P<action>\d\d)_s(?P<subject>\d\d)_e\d\d", tuple(range(1, 11)), {"xsub": (600, 400)}
)
NW_UCLA = PublicSet(
    "NW-UCLA",
    r"a(?P<action>\d\d)_s(?P<subject>\d\d)_e\d\d_v(?P<view>0[123])",
    (1, 2, 3, 4, 5, 6, 8, 9, 11, 12),
    {"xsub": (892, 592), "xview": (1020, 464)},
)


def sample_of(name: str) -> tuple[PublicSet, Sample] | None:
    """Return the data set and the sample of a name, None if it is of neither data set."""
    found = ((data_set, data_set.sample(name)) for data_set in (UI_PRMD, NW_UCLA))
    return next(((data_set, sample) for data_set, sample in found if sample), None)


def find_files(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files below a folder whose relative paths match a pattern, by its group `name`."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the folder where the archive was unpacked")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if match := re.fullmatch(pattern, path.relative_to(folder).as_posix(), re.ASCII):
            if match["name"] in files:
                raise UserError(f"{path}: the same recording as {files[match['name']]}; keep one")
            files[match["name"]] = path
    return files


def list_sources(data_set: PublicSet, files: dict[str, Path]) -> list[Source]:
    """Return a source for each of the files, given by name, that is a sample of the data set."""
    samples = {name: data_set.sample(name) for name in files}
    return [Source(files[name], (sample,)) for name, sample in samples.items() if sample]


def to_result(path: Path, bodies: np.ndarray) -> Result:
    """Return the clip of a recording (B, T, 25, 3) in metres, None if it has no body."""
    if not 1 <= bodies.shape[1] <= MAX_FRAMES:
        raise UserError(f"{path}: {bodies.shape[1]} frames; a sample has 1 to {MAX_FRAMES}")
    data = to_sample(bodies)
    return (data, bodies.shape[1]) if data[:, 0].any() else None


def command_line(module: str, description: str, out_folder: str) -> CommandLine:
    """Return the command line of a module of this package."""
    parser = CommandLine(prog=f"python -m feeder.preparation.{module}", description=description)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder where the archive was unpacked")
    add(
        "--out-folder", type=Path, default=Path(out_folder), metavar="DIR", help="output folder (%(default)s)"
    )
    add("--skip-bad", action="store_true", help="skip damaged files instead of failing at the end")
    cores = "processes (all cores, 12 at most)"
    add("--workers", type=positive_int, default=default_workers(), metavar="N", help=cores)
    return parser


def positive_int(text: str) -> int:
    """Return an integer from 1, as an argparse type."""
    if int(text) < 1:
        raise ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)
