"""Check the arrays of a split, or of all splits in a folder; exit with status 1 if there are problems.

python -m feeder.check data/NTU-RGB-D-60-AGCN
python -m feeder.check data/NTU-RGB-D-60-AGCN/xsub
"""

import collections
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from feeder.arrays import DATA, PARTS, SAMPLE_SHAPE, Split, open_split, path_of
from feeder.cli import CommandLine, UserError, script
from feeder.preparation import ntu, pku, public
from feeder.preparation.generate import Report
from feeder.skeleton import NUM_JOINTS, SPINE_MID

HEADING = f"{'split':<14}{'samples':>9}{'classes':>9}{'frames':>12}{'min':>6}{'mean':>8}{'max':>6}"
CENTRED_METRES = 1e-3
_CHUNK = 32  # samples read at a time, 6 MB
_CLASS_IN_NAME = re.compile(r"(?:^S\d{3}C\d{3}P\d{3}R\d{3}A|_r\d+_c)(\d+)(?:\.skeleton)?$")


def print_row(split: str, labels: Sequence[int], num_frame: Sequence[int] | np.ndarray) -> None:
    """Print a line under `HEADING`: numbers of samples and classes, and sum, minimum, mean and maximum of the frame counts."""
    frames = np.asarray(num_frame)
    sizes = (
        f"{frames.sum():>12,}{frames.min():>6}{frames.mean():>8.1f}{frames.max():>6}" if len(frames) else ""
    )
    print(f"{split:<14}{len(labels):>9,}{len(set(labels)):>9}{sizes}")


def print_report(report: Report, full_counts: Mapping[str, tuple[int, int] | None], folder: Path) -> None:
    """Print what `generate` wrote to a folder, compared with the full set's samples (train, val) of each benchmark."""
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
    both = f"{expected[0]:,} / {expected[1]:,}"
    if found == expected:
        return f"complete: {both} samples"
    if sum(found) < 0.9 * sum(expected):
        return f"{found[0]:,} / {found[1]:,} samples; the full set has {both}"
    return f"WARNING: {found[0]:,} / {found[1]:,} samples, but the full set has {both}; those without any body are skipped"


def check_folder(folder: Path) -> list[str]:
    """Return a line for each problem of the arrays of a split, and print what they contain."""
    problems, splits = [], {}
    for part in PARTS:
        try:
            splits[part] = split = open_split(folder, part)
        except UserError as error:
            problems.append(str(error))
            continue
        print_row(f"{folder.name} {part}", split.labels, split.num_frame)
        for note in split.notes:
            print(f"  note: {note}")
        found = (*_check_names(split, folder.name, part), *_check_values(split, path_of(folder, part, DATA)))
        problems += [f"{folder}: {part}: {problem}" for problem in found]
    if len(splits) == len(PARTS):
        train, val = (splits[part].names for part in PARTS)
        if both := set(train) & set(val):
            problems.append(
                f"{folder}: {len(both)} samples are in both parts, such as {min(both)}; prepare the data again"
            )
        name, _, expected = _data_set([*train, *val], folder.name)
        verdict = count_verdict((len(train), len(val)), expected)
        print(
            f"  {name}: {verdict}" if name else "  names of an unknown data set: no full set to compare with"
        )
    return problems


def _data_set(names: list[str], benchmark: str) -> tuple[str, int, tuple[int, int] | None]:
    """Return the name, number of classes and full set's counts of the samples' data set; the name is "" if it is unknown."""
    parts = {pku.part_number(name) for name in names}
    if parts in ({1}, {2}):
        (part,) = parts
        return f"PKU-MMD part {part}", pku.NUM_CLASSES, pku.SAMPLE_COUNTS.get((part, benchmark))
    sets = {known and known[0] for known in map(public.sample_of, names)}
    if len(sets) == 1 and (public_set := sets.pop()):
        return public_set.title, len(public_set.actions), public_set.counts.get(benchmark)
    try:
        last_setup = max(ntu.parse_name(name).setup for name in names)
    except UserError:
        return "", 2**31, None
    name = "ntu60" if benchmark != "xsetup" and last_setup <= ntu.LIMITS["ntu60"][0] else "ntu120"
    return name, ntu.LIMITS[name][-1], ntu.SAMPLE_COUNTS.get((name, benchmark))


def _check_names(split: Split, benchmark: str, part: str) -> Iterator[str]:
    """Yield problems of names and labels; names of NTU RGB+D and of our samples of other data sets contain the class."""
    data_set, num_classes, _ = _data_set(split.names, benchmark)
    name, times = collections.Counter(split.names).most_common(1)[0]
    if times > 1:
        yield f"{name} occurs {times} times"
    misplaced = []
    for name, label in zip(split.names, split.labels, strict=True):
        action, known = _CLASS_IN_NAME.search(name), public.sample_of(name)
        expected = known[1].label if known else int(action[1]) - 1 if action else label
        if label >= num_classes or label != expected:
            reason = (
                f"but {data_set} has {num_classes} classes" if label >= num_classes else f"not {expected}"
            )
            yield f"{name} has label {label}, {reason}"
            return
        if known and known[1].parts.get(benchmark, part) != part:
            misplaced.append(name)
        if data_set in ntu.LIMITS:
            try:
                numbers = ntu.parse_name(name, data_set)
            except UserError as error:
                yield str(error)
                return
            if benchmark in ("xsub", "xview", "xsetup") and ntu.part_of(numbers, benchmark) != part:
                misplaced.append(name)
    if misplaced:
        yield f"{len(misplaced)} samples, such as {misplaced[0]}, do not belong to this part of {benchmark}"


def _check_values(split: Split, path: Path) -> Iterator[str]:
    """Yield problems of the coordinates; samples of zeros are only a note, because the reference keeps some."""
    empty, used = 0, np.zeros(NUM_JOINTS, bool)
    for start in range(0, len(split.labels), _CHUNK):
        # read, not mapped: mapped pages would count as memory of the process
        rows = min(_CHUNK, len(split.labels) - start)
        offset = split.data.offset + start * split.data[0].nbytes
        samples = np.fromfile(path, np.float32, rows * split.data[0].size, offset=offset).reshape(
            rows, *SAMPLE_SHAPE
        )
        for wrong, reason in (
            (~np.isfinite(samples).all((1, 2, 3, 4)), "NaN or infinite coordinates"),
            (
                np.abs(samples[:, :, 0, SPINE_MID, 0]).max(1) > CENTRED_METRES,
                "the first frame is not centred on the spine",
            ),
        ):
            if wrong.any():
                yield f"{split.names[start + int(wrong.argmax())]}: {reason}"
                return
        used |= samples.any((0, 1, 2, 4))
        empty += int((~samples[:, :, 0].any((1, 2, 3))).sum())
    if empty:
        print(f"  note: {empty} samples are all zeros")
    if unused := np.flatnonzero(~used & (np.arange(NUM_JOINTS) != SPINE_MID)).tolist():
        print(f"  note: joints {unused} are zero in every sample")


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(prog="python -m feeder.check", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of a split, or of several splits")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Check the folder on the command line."""
    folder = get_parser().parse_args(argv).folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    splits = [
        path
        for path in (folder, *sorted(folder.iterdir()))
        if any(path_of(path, part, DATA).exists() for part in PARTS)
    ]
    if not splits:
        raise UserError(
            f"{folder}: no arrays in it or its subfolders; set the folder of a data set (docs/data.md)"
        )
    print(HEADING)
    problems = [problem for split in splits for problem in check_folder(split)]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(1)
    print("no problems found: shapes, types, names, labels, frame counts, finite and centred values")


if __name__ == "__main__":
    main()
