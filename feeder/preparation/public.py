"""UI-PRMD and NW-UCLA: sample names, classes, protocols, counts, and code shared by their commands."""

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feeder.cli import CommandLine, UserError
from feeder.preparation.generate import Reader, Sample, Source, add_flags, check_replaced, generate
from feeder.preparation.ntu import TRAIN_SUBJECTS


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
    """Return the data set and the sample of a name, None if it belongs to neither data set."""
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


def command_line(module: str, description: str, out_folder: str) -> CommandLine:
    """Return the command line of a module of this package."""
    parser = CommandLine(prog=f"python -m feeder.preparation.{module}", description=description)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder where the archive was unpacked")
    add_flags(parser, out_folder)
    parser.set_defaults(out_folder=Path(out_folder))
    return parser


def prepare(args: Namespace, data_set: PublicSet, sources: Sequence[Source], read: Reader) -> None:
    """Write the arrays of a data set and report what they contain."""
    from feeder.check import print_report  # it imports this module for the names of samples

    if not args.overwrite:
        check_replaced(args.out_folder, data_set.counts, sources)
    report = generate(sources, read, args.out_folder, data_set.counts, args.workers, args.skip_bad)
    skipped = f"{len(report.empty)} without any body, {len(report.bad)} damaged"
    print(f"{len(sources):,} recordings; skipped: {skipped}", *report.bad, sep="\n")
    print_report(report, data_set.counts, args.out_folder)
