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
from feeder.cli import CommandLine, UserError, script
from feeder.data_sets import DATA_SETS
from feeder.skeleton import SPINE_MID

HEADING = f"{'split':<14}{'samples':>9}{'classes':>9}{'frames':>12}{'min':>6}{'mean':>8}{'max':>6}"
# Faults of coordinates: kind, share of the samples above which it is a problem and not a note, remedy. A body
# fault of up to a fifth of the samples may be a sensor error.
FAULTS = {
    "finite": ("NaN or infinite coordinates", 0, "prepare the data again"),
    "body": ("samples without a body", 1, "the reference keeps some"),
    "centre": ("samples whose first frame is not centred on the spine", 0, "prepare the data again"),
    "size": ("bodies of an impossible size", 0.2, "convert millimetres, inches or pixels to metres"),
    "plane": ("bodies in a plane", 0.2, "x, y and z are needed, not two-dimensional poses"),
    "offset": ("bodies that are not around joint 1, spine mid", 0.2, "fill joint 1, and centre on it"),
    "joints": ("joints that are always zero", 0.2, "fill each of the 25 joints from a real one"),
    "padding": ("empty frames at the end", 0.2, "do not count padding in the number of frames"),
    "gaps": ("empty frames between others", 1, "common if they are few"),
}


def find_faults(sample: np.ndarray, num_frame: int) -> dict[str, str]:
    """Return the faults of a sample's coordinates, mostly of its first body: key in `FAULTS` -> amount.

    The limits are far from real data: the 2,495 clips of UI-PRMD, NW-UCLA and our goldens have sizes of 0.88
    to 2.8 m (median 1.7), a smallest extent of at least 0.05 of the largest, and offsets up to 0.32 of the
    size. A curled-up child of 0.9 m is larger than 0.3 m, and 0.5 m in inches is 20.

    Args:
        sample: (3, 300, 25, 2).
        num_frame: number of valid frames.
    """
    if not np.isfinite(sample).all():
        return {"finite": ""}
    body = np.ascontiguousarray(sample[:, :num_frame, :, 0])  # (3, T, V)
    present, used = np.flatnonzero(body.any(axis=(0, 2))), body.any(axis=(0, 1))
    used[SPINE_MID] = True  # the centre may be zero
    zero = np.flatnonzero(~used).tolist()
    used[SPINE_MID] = False
    if not used.any():
        return {"body": ""}
    measured = present[:: -(-len(present) // 8)]  # at most 8 frames
    joints = body[:, measured][:, :, used].transpose(1, 2, 0)  # (frames, joints, 3)
    mean = joints.mean(axis=1, keepdims=True)
    size = np.median(np.linalg.norm(np.ptp(joints, axis=1), axis=1))  # diagonal of the box around the joints
    spread = np.linalg.svd(joints - mean, compute_uv=False)  # (frames, 3), descending
    depth = np.median(spread[:, -1] / spread[:, 0].clip(1e-6))
    offset = np.linalg.norm(mean[0, 0] - body[:, measured[0], SPINE_MID])
    padding, gaps = num_frame - 1 - present[-1], present[-1] + 1 - len(present)
    faults = {
        "centre": (np.abs(sample[:, 0, SPINE_MID, 0]).max() > 1e-3, ""),
        "size": (not 0.3 <= size <= 8, f"{size:,.2f} m across"),
        "plane": (depth < 0.01, f"{depth:.1%} as deep as wide"),
        "offset": (offset > 0.5 * size, f"{offset:,.2f} m away"),
        "joints": (zero, f"joints {zero}"),
        "padding": (padding, f"{padding} of {num_frame} frames"),
        "gaps": (gaps, f"{gaps} of {num_frame} frames"),
    }
    return {key: amount for key, (wrong, amount) in faults.items() if wrong}


def describe(found: Mapping[str, Sequence[str]], total: int) -> tuple[list[str], list[str]]:
    """Return a line for each problem and for each suspicion: kind, number of samples, an example, remedy.

    Args:
        found: key in `FAULTS`, or another kind of problem -> an example for each sample that has it.
        total: number of samples.
    """
    problems, notes = [], []
    for key, examples in found.items():
        kind, share, remedy = FAULTS.get(key, (key, 0, ""))
        line = f"{kind}: {len(examples)} of {total} samples, such as {examples[0]}"
        (problems if len(examples) > share * total else notes).append(f"{line}; {remedy}".strip("; "))
    return problems, notes


def check_values(split: Split, path: Path) -> dict[str, list[str]]:
    """Return the faults of the coordinates: key in `FAULTS` -> an example for each sample."""
    found: dict[str, list[str]] = defaultdict(list)
    with open(path, "rb") as file:  # read, not mapped: mapped pages would count as memory of the process
        file.seek(split.data.offset)
        for name, num_frame in zip(split.names, split.num_frame.tolist(), strict=True):
            sample = np.fromfile(file, np.float32, split.data[0].size).reshape(SAMPLE_SHAPE)
            for key, amount in find_faults(sample, num_frame).items():
                found[key].append(f"{name}, {amount}".strip(", "))
    return found


def check_names(split: Split, part: str, benchmark: str, data_set: str | None) -> dict[str, list[str]]:
    """Return the problems with names and labels: kind -> an example for each sample."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, times in Counter(split.names).items():
        if times > 1:
            found["names that occur several times"].append(f"{name}, {times} times")
    for name, label in zip(split.names, split.labels, strict=True) if data_set else ():
        place = DATA_SETS[data_set].place(name)
        if place is None:
            found[f"names that are not of {data_set}"].append(name)
            continue
        right_label, parts = place
        if label >= (classes := DATA_SETS[data_set].num_classes):
            found[f"labels outside the {classes} classes of {data_set}"].append(f"{name} has label {label}")
        elif label != right_label:
            found["labels that differ from the name"].append(f"{name} has label {label}, not {right_label}")
        if parts.get(benchmark, part) != part:
            found[f"samples that do not belong to this part of {benchmark}"].append(name)
    return found


def check_counts(split: Split, labels: set[int], data_set: str | None) -> list[str]:
    """Return a note for each kind of unusual labels and frame counts; `labels` are those of both parts."""
    notes = []
    classes = range(DATA_SETS[data_set].num_classes if data_set else max(labels) + 1)
    if not data_set and min(labels) == 1:
        notes.append("labels start at 1 and class 0 is empty; labels count from 0")
        classes = classes[1:]
    if missing := sorted(set(classes) - set(split.labels)):
        notes.append(f"classes without samples: {len(missing)} of {len(classes)}, such as label {missing[0]}")
    if len(split.labels) >= 5 and np.ptp(split.num_frame) == 0:
        padding = "padding and repetition must not be counted"
        notes.append(f"all samples have {split.num_frame[0]} frames; {padding}")
    return notes


def find_data_set(names: Sequence[str], benchmark: str) -> str | None:
    """Return the data set of nearly all names, preferably one with this benchmark, or None."""
    counts = {key: sum(map(bool, map(row.place, names))) for key, row in DATA_SETS.items() if row.pattern}
    known = [key for key, count in counts.items() if count > 0.9 * len(names)]
    return next((key for key in known if benchmark in DATA_SETS[key].counts), known[0] if known else None)


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
        found = check_names(split, part, folder.name, data_set)
        wrong, notes = describe(found | check_values(split, path_of(folder, part, DATA)), len(split.names))
        problems += [f"{folder}: {part}: {line}" for line in wrong]
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


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine("feeder.check", __doc__)
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
    print("no problems found: shapes, types, names, labels, frame counts, body sizes, finite, centred values")


if __name__ == "__main__":
    main()
