"""NTU RGB+D 60 and 120: sample names, protocols, lists of missing skeletons, the raw `.skeleton` format."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.preparation.generate import Clip, Sample, Source
from feeder.preparation.normalize import to_sample
from feeder.preparation.raw_file import parse_number, read_positions, read_text
from feeder.skeleton import MAX_FRAMES, NUM_JOINTS

MAX_BODIES = 4  # the reference reads the first four bodies of a frame, by position, and ignores more
_BODY_LINES = NUM_JOINTS + 2
_BODY_WIDTHS = [10, 1] + [12] * NUM_JOINTS  # words in each line of a body
_PLAIN = b"0123456789+-.eE \n"  # bytes of an ordinary file
_MAX_BYTES = 2**26  # 300 frames of six bodies take 8 MiB

SUFFIX = ".skeleton"
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")

# Highest setup, camera, performer and action of each data set.
LIMITS = {"ntu60": (17, 3, 40, 60), "ntu120": (32, 3, 106, 120)}
BENCHMARKS = {"ntu60": ("xsub", "xview"), "ntu120": ("xsub", "xsetup")}
# Samples of (train, val) once those with missing skeletons are gone.
SAMPLE_COUNTS = {
    ("ntu60", "xsub"): (40091, 16487),
    ("ntu60", "xview"): (37646, 18932),
    ("ntu120", "xsub"): (63026, 50919),
    ("ntu120", "xsetup"): (54468, 59477),
}
# NTU-120's cross-subject list begins with NTU-60's, which has no performer above 40: one list serves both.
TRAIN_SUBJECTS = frozenset(
    (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
    + (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89)
    + (91, 92, 93, 94, 95, 97, 98, 100, 103)
)
TRAIN_CAMERAS = frozenset((2, 3))


class SampleName(NamedTuple):
    """The five numbers of a name such as S001C002P003R002A013, as written there (from 1)."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int


def parse_name(name: str) -> SampleName:
    """Return the numbers of a sample name, given with or without `.skeleton`.

    Raises:
        UserError: the name does not follow SsssCcccPpppRrrrAaaa.
    """
    match = _NAME.fullmatch(name.removesuffix(SUFFIX))
    if not match:
        raise UserError(f"{name}: not a sample name; expected one like S001C002P003R002A013{SUFFIX}")
    return SampleName(*map(int, match.groups()))


def check_range(name: str, dataset: str) -> SampleName:
    """Return the numbers of a sample name that `dataset` ("ntu60" or "ntu120") can hold.

    Raises:
        UserError: no sample name, or a setup, camera, subject or class that the data set does not have.
    """
    numbers = parse_name(name)
    found = (numbers.setup, numbers.camera, numbers.subject, numbers.action)
    for what, number, limit in zip(("setup", "camera", "subject", "class"), found, LIMITS[dataset], strict=True):
        if not 1 <= number <= limit:
            raise UserError(f"{name}: {what} {number} is outside {dataset} (1..{limit})")
    if numbers.replication < 1:
        raise UserError(f"{name}: replication 0; the first one is 1")
    return numbers


def part_of(name: SampleName, benchmark: str) -> str:
    """Return "train" or "val": where a sample belongs under "xsub", "xview" or "xsetup"."""
    trains = {
        "xsub": name.subject in TRAIN_SUBJECTS,
        "xview": name.camera in TRAIN_CAMERAS,
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
    """Return the sample names (no suffix) of a text file with one a line.

    Lines before the first name are taken for a heading, as the official lists have one; an empty file is an empty list.

    Raises:
        UserError: a line after the first name is no name, or a file that is not empty holds no name.
    """
    names = set()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text; give a file with one sample name a line") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if _NAME.fullmatch(line.removesuffix(SUFFIX)):
            names.add(line.removesuffix(SUFFIX))
        elif line and names:
            raise UserError(f"{path}: line {number}: {line[:40]!r} is not a sample name")
    if not names and any(map(str.strip, lines)):
        raise UserError(f"{path}: no sample name in it; give one a line, like S001C002P003R002A013")
    return names


def list_files(folder: str | Path) -> list[Path]:
    """Return the `.skeleton` files of a folder, sorted; other files are no samples and are not looked at.

    Raises:
        UserError: the folder does not exist or has no such file.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; give the one with the {SUFFIX} files by --data-path")
    paths = sorted(path for path in Path(folder).iterdir() if path.name.endswith(SUFFIX))
    if not paths:
        raise UserError(f"{folder}: no {SUFFIX} files in it; give the folder that has them by --data-path")
    return paths


def list_sources(paths: Iterable[Path], dataset: str, benchmarks: Iterable[str]) -> tuple[list[Source], list[str]]:
    """Return a source for each file that can be a sample of the data set, and a line for each one that cannot."""
    sources: dict[str, Source] = {}
    bad = []
    for path in paths:
        try:
            name = check_range(path.name, dataset)
        except UserError as error:
            bad.append(f"{path.parent}/{error}")
            continue
        if path.name in sources:
            bad.append(f"{path}: the sample is also in {sources[path.name].path.parent}; keep one")
            continue
        parts = {benchmark: part_of(name, benchmark) for benchmark in benchmarks}
        sources[path.name] = Source(path, (Sample(path.name, name.action - 1, parts),))
    return list(sources.values()), bad


def read_clips(source: Source) -> list[Clip | None]:
    """Return the one clip of a `.skeleton` file, None if nobody is in it."""
    bodies = read_bodies(source.path)
    sample = to_sample(bodies)
    return [Clip(sample, bodies.shape[1]) if sample[:, 0].any() else None]


def read_bodies(path: Path) -> np.ndarray:
    """Return the joints of a `.skeleton` file, zeros where a frame has no such body.

    The order of the bodies is that of the lines in each frame, as in the reference, which does not look at body ids. Of
    a joint's twelve numbers the last nine (projections, orientation, state) are not used: they may be NaN or infinite,
    and two points in one of them are not noticed.

    Args:
        path: a file of at most 300 frames.

    Returns:
        (4, T, 25, 3) float64 in metres, T in 1..300.

    Raises:
        UserError: the file is damaged: file, line, reason.
    """
    text = read_text(path, _MAX_BYTES)
    lines, raw = text.split("\n"), f"{text}\n".encode()
    characters = np.frombuffer(raw, np.uint8)
    word_ends = np.flatnonzero(characters <= 32)
    last_words = np.flatnonzero(characters[word_ends] == 10)  # the last word of each line
    if single_blanks := (np.diff(word_ends) > 1).all():
        widths = np.diff(last_words, prepend=-1).tolist()
    else:
        widths = [len(line.split()) for line in lines]
    num_frames, first_lines, frames, places = _outline(path, lines, widths)
    if raw.translate(None, _PLAIN):  # such as NaN in a column that is not used
        for number, line in enumerate(lines, 1):
            for word in line.split():
                parse_number(path, number, word)
    cut = None
    if single_blanks and first_lines:  # np.loadtxt needs half the time for lines that end soon after their third number
        before = last_words[np.add.outer(first_lines, range(1, _BODY_LINES - 1))]
        cut = (word_ends[before + 3] - word_ends[before]).max()
    joint_lines = [line[:cut] for first in first_lines for line in lines[first + 2 : first + _BODY_LINES]]
    numbers = (at + 1 for first in first_lines for at in range(first + 2, first + _BODY_LINES))
    joints = read_positions(path, joint_lines, numbers, 3, more=True)
    bodies = np.zeros((MAX_BODIES, num_frames, NUM_JOINTS, 3))
    bodies[places, frames] = joints.reshape(-1, NUM_JOINTS, 3)
    return bodies


def _outline(path: Path, lines: list[str], widths: list[int]) -> tuple[int, list[int], list[int], list[int]]:
    """Return the number of frames, and the first line (from 0), frame and place of each body that is used."""
    num_frames = _count(path, lines, 0, "frames")
    if not 1 <= num_frames <= MAX_FRAMES:
        raise UserError(f"{path}: line 1: {num_frames} frames; a sample has 1 to {MAX_FRAMES}")
    first_lines, frames, places = [], [], []
    at = 1
    for frame in range(num_frames):
        num_bodies = _count(path, lines, at, "bodies")
        at += 1
        for place in range(num_bodies):
            if widths[at : at + _BODY_LINES] != _BODY_WIDTHS or lines[at + 1].strip() != str(NUM_JOINTS):
                _raise_body_error(path, lines, at)
            if place < MAX_BODIES:
                first_lines.append(at)
                frames.append(frame)
                places.append(place)
            at += _BODY_LINES
    if at < len(lines):
        at = next(i for i in range(at, len(lines)) if lines[i].strip())
        raise UserError(f"{path}: line {at + 1}: goes on after the last of {num_frames} frames")
    return num_frames, first_lines, frames, places


def _count(path: Path, lines: list[str], at: int, what: str) -> int:
    text = _line(path, lines, at).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(f"{path}: line {at + 1}: {text[:20]!r} is not a number of {what}")
    return int(text)


def _raise_body_error(path: Path, lines: list[str], first: int) -> None:
    """Raise the error of the first line, from `first`, that is not as a body's line at that place should be."""
    for at, width in enumerate(_BODY_WIDTHS, first):
        words = _line(path, lines, at).split()
        if at == first + 1 and words != [str(NUM_JOINTS)]:
            raise UserError(f"{path}: line {at + 1}: {' '.join(words)[:20]!r} joints, not {NUM_JOINTS}")
        if len(words) != width:
            what = "joint" if at > first else "body"
            raise UserError(f"{path}: line {at + 1}: {len(words)} numbers for a {what}, not {width}")


def _line(path: Path, lines: list[str], at: int) -> str:
    if at >= len(lines):
        raise UserError(f"{path}: line {len(lines)}: the file ends here, before its last frame does")
    return lines[at]
