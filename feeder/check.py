"""Says in one screen whether the arrays of a split, or of all splits in a folder, are whole; exit status 1 if not.

    python -m feeder.check data/NTU-RGB-D-60-AGCN
    python -m feeder.check data/NTU-RGB-D-60-AGCN/xsub
"""

import collections
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.arrays import DATA, PARTS, SAMPLE_SHAPE, Split, open_split, path_of
from feeder.class_names import class_names
from feeder.cli import CommandLine, UserError, script
from feeder.preparation import ntu, pku
from feeder.preparation.summary import HEADING, count_verdict, summary_line
from feeder.skeleton import SPINE_MID

CENTRED_METRES = 1e-3
_CHUNK = 32  # samples read at a time, 6 MB
_NTU_BENCHMARKS = ("xsub", "xview", "xsetup")
_NAMED_CLASS = re.compile(r"(?:^S\d{3}C\d{3}P\d{3}R\d{3}A|_r\d+_c)(\d+)(?:\.skeleton)?$")


class _DataSet(NamedTuple):
    """The data set that the names of the samples tell of."""

    name: str
    class_names: tuple[str, ...]
    counts: tuple[int, int] | None  # samples of the full set's (train, val), as far as known
    may_lack: str  # of these


def check_folder(folder: Path) -> list[str]:
    """Return a line for each thing that is wrong with a split's arrays, and print what they hold.

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
        print(*(f"  note: {note}" for note in split.notes), sep="\n", end="\n" if split.notes else "")
        found = (*_names(split, known, folder.name, part), *_values(split, path_of(folder, part, DATA)))
        problems += [f"{folder}: {part}: {problem}" for problem in found]
        print(f"  {_balance(split.labels, known)}")
    if len(splits) == len(PARTS):
        both = set(splits["train"].names) & set(splits["val"].names)
        if both:
            problems.append(f"{folder}: {len(both)} samples are in both parts, such as {min(both)}; prepare them again")
        counts = len(splits["train"].labels), len(splits["val"].labels)
        print(f"  {_verdict(counts, known, folder.name)}")
    return problems


def _data_set(names: list[str], benchmark: str) -> _DataSet | None:
    if numbers := _ntu_names(names):
        small = benchmark != "xsetup" and all(name.setup <= ntu.LIMITS["ntu60"][0] for name in numbers)
        name = "ntu60" if small else "ntu120"
        return _DataSet(name, class_names(name, 60 if name == "ntu60" else 120), ntu.SAMPLE_COUNTS.get((name, benchmark)), "")
    parts = {pku.part_number(name) for name in names}
    part = parts.pop() if len(parts) == 1 else None
    if part is None:
        return None
    counts = pku.SAMPLE_COUNTS.get((part, benchmark))
    return _DataSet(f"PKU-MMD part {part}", class_names(f"pku_part{part}", 51), counts, "segments without any body")


def _names(split: Split, known: _DataSet | None, benchmark: str, part: str) -> Iterator[str]:
    """Yield what is wrong with names and labels; names of NTU RGB+D and of our PKU-MMD samples tell the class."""
    if len(set(split.names)) < len(split.names):
        name, times = collections.Counter(split.names).most_common(1)[0]
        yield f"{name} is there {times} times"
    for name, label in zip(split.names, split.labels, strict=True):
        if problem := _label(name, label, known):
            yield problem
            return
    if benchmark in _NTU_BENCHMARKS and (numbers := _ntu_names(split.names)):
        strangers = [name for name, found in zip(split.names, numbers, strict=True) if ntu.part_of(found, benchmark) != part]
        if strangers:
            yield f"{len(strangers)} samples, such as {strangers[0]}, do not belong to this part of {benchmark}"


def _label(name: str, label: int, known: _DataSet | None) -> str | None:
    """Return what is wrong with a sample's name and label."""
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


def _ntu_names(names: list[str]) -> list[ntu.SampleName]:
    """Return the numbers of all names, an empty list if they are none of NTU RGB+D."""
    try:
        return [ntu.parse_name(name) for name in names]
    except UserError:
        return []


def _values(split: Split, path: Path) -> Iterator[str]:
    """Yield what is wrong with the coordinates; samples of zeros are only told of, as the reference keeps some."""
    empty = 0
    for start, samples in _chunks(split, path):
        broken = np.flatnonzero(~np.isfinite(samples).all((1, 2, 3, 4)))
        if len(broken):
            yield f"{split.names[start + broken[0]]}: NaN or infinite coordinates"
            return
        off = np.flatnonzero(np.abs(samples[:, :, 0, SPINE_MID, 0]).max(1) > CENTRED_METRES)
        if len(off):
            yield f"{split.names[start + off[0]]}: the first frame is not centred on the spine of the first body"
            return
        empty += int((~samples[:, :, 0].any((1, 2, 3))).sum())
    if empty:
        print(f"  note: {empty} samples are all zeros")


def _chunks(split: Split, path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, samples); read, not mapped, since mapped pages would count as memory of the process."""
    for start in range(0, len(split.labels), _CHUNK):
        rows = min(_CHUNK, len(split.labels) - start)
        offset = split.data.offset + start * split.data[0].nbytes
        values = np.fromfile(path, np.float32, rows * int(np.prod(SAMPLE_SHAPE)), offset=offset)
        yield start, values.reshape(rows, *SAMPLE_SHAPE)


def _balance(labels: list[int], known: _DataSet | None) -> str:
    def title(label: int) -> str:
        names = known.class_names if known else ()
        return f"label {label}, {names[label]}" if label < len(names) else f"label {label}"

    counts = collections.Counter(labels)
    (most, most_count), (least, least_count) = counts.most_common()[0], counts.most_common()[-1]
    absent = max(labels) + 1 - len(counts)
    return f"samples a class: {least_count} ({title(least)}) to {most_count} ({title(most)})" + (
        f"; {absent} labels below {max(labels)} do not occur" if absent else ""
    )


def _verdict(found: tuple[int, int], known: _DataSet | None, benchmark: str) -> str:
    if known is None:
        return "names of neither NTU RGB+D nor PKU-MMD: no number of samples to compare with"
    if known.counts is None:
        return f"{known.name}: the full set's number of samples under {benchmark!r} is not known"
    return f"{known.name}: {count_verdict(found, known.counts, known.may_lack)}"


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
        raise UserError(f"{folder}: no arrays in it or in its folders; give a data set's folder, or prepare it with "
                        "ntu_gendata.py or pku_gendata.py")  # fmt: skip
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
