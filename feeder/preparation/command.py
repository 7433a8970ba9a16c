"""What all commands of data preparation share: flags, the guard of other arrays, the run, the report."""

import argparse
import collections
import contextlib
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from feeder.arrays import (
    LABEL,
    PARTS,
    SAMPLE_SHAPE,
    SplitWriter,
    check_is_folder,
    load_labels,
    path_of,
    write_splits,
)
from feeder.check import HEADING, count_verdict, describe, find_faults, print_row
from feeder.cli import CommandLine, UserError
from feeder.data_sets import DATA_SETS
from feeder.preparation.sources import Reader, Sample, Source, read_sources

SAMPLE_BYTES = 4 * math.prod(SAMPLE_SHAPE)
tqdm.monitor_interval = 0  # no monitor thread, because the processes are forked


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
    benchmarks: Sequence[str],
    sources: Iterable[Source | str],
    read: Reader,
) -> None:
    """Write {benchmarks}/{train,val}_*, samples sorted by name, and print what they contain.

    Args:
        args: from the flags of `add_flags`.
        data_set: a name in `DATA_SETS`.
        benchmarks: some of "xsub", "xview" and "xsetup".
        sources: files with their samples, or lines about files that cannot be used. Names are unique; the
            samples of a source are sorted and stay together when all are sorted.
        read: a top-level function of a module, called by several processes; `UserError` if a file is damaged.
    """
    folder = args.out_folder or Path("data", DATA_SETS[data_set].folder)
    files, bad = [], []
    for source in sources:
        (bad if isinstance(source, str) else files).append(source)
    files = sorted((file for file in files if file.samples), key=lambda file: file.samples[0].name)
    if not args.overwrite:
        check_replaced(folder, benchmarks, {sample.name for file in files for sample in file.samples})

    with write_splits(folder, benchmarks) as writer:
        samples = sum(len(sample.parts.keys() & set(benchmarks)) for file in files for sample in file.samples)
        needed, free = samples * SAMPLE_BYTES / 1e9, shutil.disk_usage(folder).free / 1e9
        if needed > free:
            raise UserError(f"{folder}: {needed:.2f} GB needed, {free:.2f} GB free; free some space")
        empty, damaged = write_samples(writer, files, read, args.workers)
        bad = list(dict.fromkeys(bad + damaged))  # a damaged file may have many samples
        if bad and not args.skip_bad:
            for line in bad[1:20]:
                print(line, file=sys.stderr)
            others = f" (and {len(bad) - 1} more, see above or --skip-bad)" if len(bad) > 1 else ""
            raise UserError(bad[0] + others)
        if not any(writer.rows.values()):
            raise UserError(f"{folder}: no samples to write: {len(bad)} damaged, {len(empty)} empty")

    print_list("without any body, skipped", empty)
    print_list("damaged, skipped", bad)
    print(HEADING)
    for key, rows in writer.rows.items():
        print_row(" ".join(key), [label for _, label, _ in rows], [frames for _, _, frames in rows])
    for benchmark in benchmarks:
        counts = len(writer.rows[benchmark, "train"]), len(writer.rows[benchmark, "val"])
        print(f"{benchmark}: {count_verdict(counts, DATA_SETS[data_set].counts[benchmark])}")
    print(f"written to {folder}")


def write_samples(
    writer: SplitWriter, files: list[Source], read: Reader, workers: int
) -> tuple[list[str], list[str]]:
    """Write the samples of files; return the names of those without a body, and a line for each damaged one.

    Print a warning if the first bodies have faults, such as a wrong unit.
    """
    empty, damaged, num_checked, faults = [], [], 0, collections.defaultdict(list)
    with contextlib.closing(read_sources(read, files, workers)) as results:
        progress = tqdm(results, total=len(files), unit="file", disable=None)
        for file, clips in zip(files, progress, strict=True):
            for sample, clip in zip(file.samples, clips, strict=True):
                if clip is None:
                    empty.append(sample.name)
                elif isinstance(clip, str):
                    damaged.append(clip)
                else:
                    parts = dict(writer.rows.keys() & sample.parts.items())  # of the benchmarks to write
                    writer.add(parts, sample.name, sample.label, clip[1], clip[0])
                    num_checked += 1
                    for key, amount in find_faults(*clip).items() if num_checked <= 100 else ():
                        faults[key].append(f"{sample.name}, {amount}")
    for problem in describe(faults, min(num_checked, 100))[0]:
        print(f"WARNING: {problem}")
    return empty, damaged


def print_list(kind: str, lines: Sequence[str]) -> None:
    """Print the number of lines of a kind, and the lines."""
    print(f"{kind}: {len(lines)}", *lines, sep="\n  ")


def check_replaced(folder: Path, benchmarks: Iterable[str], new: set[str]) -> None:
    """Raise `UserError` if FOLDER/{benchmarks} has arrays of other recordings than the samples `new`.

    Arrays may be replaced if at least half of their samples are prepared again, or if they cannot be read.
    """
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


def find_sources(folder: Path, data_set: str, ending: str, example: str) -> list[Source]:
    """Return a source for each recording of a data set below a folder; `example` is the path of one."""
    files = find_files(folder, data_set, ending)
    if not files:
        expected = f"it should have {example} and so on (docs/data.md)"
        raise UserError(f"{folder}: no recordings of {DATA_SETS[data_set].folder}; {expected}")
    return [Source(path, (Sample(name, *DATA_SETS[data_set].place(name)),)) for name, path in files.items()]


def find_files(folder: Path, data_set: str, ending: str) -> dict[str, Path]:
    """Return the files NAME + ending, or the same gzipped, below a folder by the name of their sample."""
    check_is_folder(folder)
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob(f"*{ending}*")):
        name, _, rest = path.name.partition(ending)
        # in UI-PRMD, Vicon's files have the same names as Kinect's
        if (
            rest in ("", ".gz")
            and DATA_SETS[data_set].place(name)
            and "Vicon" not in path.relative_to(folder).parts
        ):
            if name in files:
                raise UserError(f"{path}: the same recording as {files[name]}; keep one")
            files[name] = path
    return files
