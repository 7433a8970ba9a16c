"""The part that all commands of data preparation share: flags, the guard of other arrays, the report."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from feeder.arrays import LABEL, PARTS, load_labels, path_of
from feeder.check import HEADING, count_verdict, print_row
from feeder.cli import CommandLine, UserError
from feeder.data_sets import DATA_SETS
from feeder.preparation.generate import Reader, Sample, Source, generate


def add_flags(parser: argparse.ArgumentParser, data_sets: Iterable[str]) -> None:
    """Add the flags that the commands of data preparation share, for one of some data sets."""
    add = parser.add_argument
    folders = " or ".join(f"data/{DATA_SETS[name].folder}" for name in data_sets)
    add("--out-folder", type=Path, metavar="DIR", help=f"output folder ({folders})")
    add("--overwrite", action="store_true", help="replace arrays of other recordings too")
    add("--skip-bad", action="store_true", help="skip damaged files instead of failing at the end")
    # 12 processes read PKU-MMD in less than 1 GiB
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    text = "processes (all cores, at most 12)"
    add("--workers", type=int, choices=range(1, 13), default=min(cores, 12), metavar="N", help=text)


def prepare(
    args: argparse.Namespace,
    data_set: str,
    benchmarks: Iterable[str],
    sources: Sequence[Source | str],
    read: Reader,
) -> None:
    """Write the arrays of a data set, from the flags of `add_flags`, and print what they contain."""
    folder = args.out_folder or Path("data", DATA_SETS[data_set].folder)
    if not args.overwrite:
        check_replaced(folder, benchmarks, sources)
    report = generate(sources, read, folder, benchmarks, args.workers, args.skip_bad)
    print_list("without any body, skipped", report.empty)
    print_list("damaged, skipped", report.bad)
    print(HEADING)
    for key, rows in report.written.items():
        print_row(" ".join(key), [label for _, label, _ in rows], [frames for _, _, frames in rows])
    for benchmark in benchmarks:
        counts = len(report.written[benchmark, "train"]), len(report.written[benchmark, "val"])
        print(f"{benchmark}: {count_verdict(counts, DATA_SETS[data_set].counts[benchmark])}")
    print(f"written to {folder}")


def print_list(kind: str, lines: Sequence[str]) -> None:
    """Print the number of lines of a kind, and the first of them."""
    print(f"{kind}: {len(lines)}{', such as' if len(lines) > 20 else ''}", *lines[:20], sep="\n  ")


def check_replaced(folder: Path, benchmarks: Iterable[str], sources: Iterable[Source | str]) -> None:
    """Raise `UserError` if FOLDER/{benchmarks} has arrays of other recordings.

    Arrays may be replaced if at least half of their samples are prepared again, or if they cannot be read.
    """
    new = {sample.name for source in sources if isinstance(source, Source) for sample in source.samples}
    for split in (folder / benchmark for benchmark in benchmarks):
        old: set[str] = set()
        for part in PARTS:
            with contextlib.suppress(UserError, OSError):
                old.update(load_labels(path_of(split, part, LABEL))[0])
        if 2 * len(old & new) < len(old):
            others = f"{len(old - new):,} samples of other recordings, such as {min(old - new)}"
            raise UserError(f"{split}: has {others}; set another --out-folder, or --overwrite")


def archive_parser(data_set: str, description: str) -> CommandLine:
    """Return the command line of the module that prepares a data set from its unpacked archive."""
    parser = CommandLine(f"feeder.preparation.{data_set}", description)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder where the archive was unpacked")
    add_flags(parser, [data_set])
    return parser


def find_sources(folder: Path, data_set: str, pattern: str, example: str) -> list[Source]:
    """Return a source for each recording of a data set below a folder; `example` is the path of one."""
    sources = []
    for name, path in find_files(folder, data_set, pattern).items():
        if place := DATA_SETS[data_set].place(name):
            sources.append(Source(path, (Sample(name, *place),)))
    if not sources:
        expected = f"it should have {example} and so on (docs/data.md)"
        raise UserError(f"{folder}: no recordings of {DATA_SETS[data_set].folder}; {expected}")
    return sources


def find_files(folder: Path, data_set: str, pattern: str) -> dict[str, Path]:
    """Return files below a folder by the name of their sample.

    Args:
        folder: where the archive was unpacked.
        data_set: a name in `DATA_SETS`.
        pattern: of the relative paths of the files, with {} for the name of the sample.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the folder where the archive was unpacked")
    pattern = pattern.format(f"(?P<name>{DATA_SETS[data_set].pattern})")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if match := re.fullmatch(pattern, path.relative_to(folder).as_posix(), re.ASCII):
            if match["name"] in files:
                raise UserError(f"{path}: the same recording as {files[match['name']]}; keep one")
            files[match["name"]] = path
    return files
