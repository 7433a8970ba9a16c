"""Check the arrays of a split, or of all splits in a folder; exit status 1 if something is wrong.

python -m feeder.check data/NTU-RGB-D-60-AGCN
python -m feeder.check data/NTU-RGB-D-60-AGCN/xsub
"""

import collections
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.arrays import DATA, PARTS, SAMPLE_SHAPE, Split, open_split, path_of
from feeder.class_names import class_names
from feeder.cli import CommandLine, UserError, script
from feeder.preparation import ntu, pku
from feeder.preparation.generate import Report
from feeder.skeleton import SPINE_MID

HEADING = f"{'split':<14}{'samples':>9}{'classes':>9}{'frames':>12}{'min':>6}{'mean':>8}{'max':>6}"
CENTRED_METRES = 1e-3
_CHUNK = 32  # samples read at a time, 6 MB
_NAMED_CLASS = re.compile(r"(?:^S\d{3}C\d{3}P\d{3}R\d{3}A|_r\d+_c)(\d+)(?:\.skeleton)?$")


def summary_line(split: str, labels: Sequence[int], num_frame: Sequence[int] | np.ndarray) -> str:
    """Return a line under `HEADING`: samples, classes that occur, and the sum, least, mean and greatest frame count."""
    if not len(labels):
        return f"{split:<14}{0:>9}"
    frames = np.asarray(num_frame)
    sizes = f"{frames.sum():>12,}{frames.min():>6}{frames.mean():>8.1f}{frames.max():>6}"
    return f"{split:<14}{len(labels):>9,}{len(set(labels)):>9}{sizes}"


def print_table(report: Report) -> None:
    """Print a line for each part of a preparation's splits."""
    print(HEADING)
    for place, samples in report.written.items():
        labels = [sample.label for sample, _ in samples]
        print(summary_line(" ".join(place), labels, [frames for _, frames in samples]))


def count_verdict(found: tuple[int, int], expected: tuple[int, int], may_lack: str = "") -> str:
    """Return how the numbers of samples (train, val) compare with those of the full data set.

    Args:
        may_lack: what is rightly left out of the full set, so that a few samples fewer are not a mistake.
    """
    both = f"{expected[0]:,} / {expected[1]:,}"
    if found == expected:
        return f"complete: {both} samples"
    if sum(found) < 0.9 * sum(expected):
        return f"a subset of the full set's {both} samples"
    if may_lack and found[0] <= expected[0] and found[1] <= expected[1]:
        return f"{sum(expected) - sum(found):,} fewer than the full set's {both} samples: right if they are {may_lack}"
    return f"WARNING: {found[0]:,} / {found[1]:,} samples, but the full set has {both}"


class _DataSet(NamedTuple):
    """The data set that the names of the samples belong to."""

    name: str
    class_names: tuple[str, ...]
    counts: tuple[int, int] | None  # samples of (train, val) in the full set, if known
    may_lack: str = ""  # what the full set may rightly lack


def check_folder(folder: Path) -> list[str]:
    """Return a line for each thing that is wrong with a split's arrays, and print what they contain.

    Args:
        folder: such as data/NTU-RGB-D-60-AGCN/xsub.
    """
    problems, splits = [], {}
    for part in PARTS:
        try:
            splits[part] = open_split(folder, part)
        except UserError as error:
            problems.append(str(error))
    known = _data_set([name for split in splits.values() for name in split.names], folder.name)
    for part, split in splits.items():
        print(summary_line(f"{folder.name} {part}", split.labels, split.num_frame))
        for note in split.notes:
            print(f"  note: {note}")
        found = (*_check_names(split, known, folder.name, part), *_check_values(split, path_of(folder, part, DATA)))
        problems += [f"{folder}: {part}: {problem}" for problem in found]
        print(f"  {_balance(split.labels, known)}")
    if len(splits) == len(PARTS):
        if both := set(splits["train"].names) & set(splits["val"].names):
            problems.append(f"{folder}: {len(both)} samples are in both parts, such as {min(both)}; prepare them again")
        print(f"  {_compare(len(splits['train'].labels), len(splits['val'].labels), known, folder.name)}")
    return problems


def _data_set(names: list[str], benchmark: str) -> _DataSet | None:
    if numbers := _ntu_names(names):
        small = benchmark != "xsetup" and all(name.setup <= ntu.LIMITS["ntu60"][0] for name in numbers)
        name, num_classes = ("ntu60", 60) if small else ("ntu120", 120)
        return _DataSet(name, class_names(name, num_classes), ntu.SAMPLE_COUNTS.get((name, benchmark)))
    part, *others = {pku.part_number(name) for name in names} or {None}
    if part is None or others:
        return None
    counts = pku.SAMPLE_COUNTS.get((part, benchmark))
    return _DataSet(f"PKU-MMD part {part}", class_names(f"pku_part{part}", 51), counts, "segments without any body")


def _ntu_names(names: list[str]) -> list[ntu.SampleName]:
    """Return the numbers of all names, an empty list if any is not of NTU RGB+D."""
    try:
        return [ntu.parse_name(name) for name in names]
    except UserError:
        return []


def _check_names(split: Split, known: _DataSet | None, benchmark: str, part: str) -> Iterator[str]:
    """Yield what is wrong with names and labels; names of NTU RGB+D and of our PKU-MMD samples contain the class."""
    name, times = collections.Counter(split.names).most_common(1)[0]
    if times > 1:
        yield f"{name} occurs {times} times"
    for name, label in zip(split.names, split.labels, strict=True):
        if problem := _label_problem(name, label, known):
            yield problem
            return
    if benchmark in ("xsub", "xview", "xsetup"):
        numbers = zip(split.names, _ntu_names(split.names), strict=False)
        misplaced = [name for name, found in numbers if ntu.part_of(found, benchmark) != part]
        if misplaced:
            yield f"{len(misplaced)} samples, such as {misplaced[0]}, do not belong to this part of {benchmark}"


def _label_problem(name: str, label: int, known: _DataSet | None) -> str | None:
    if known and known.name in ntu.LIMITS:
        try:
            ntu.check_range(name, known.name)
        except UserError as error:
            return str(error)
    if known and label >= len(known.class_names):
        return f"{name} has label {label}, but {known.name} has {len(known.class_names)} classes"
    action = _NAMED_CLASS.search(name)
    if action and label != int(action[1]) - 1:
        return f"{name} has label {label}, not {int(action[1]) - 1}"
    return None


def _check_values(split: Split, path: Path) -> Iterator[str]:
    """Yield what is wrong with the coordinates; samples of zeros are only a note, as the reference keeps some."""
    empty = 0
    for start in range(0, len(split.labels), _CHUNK):
        # read, not mapped: mapped pages would count as memory of the process
        rows = min(_CHUNK, len(split.labels) - start)
        offset = split.data.offset + start * split.data[0].nbytes
        samples = np.fromfile(path, np.float32, rows * split.data[0].size, offset=offset).reshape(rows, *SAMPLE_SHAPE)
        for wrong, reason in (
            (~np.isfinite(samples).all((1, 2, 3, 4)), "NaN or infinite coordinates"),
            (np.abs(samples[:, :, 0, SPINE_MID, 0]).max(1) > CENTRED_METRES, "the first frame is not centred on the spine"),
        ):
            if wrong.any():
                yield f"{split.names[start + int(wrong.argmax())]}: {reason}"
                return
        empty += int((~samples[:, :, 0].any((1, 2, 3))).sum())
    if empty:
        print(f"  note: {empty} samples are all zeros")


def _balance(labels: list[int], known: _DataSet | None) -> str:
    names = known.class_names if known else ()
    counts = collections.Counter(labels).most_common()
    (least, fewest), (most, highest) = (
        (count, f"label {label}" + (f", {names[label]}" if label < len(names) else ""))
        for label, count in (counts[-1], counts[0])
    )
    absent = max(labels) + 1 - len(counts)
    text = f"samples a class: {least} ({fewest}) to {most} ({highest})"
    return text + (f"; {absent} labels below {max(labels)} do not occur" if absent else "")


def _compare(train: int, val: int, known: _DataSet | None, benchmark: str) -> str:
    if known is None:
        return "names of neither NTU RGB+D nor PKU-MMD: no number of samples to compare with"
    if known.counts is None:
        return f"{known.name}: the full set's number of samples under {benchmark!r} is not known"
    return f"{known.name}: {count_verdict((train, val), known.counts, known.may_lack)}"


def split_folders(folder: Path) -> list[Path]:
    """Return the folders with arrays: `folder` itself or those in it.

    Raises:
        UserError: no such folder, or none with arrays.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if any(path_of(path, part, DATA).exists() for part in PARTS)]
    if not found:
        advice = "give a data set's folder, or prepare it with ntu_gendata.py or pku_gendata.py"
        raise UserError(f"{folder}: no arrays in it or in its folders; {advice}")
    return found


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(prog="python -m feeder.check", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of one split, or one that holds several")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Check the folder of a command line."""
    folders = split_folders(get_parser().parse_args(argv).folder)
    print(HEADING)
    problems = [problem for folder in folders for problem in check_folder(folder)]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(1)
    print("whole: shapes, types, names, labels, frame counts, finite and centred values")


if __name__ == "__main__":
    main()
