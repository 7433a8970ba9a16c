"""Check the arrays of a split, or of all splits in a folder; exit with status 1 if there are problems.

python -m feeder.check data/NTU-RGB-D-60-AGCN
python -m feeder.check data/NTU-RGB-D-60-AGCN/xsub
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.arrays import DATA, PARTS, SAMPLE_SHAPE, Split, check_is_folder, open_split, path_of
from feeder.bodies import body_faults, body_problems
from feeder.cli import CommandLine, UserError, script
from feeder.preparation import ntu, pku, public
from feeder.preparation.generate import Report
from feeder.skeleton import SPINE_MID

HEADING = f"{'split':<14}{'samples':>9}{'classes':>9}{'frames':>12}{'min':>6}{'mean':>8}{'max':>6}"
BENCHMARKS = ("xsub", "xview", "xsetup")
CENTRED_METRES = 1e-3


def print_row(split: str, labels: Sequence[int], num_frame: Sequence[int] | np.ndarray) -> None:
    """Print a line under `HEADING`: samples, classes, and sum, minimum, mean and maximum of the frames."""
    frames = np.asarray(num_frame)
    sizes = (
        f"{frames.sum():>12,}{frames.min():>6}{frames.mean():>8.1f}{frames.max():>6}" if len(frames) else ""
    )
    print(f"{split:<14}{len(labels):>9,}{len(set(labels)):>9}{sizes}")


def print_report(report: Report, full_counts: Mapping[str, tuple[int, int] | None], folder: Path) -> None:
    """Print what `generate` wrote to a folder; `full_counts` are the samples (train, val) of the full set."""
    print(HEADING)
    for key, samples in report.written.items():
        print_row(" ".join(key), [sample.label for sample, _ in samples], [frames for _, frames in samples])
    for benchmark, expected in full_counts.items():
        counts = len(report.written[benchmark, "train"]), len(report.written[benchmark, "val"])
        print(f"{benchmark}: {count_verdict(counts, expected)}")
    print(f"written to {folder}")


def count_verdict(found: tuple[int, int], expected: tuple[int, int] | None) -> str:
    """Return how the numbers of samples (train, val) compare with those of the full data set."""
    if expected is None:
        return "the size of the full set is not known"
    here, full = (f"{train:,} / {val:,}" for train, val in (found, expected))
    if found == expected:
        return f"complete: {full} samples"
    if sum(found) < 0.9 * sum(expected):
        return f"{here} samples; the full set has {full}"
    return f"WARNING: {here} samples, but the full set has {full}; those without any body are skipped"


class DataSet(NamedTuple):
    """A data set whose sample names contain the class."""

    title: str
    num_classes: int
    counts: tuple[int, int] | None  # samples of (train, val) in the full set


def find_data_set(names: Sequence[str], benchmark: str) -> DataSet | None:
    """Return the data set that all names belong to, None if there is none."""
    parts = {pku.part_number(name) for name in names}
    if parts in ({1}, {2}):
        (part,) = parts
        return DataSet(f"PKU-MMD part {part}", pku.NUM_CLASSES, pku.SAMPLE_COUNTS.get((part, benchmark)))
    sets = {known and known[0] for known in map(public.sample_of, names)}
    if len(sets) == 1 and (found := sets.pop()):
        return DataSet(found.title, len(found.actions), found.counts.get(benchmark))
    try:
        last_setup = max(ntu.parse_name(name).setup for name in names)
    except UserError:
        return None
    title = "ntu60" if benchmark != "xsetup" and last_setup <= ntu.LIMITS["ntu60"][0] else "ntu120"
    return DataSet(title, ntu.LIMITS[title][-1], ntu.SAMPLE_COUNTS.get((title, benchmark)))


def place_of(name: str, benchmark: str) -> tuple[int | None, str | None]:
    """Return the label and the part that a name implies, each None if it implies none."""
    if known := public.sample_of(name):
        return known[1].label, known[1].parts.get(benchmark)
    if pku.part_number(name):
        return int(name.rpartition("c")[2]) - 1, None
    try:
        numbers = ntu.parse_name(name)
    except UserError:
        return None, None
    return numbers.action - 1, ntu.part_of(numbers, benchmark) if benchmark in BENCHMARKS else None


def check_names(split: Split, part: str, benchmark: str, data_set: DataSet | None) -> list[str]:
    """Return a line for each kind of problem with names and labels."""
    found: dict[str, list[str]] = defaultdict(list)  # kind of problem -> an example for each sample
    for name, times in Counter(split.names).items():
        if times > 1:
            found["names that occur several times"].append(f"{name}, {times} times")
    for name, label in zip(split.names, split.labels, strict=True):
        right_label, right_part = place_of(name, benchmark)
        if data_set and label >= data_set.num_classes:
            kind = f"labels outside the {data_set.num_classes} classes of {data_set.title}"
            found[kind].append(f"{name} has label {label}")
        elif right_label not in (None, label):
            found["labels that differ from the name"].append(f"{name} has label {label}, not {right_label}")
        if right_part not in (None, part):
            found[f"samples that do not belong to this part of {benchmark}"].append(name)
        if data_set and data_set.title in ntu.LIMITS:
            try:
                ntu.parse_name(name, data_set.title)
            except UserError as error:
                found[f"names outside {data_set.title}"].append(str(error))
    return _lines(found, len(split.names))


def check_values(split: Split, path: Path) -> tuple[list[str], list[str]]:
    """Return a line for each kind of problem with the coordinates, and for each kind of suspicion."""
    found: dict[str, list[str]] = defaultdict(list)
    faults = []
    with open(path, "rb") as file:  # read, not mapped: mapped pages would count as memory of the process
        file.seek(split.data.offset)
        for name, num_frame in zip(split.names, split.num_frame.tolist(), strict=True):
            sample = np.fromfile(file, np.float32, split.data[0].size).reshape(SAMPLE_SHAPE)
            finite = bool(np.isfinite(sample).all())
            faults.append(body_faults(sample, num_frame) if finite else None)
            if not finite:
                found["NaN or infinite coordinates"].append(name)
            elif np.abs(sample[:, 0, SPINE_MID, 0]).max() > CENTRED_METRES:
                found["the first frame is not centred on the spine"].append(name)
    problems, notes = body_problems(split.names, faults)
    if empty := faults.count(None) - len(found["NaN or infinite coordinates"]):
        notes.append(f"samples without a body: {empty} of {len(faults)}")  # the reference keeps some
    return _lines(found, len(faults)) + problems, notes


def check_counts(split: Split, labels: set[int], data_set: DataSet | None) -> list[str]:
    """Return a note for each kind of unusual labels and frame counts; `labels` are those of both parts."""
    notes = []
    classes = range(data_set.num_classes if data_set else max(labels) + 1)
    if not data_set and min(labels) == 1:
        notes.append("labels start at 1 and class 0 is empty; labels count from 0")
        classes = classes[1:]
    if missing := sorted(set(classes) - set(split.labels)):
        notes.append(f"classes without samples: {len(missing)} of {len(classes)}, such as label {missing[0]}")
    if len(split.labels) >= 5 and len(set(split.num_frame.tolist())) == 1:
        notes.append(
            f"all samples have {split.num_frame[0]} frames; padding and repetition must not be counted"
        )
    return notes


def check_folder(folder: Path) -> list[str]:
    """Return a line for each problem with the arrays of a split, and print what they contain."""
    problems, splits = [], {}
    for part in PARTS:
        try:
            splits[part] = open_split(folder, part)
        except UserError as error:
            problems.append(str(error))
    if not splits:
        return problems
    labels = {label for split in splits.values() for label in split.labels}
    data_set = find_data_set([name for split in splits.values() for name in split.names], folder.name)
    for part, split in splits.items():
        found, notes = check_values(split, path_of(folder, part, DATA))
        found = check_names(split, part, folder.name, data_set) + found
        problems += [f"{folder}: {part}: {line}" for line in found]
        print_row(f"{folder.name} {part}", split.labels, split.num_frame)
        for note in (*split.notes, *check_counts(split, labels, data_set), *notes):
            print(f"  note: {note}")
    if len(splits) == len(PARTS):
        train, val = (splits[part].names for part in PARTS)
        if both := set(train) & set(val):
            problems.append(f"{folder}: samples in both parts: {len(both)}, such as {min(both)}")
        unknown = "names of an unknown data set: no full set to compare with"
        counts = len(train), len(val)
        print(f"  {data_set.title}: {count_verdict(counts, data_set.counts)}" if data_set else f"  {unknown}")
    return problems


def _lines(found: dict[str, list[str]], total: int) -> list[str]:
    """Return a line for each kind of problem, with the number of samples and one example."""
    lines = ((kind, rows) for kind, rows in found.items() if rows)
    return [f"{kind}: {len(rows)} of {total} samples, such as {rows[0]}" for kind, rows in lines]


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(prog="python -m feeder.check", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of a split, or of several splits")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Check the folder on the command line."""
    folder = get_parser().parse_args(argv).folder
    check_is_folder(folder)
    folders = (folder, *sorted(folder.iterdir()))
    splits = [path for path in folders if any(path_of(path, part, DATA).exists() for part in PARTS)]
    if not splits:
        raise UserError(
            f"{folder}: no arrays in it or its subfolders; set the folder of a data set (docs/data.md)"
        )
    print(HEADING)
    problems = [problem for split in splits for problem in check_folder(split)]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(1)
    print(
        "no problems found: shapes, types, names, labels, frame counts, body sizes, finite and centred values"
    )


if __name__ == "__main__":
    main()
