"""NTU RGB+D 60 and 120: sample names, protocols, lists of missing skeletons, the raw `.skeleton` format."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.preparation.generate import Result, Sample, Source
from feeder.preparation.normalize import to_sample
from feeder.preparation.raw_file import check_positions, parse_numbers, read_text
from feeder.skeleton import MAX_FRAMES, NUM_JOINTS

SUFFIX = ".skeleton"
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
MAX_BODIES = 4  # the reference reads the first four bodies of a frame, by position, and ignores more
_BODY_WIDTHS = [10, 1] + [12] * NUM_JOINTS  # words in each line of a body
_PLAIN = b"0123456789+-.eE \n"  # bytes of an ordinary file

# Highest setup, camera, subject, replication and class of each data set.
LIMITS = {"ntu60": (17, 3, 40, 999, 60), "ntu120": (32, 3, 106, 999, 120)}
BENCHMARKS = {"ntu60": ("xsub", "xview"), "ntu120": ("xsub", "xsetup")}
# Samples of (train, val) without those on the list of missing skeletons.
SAMPLE_COUNTS = {
    ("ntu60", "xsub"): (40091, 16487),
    ("ntu60", "xview"): (37646, 18932),
    ("ntu120", "xsub"): (63026, 50919),
    ("ntu120", "xsetup"): (54468, 59477),
}
# NTU-120's cross-subject list starts with NTU-60's, which has no subject above 40: one list is enough.
TRAIN_SUBJECTS = frozenset(
    (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
    + (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89)
    + (91, 92, 93, 94, 95, 97, 98, 100, 103)
)


class SampleName(NamedTuple):
    """The five numbers of a name such as S001C002P003R002A013, from 1."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int


def parse_name(name: str, dataset: str | None = None) -> SampleName:
    """Return the numbers of a name with or without `.skeleton`; `UserError` if `dataset` has no such sample."""
    match = _NAME.fullmatch(name.removesuffix(SUFFIX))
    if not match:
        raise UserError(f"{name}: not a sample name; expected one like S001C002P003R002A013{SUFFIX}")
    numbers = SampleName(*map(int, match.groups()))
    for what, number, limit in zip(
        numbers._fields, numbers, LIMITS[dataset] if dataset else (), strict=False
    ):
        if not 1 <= number <= limit:
            raise UserError(f"{name}: {what} {number} is outside {dataset} (1..{limit})")
    return numbers


def part_of(name: SampleName, benchmark: str) -> str:
    """Return the part ("train" or "val") of a sample under "xsub", "xview" or "xsetup"."""
    trains = {
        "xsub": name.subject in TRAIN_SUBJECTS,
        "xview": name.camera in (2, 3),
        "xsetup": name.setup % 2 == 0,
    }
    return "train" if trains[benchmark] else "val"


@functools.cache
def missing_samples(dataset: str) -> frozenset[str]:
    """Return the names (no suffix) whose skeletons the authors list as missing: 302 for "ntu60", 535 for "ntu120"."""
    lines = Path(__file__).with_name("ntu_missing.txt").read_text().splitlines()
    groups = (line.split(": ") for line in lines if not line.startswith("#"))
    names = (group + entry for group, entries in groups for entry in entries.split())
    return frozenset(name for name in names if parse_name(name).setup <= LIMITS[dataset][0])


def read_names(path: Path) -> set[str]:
    """Return the sample names (no suffix) of a text file with one per line; lines before the first name are ignored."""
    names = set()
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").split("\n")]
    for number, line in enumerate(lines, 1):
        if _NAME.fullmatch(line.removesuffix(SUFFIX)):
            names.add(line.removesuffix(SUFFIX))
        elif line and names:
            raise UserError(f"{path}: line {number}: {line[:40]!r} is not a sample name")
    if any(lines) and not names:
        raise UserError(f"{path}: no sample name in it; write one per line, like S001C002P003R002A013")
    return names


def list_files(folder: Path) -> list[Path]:
    """Return the sorted `.skeleton` files of a folder; raise `UserError` if there are none."""
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        what = f"no {SUFFIX} files in it" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; set --data-path to the folder of the files")
    return paths


def list_sources(
    paths: Iterable[Path], dataset: str, benchmarks: Iterable[str]
) -> tuple[list[Source], list[str]]:
    """Return a source for each file that is a sample of the data set, and a line for each other file."""
    sources: dict[str, Source] = {}
    bad = []
    for path in paths:
        try:
            name = parse_name(path.name, dataset)
        except UserError as error:
            bad.append(f"{path.parent}/{error}")
            continue
        if path.name in sources:
            bad.append(f"{path}: the sample is also in {sources[path.name].path.parent}; keep one")
            continue
        parts = {benchmark: part_of(name, benchmark) for benchmark in benchmarks}
        sources[path.name] = Source(path, (Sample(path.name, name.action - 1, parts),))
    return list(sources.values()), bad


def read_clips(source: Source) -> list[Result]:
    """Return the only clip of a `.skeleton` file, None if it has no body."""
    bodies = read_bodies(source.path)
    sample = to_sample(bodies)
    return [(sample, bodies.shape[1]) if sample[:, 0].any() else None]


def read_bodies(path: Path) -> np.ndarray:
    """Return the joints of a `.skeleton` file, (4, T, 25, 3) float64 in metres, zeros where a frame has no such body.

    The bodies are in the order of each frame's lines: the reference ignores body ids. The last nine of a
    joint's twelve numbers (projections, orientation, state) are not used and may be NaN or infinite.
    """
    text = read_text(path) + "\n"
    ends, lasts = _find_words(text)
    if text.encode().translate(None, _PLAIN) or np.diff(ends, prepend=-1).min() == 1:
        # NaN in a column that is not used, tabs, two blanks: check each word, then join them with single blanks
        text = _join_words(path, text)
        ends, lasts = _find_words(text)
    widths = np.diff(lasts, prepend=-1).tolist()
    num_frames, found = _find_bodies(path, text, (ends[lasts] + 1).tolist(), widths)

    # convert only the first three words of each joint's line: whole lines take twice as long
    first_lines, places, frames = np.array(found, int).reshape(-1, 3).T
    joint_lines = np.add.outer(first_lines, range(2, len(_BODY_WIDTHS))).ravel()
    before = lasts[joint_lines - 1]
    cuts = zip((ends[before] + 1).tolist(), ends[before + 3].tolist(), strict=True)
    try:
        joints = (
            np.loadtxt([text[start:end] for start, end in cuts], comments=None, ndmin=2)
            if found
            else np.zeros((0, 3))
        )
    except ValueError:
        _join_words(path, text)  # raises an error with the line number
        raise
    check_positions(path, joints, joint_lines + 1)
    bodies = np.zeros((MAX_BODIES, num_frames, NUM_JOINTS, 3))
    bodies[places, frames] = joints.reshape(-1, NUM_JOINTS, 3)
    return bodies


def _find_words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the end of each word of a text, and the indices of the words that end a line."""
    characters = np.frombuffer(text.encode(), np.uint8)
    ends = np.flatnonzero(characters <= 32)
    return ends, np.flatnonzero(characters[ends] == 10)


def _join_words(path: Path, text: str) -> str:
    rows = [line.split() for line in text.split("\n")[:-1]]
    for number, row in enumerate(rows, 1):
        parse_numbers(path, number, row)
    return "".join(" ".join(row) + "\n" for row in rows)


def _find_bodies(
    path: Path, text: str, ends: list[int], widths: list[int]
) -> tuple[int, list[tuple[int, int, int]]]:
    """Return the number of frames, and (first line from 0, place in its frame, frame) of each body that is used.

    `ends` and `widths` are the end and the number of words of each line of `text`.
    """

    def line(at: int) -> str:
        if at >= len(ends):
            raise UserError(f"{path}: line {len(ends)}: the file ends before its last frame is complete")
        return text[ends[at - 1] if at else 0 : ends[at] - 1]

    def count(at: int, what: str) -> int:
        word = line(at)
        if not (word.isdecimal() and len(word) < 10):
            raise UserError(f"{path}: line {at + 1}: {word[:20]!r} is not a number of {what}")
        return int(word)

    num_frames, found, at = count(0, "frames"), [], 1
    if not 1 <= num_frames <= MAX_FRAMES:
        raise UserError(f"{path}: line 1: {num_frames} frames; a sample has 1 to {MAX_FRAMES}")
    for frame in range(num_frames):
        num_bodies = count(at, "bodies")
        at += 1
        for place in range(num_bodies):
            if widths[at : at + len(_BODY_WIDTHS)] != _BODY_WIDTHS or line(at + 1) != str(NUM_JOINTS):
                for number, width in enumerate(_BODY_WIDTHS, at):
                    if (words := len(line(number).split())) != width:
                        raise UserError(f"{path}: line {number + 1}: {words} numbers, expected {width}")
                raise UserError(f"{path}: line {at + 2}: {line(at + 1)[:20]!r} joints, expected {NUM_JOINTS}")
            if place < MAX_BODIES:
                found.append((at, place, frame))
            at += len(_BODY_WIDTHS)
    if at < len(ends):
        raise UserError(f"{path}: line {at + 1}: unexpected text after the last of {num_frames} frames")
    return num_frames, found
