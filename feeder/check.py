"""Check the arrays of a split, or of all splits in a folder; exit with status 1 if there are problems.

python -m feeder.check data/NTU-RGB-D-60-AGCN
python -m feeder.check data/NTU-RGB-D-60-AGCN/xsub
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feeder.arrays import DATA, PARTS, SAMPLE_SHAPE, Split, check_is_folder, open_split, path_of
from feeder.bodies import body_faults, body_problems
from feeder.cli import CommandLine, UserError, script
from feeder.data_sets import DATA_SETS
from feeder.skeleton import SPINE_MID

HEADING = f"{'split':<14}{'samples':>9}{'classes':>9}{'frames':>12}{'min':>6}{'mean':>8}{'max':>6}"
CENTRED_METRES = 1e-3


def print_row(split: str, labels: Sequence[int], num_frame: Sequence[int] | np.ndarray) -> None:
    """Print a line under `HEADING`: samples, classes, and sum, minimum, mean and maximum of the frames."""
    row, frames = f"{split:<14}{len(labels):>9,}{len(set(labels)):>9}", np.asarray(num_frame)
    if len(frames):
        row += f"{frames.sum():>12,}{frames.min():>6}{frames.mean():>8.1f}{frames.max():>6}"
    print(row)


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


def find_data_set(names: Sequence[str], benchmark: str) -> str | None:
    """Return the data set that all names belong to, preferably one with this benchmark, or None."""
    known = [key for key, row in DATA_SETS.items() if row.pattern and all(map(row.place, names))]
    return next((key for key in known if benchmark in DATA_SETS[key].counts), known[0] if known else None)


def check_names(split: Split, part: str, benchmark: str, data_set: str | None) -> list[str]:
    """Return a line for each kind of problem with names and labels."""
    found: dict[str, list[str]] = defaultdict(list)  # kind of problem -> an example for each sample
    for name, times in Counter(split.names).items():
        if times > 1:
            found["names that occur several times"].append(f"{name}, {times} times")
    for name, label in zip(split.names, split.labels, strict=True) if data_set else ():
        right_label, parts = DATA_SETS[data_set].place(name)
        if label >= (classes := DATA_SETS[data_set].num_classes):
            found[f"labels outside the {classes} classes of {data_set}"].append(f"{name} has label {label}")
        elif label != right_label:
            found["labels that differ from the name"].append(f"{name} has label {label}, not {right_label}")
        if parts.get(benchmark, part) != part:
            found[f"samples that do not belong to this part of {benchmark}"].append(name)
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


def check_counts(split: Split, labels: set[int], data_set: str | None) -> list[str]:
    """Return a note for each kind of unusual labels and frame counts; `labels` are those of both parts."""
    notes = []
    classes = range(DATA_SETS[data_set].num_classes if data_set else max(labels) + 1)
    if not data_set and min(labels) == 1:
        notes.append("labels start at 1 and class 0 is empty; labels count from 0")
        classes = classes[1:]
    if missing := sorted(set(classes) - set(split.labels)):
        notes.append(f"classes without samples: {len(missing)} of {len(classes)}, such as label {missing[0]}")
    if len(split.labels) >= 5 and len(set(split.num_frame.tolist())) == 1:
        padding = "padding and repetition must not be counted"
        notes.append(f"all samples have {split.num_frame[0]} frames; {padding}")
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
        verdict = "names of an unknown data set: no full set to compare with"
        if data_set:
            full = DATA_SETS[data_set].counts.get(folder.name)
            verdict = f"{data_set}: {count_verdict((len(train), len(val)), full)}"
        print(f"  {verdict}")
    return problems


def _lines(found: Mapping[str, list[str]], total: int) -> list[str]:
    """Return a line for each kind of problem, with the number of samples and one example."""
    lines = ((kind, rows) for kind, rows in found.items() if rows)
    return [f"{kind}: {len(rows)} of {total} samples, such as {rows[0]}" for kind, rows in lines]


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine("feeder.check", __doc__.splitlines()[0])
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
        remedy = "set the folder of a data set (docs/data.md)"
        raise UserError(f"{folder}: no arrays in it or its subfolders; {remedy}")
    print(HEADING)
    problems = [problem for split in splits for problem in check_folder(split)]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(1)
    checked = "shapes, types, names, labels, frame counts, body sizes, finite and centred values"
    print(f"no problems found: {checked}")


if __name__ == "__main__":
    main()
