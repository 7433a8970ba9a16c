"""NTU RGB+D 60 and 120: sample names, protocols, lists of missing skeletons, class names, the raw `.skeleton` format."""

import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.preparation.fast_read import read_plain
from feeder.skeleton import MAX_FRAMES, NUM_JOINTS

MAX_BODIES = 4  # the reference reads the first four bodies of a frame, by position, and ignores more
TRACKED_BODIES = 6  # at most, by the Kinect
JOINT_COLUMNS, BODY_COLUMNS = 12, 10
LINES_PER_BODY = NUM_JOINTS + 2
MAX_BYTES = 2**26  # 300 frames of six bodies take 8 MiB
MAX_METRES = 1e6

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
        raise UserError(f"{name}: no sample name; expected one like S001C002P003R002A013{SUFFIX}")
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
        raise UserError(f"{path}: no text; give a file with one sample name a line") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if _NAME.fullmatch(line.removesuffix(SUFFIX)):
            names.add(line.removesuffix(SUFFIX))
        elif line and names:
            raise UserError(f"{path}: line {number}: {line[:40]!r} is no sample name")
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


def read_bodies(path: Path) -> np.ndarray:
    """Return the joints of a `.skeleton` file, zeros where a frame has no such body.

    The order of the bodies is that of the lines in each frame, as in the reference: the body ids are not looked at.
    Of a joint's twelve numbers the last nine (projections, orientation, state) are not used: they may be NaN or
    infinite, and are checked no closer than to be written with the characters of a number.

    Args:
        path: a file of at most 300 frames; line ends may be LF or CRLF.

    Returns:
        (4, T, 25, 3) float64 in metres, T in 1..300.

    Raises:
        UserError: the file is damaged: file, line, reason.
    """
    try:
        raw = _read_bytes(path)
        plain = read_plain(raw, MAX_FRAMES, MAX_METRES)
        return _place(*(plain or _read_carefully(raw)))
    except _DamageError as damage:
        raise UserError(f"{path}: {damage}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


class _DamageError(Exception):
    """Damage at a line (from 1); the path is added by whoever knows it."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


def _read_bytes(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise _DamageError(1, f"the file is larger than {MAX_BYTES >> 20} MiB: no skeleton file")
        raw = file.readall()
    if not raw.strip():
        raise _DamageError(1, "the file is empty")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _DamageError(1, "starts with a byte-order mark; save the file without it")
    return raw.replace(b"\r\n", b"\n") if b"\r" in raw else raw


def _place(num_frames: int, joints: np.ndarray, frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    bodies = np.zeros((MAX_BODIES, num_frames, NUM_JOINTS, 3))
    if places.max(initial=0) >= MAX_BODIES:
        kept = places < MAX_BODIES
        joints, frames, places = joints[kept], frames[kept], places[kept]
    bodies[places, frames] = joints
    return bodies


def _read_carefully(raw: bytes) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return frame count, joints (bodies, 25, 3), and each body's frame and place in it, or raise at the first damage."""
    try:
        lines = raw.decode("ascii").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise _DamageError(raw.count(b"\n", 0, error.start) + 1, "bytes that are no text") from None
    num_frames = _count(lines, 0, "frames")
    if not 1 <= num_frames <= MAX_FRAMES:
        raise _DamageError(1, f"{num_frames} frames; a sample has 1 to {MAX_FRAMES}")
    joints, frames, places = [], [], []
    at = 1
    for frame in range(num_frames):
        num_bodies = _count(lines, at, "bodies")
        at += 1
        if num_bodies > TRACKED_BODIES and at + num_bodies * LINES_PER_BODY > len(lines):
            raise _DamageError(at, f"{num_bodies} bodies, more than the file has lines for")
        for place in range(num_bodies):
            joints += _body(lines, at)
            frames.append(frame)
            places.append(place)
            at += LINES_PER_BODY
    if at < len(lines):
        number = next(number for number in range(at, len(lines)) if lines[number].strip())
        raise _DamageError(number + 1, f"goes on after the last of {num_frames} frames")
    return num_frames, np.reshape(joints, (-1, NUM_JOINTS, 3)), np.array(frames, int), np.array(places, int)


def _body(lines: list[str], at: int) -> list[list[float]]:
    """Return the positions of the body whose lines begin at `at` (from 0)."""
    _floats(lines, at, BODY_COLUMNS, "body")
    num_joints = _count(lines, at + 1, "joints")
    if num_joints != NUM_JOINTS:
        raise _DamageError(at + 2, f"{num_joints} joints, not {NUM_JOINTS}")
    positions = []
    for line in range(at + 2, at + LINES_PER_BODY):
        positions.append(_floats(lines, line, JOINT_COLUMNS, "joint")[:3])
        for number in positions[-1]:
            if not abs(number) <= MAX_METRES:
                raise _DamageError(line + 1, f"{number} is no position in metres")
    return positions


def _count(lines: list[str], at: int, what: str) -> int:
    text = _line(lines, at).strip()
    if not text.isdecimal() or len(text) > 9:
        raise _DamageError(at + 1, f"{text[:20]!r} is no number of {what}")
    return int(text)


def _floats(lines: list[str], at: int, count: int, what: str) -> list[float]:
    words = _line(lines, at).split()
    if len(words) != count:
        raise _DamageError(at + 1, f"{len(words)} numbers for a {what}, not {count}")
    numbers = []
    for word in words:
        try:
            numbers.append(float(word.replace("_", "?")))  # Python alone reads 1_0 as a number
        except ValueError:
            raise _DamageError(at + 1, f"{word[:20]!r} is no number") from None
    return numbers


def _line(lines: list[str], at: int) -> str:
    if at >= len(lines):
        raise _DamageError(len(lines), "the file ends here, before its last frame does")
    return lines[at]
