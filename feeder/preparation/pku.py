"""PKU-MMD: names of videos, and the three kinds of file: skeletons, labels, splits.

The official readme leaves open whether a label's frames count from 0 and whether its end belongs to it. Here they are
the rows start .. end of the skeleton file, 0-based, end excluded: the only reading that agrees with the three rows of part
1 that start at 0 and with the ends that equal a video's length.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.preparation.generate import Clip, Source
from feeder.preparation.normalize import to_sample
from feeder.preparation.raw_file import read_positions, read_text
from feeder.skeleton import MAX_FRAMES, NUM_BODIES, NUM_JOINTS

NUM_CLASSES = 51  # in part 2 as well, where ten of the ids do not occur
PART_NUMBERS = (1, 2)
BENCHMARKS = ("xsub", "xview")
# Label rows of (train, val); part 1 counted from the label files, part 2 as commonly quoted.
ROW_COUNTS = {
    (1, "xsub"): (18841, 2704),
    (1, "xview"): (14357, 7188),
    (2, "xsub"): (5332, 1613),
}
# Samples at most: row 21 of part 1's 0043-L ends before it starts; segments without any body are left out as well.
SAMPLE_COUNTS = ROW_COUNTS | {(1, "xsub"): (18840, 2704), (1, "xview"): (14356, 7188)}
_COLUMNS = NUM_BODIES * NUM_JOINTS * 3
MAX_BYTES = 2**27  # the longest video, some 7,000 frames, takes 10 MiB

_VIDEO = {1: re.compile(r"\d{4}-[LMR]"), 2: re.compile(r"A\d{2}N\d{2}-[LMR]")}
_SAMPLE = re.compile(r"(.+)_r\d+_c\d+")
_EXAMPLE = {1: "0002-L", 2: "A01N01-L"}
# "Validataion videos:" is the spelling of the official files.
_HEADING = re.compile(r"(train|val)\w*\s+videos?\s*:?", re.IGNORECASE)


class Row(NamedTuple):
    """A row of a label file: its line (from 1), the class id (1 .. 51), the frames start .. end, end excluded."""

    line: int
    action: int
    start: int
    end: int

    def sample(self, video: str) -> str:
        """Return the name of the sample that this row becomes, such as "0043-L_r21_c01": video, row, class id."""
        return f"{video}_r{self.line:02d}_c{self.action:02d}"


def is_video(name: str, part: int) -> bool:
    """Return whether a name (no suffix) is one of a video of that part: "0002-L" in part 1, "A01N01-L" in part 2."""
    return _VIDEO[part].fullmatch(name) is not None


def part_number(sample: str) -> int | None:
    """Return the part (1 or 2) that a sample's name, see `Row.sample`, is of; None if it is no such name."""
    match = _SAMPLE.fullmatch(sample)
    return next((part for part in PART_NUMBERS if match and is_video(match[1], part)), None)


def read_split(path: Path, part: int) -> dict[str, frozenset[str]]:
    """Return the videos of a split file as {"train": names, "val": names}.

    Args:
        path: text with a heading "Training videos:" and one "Validataion videos:", each followed by names with commas
            between; a comma at the end and missing blanks do no harm.
        part: 1 or 2.

    Raises:
        UserError: a heading is missing, a name is none of that part, or a video is in both lists.
    """
    videos: dict[str, set[str]] = {}
    current = None
    for number, line in enumerate(read_text(path, MAX_BYTES).split("\n"), 1):
        if heading := _HEADING.match(line.strip()):
            current = videos.setdefault("train" if heading[1].lower() == "train" else "val", set())
            line = line.strip()[heading.end() :]
        for name in filter(None, map(str.strip, line.split(","))):
            if current is None:
                raise UserError(f'{path}: line {number}: {name[:40]!r} before a heading "Training videos:"')
            if not is_video(name, part):
                reason = f"{name[:40]!r} is not a video of part {part} (like {_EXAMPLE[part]})"
                raise UserError(f"{path}: line {number}: {reason}")
            current.add(name)
    for key, title in (("train", "Training videos:"), ("val", "Validataion videos:")):
        if key not in videos:
            raise UserError(f'{path}: no line "{title}"; give the split file of part {part} as delivered')
    if twice := videos["train"] & videos["val"]:
        raise UserError(f"{path}: {min(twice)} is in both lists")
    return {key: frozenset(names) for key, names in videos.items()}


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a label file in the file's order; the confidence is read and not used.

    Rows are checked one by one, not against the video: a row may have start >= end or lie beyond the video's end.

    Raises:
        UserError: the file is empty or a line is not `class,start,end,confidence`: file, line, reason.
    """
    rows = []
    for number, line in enumerate(read_text(path, MAX_BYTES).split("\n"), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4:
            raise UserError(f"{path}: line {number}: {len(fields)} numbers, not class,start,end,confidence")
        for field in fields:
            if not re.fullmatch(r"[0-9]{1,9}", field):
                raise UserError(f"{path}: line {number}: {field[:20]!r} is not a whole number from 0")
        action, start, end, _ = map(int, fields)
        if not 1 <= action <= NUM_CLASSES:
            raise UserError(f"{path}: line {number}: class {action} is outside 1..{NUM_CLASSES}")
        rows.append(Row(number, action, start, end))
    return rows


def read_video(path: Path) -> np.ndarray:
    """Return the two bodies of a skeleton file, zeros where a body is absent.

    Args:
        path: one line a frame, x y z of the 25 joints of the first body and then of the second, in metres.

    Returns:
        (2, T, 25, 3) float64.

    Raises:
        UserError: the file is damaged: file, line, reason.
    """
    lines = read_text(path, MAX_BYTES).split("\n")
    numbers = read_positions(path, lines, range(1, len(lines) + 1), _COLUMNS)
    return np.ascontiguousarray(numbers.reshape(-1, NUM_BODIES, NUM_JOINTS, 3).swapaxes(0, 1))  # (2, T, 25, 3)


def read_clips(source: Source) -> list[Clip | None | str]:
    """Return the clip of each segment of a video: its first 300 frames, ranked and normalised like an NTU file.

    The result is None for a segment without any body, and a reason for one that starts after the end of the video.
    """
    video = read_video(source.path)
    results: list[Clip | None | str] = []
    for sample in source.samples:
        start, end = sample.segment
        bodies = video[:, start:end][:, :MAX_FRAMES]
        if not bodies.size:
            results.append(f"{source.path}: {sample.name} starts at frame {start}, the video has {video.shape[1]}")
            continue
        data = to_sample(bodies)
        results.append(Clip(data, bodies.shape[1]) if data[:, 0].any() else None)
    return results
