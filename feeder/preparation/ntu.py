"""NTU RGB+D 60 and 120: sample names, protocols, lists of missing skeletons, the raw `.skeleton` format."""

import collections
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from feeder.arrays import check_is_folder
from feeder.cli import UserError
from feeder.preparation.generate import Result, Sample, Source, to_result
from feeder.preparation.raw_file import read_positions, read_text
from feeder.skeleton import NUM_JOINTS

SUFFIX = ".skeleton"
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
_NTU120_ONLY = re.compile(r"S(01[89]|02\d|03[012])C")
MAX_BODIES = 4  # the reference reads the first four bodies of a frame, by position, and ignores more

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


# The five numbers of a name such as S001C002P003R002A013, from 1.
SampleName = collections.namedtuple("SampleName", "setup camera subject replication action")


def parse_name(name: str, dataset: str | None = None) -> SampleName:
    """Return the numbers of a name with or without `.skeleton`; `UserError` if it is not one of `dataset`."""
    match = _NAME.fullmatch(name.removesuffix(SUFFIX))
    if not match:
        raise UserError(f"{name}: not a sample name; expected one like S001C002P003R002A013{SUFFIX}")
    numbers = SampleName(*map(int, match.groups()))
    for what, number, limit in zip(SampleName._fields, numbers, LIMITS.get(dataset, numbers), strict=True):
        if dataset and not 1 <= number <= limit:
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
    """Return the names (no suffix) that the authors list as missing: 302 for "ntu60", 535 for "ntu120"."""
    lines = Path(__file__).with_name("ntu_missing.txt").read_text().splitlines()
    groups = (line.split(": ") for line in lines if not line.startswith("#"))
    names = (group + entry for group, entries in groups for entry in entries.split())
    return frozenset(name for name in names if parse_name(name).setup <= LIMITS[dataset][0])


def read_names(path: Path) -> set[str]:
    """Return the sample names (no suffix) in a text file; other text, such as a heading, is ignored."""
    text = path.read_text("utf-8-sig", errors="replace")
    names = {match[0] for match in _NAME.finditer(text)}
    if text.strip() and not names:
        raise UserError(f"{path}: no sample name in it; write one per line, like S001C002P003R002A013")
    return names


def find_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the `.skeleton` files of folders by name (no suffix); raise `UserError` if one has none."""
    files: dict[str, Path] = {}
    for folder in folders:
        check_is_folder(folder)
        paths = sorted(folder.glob(f"*{SUFFIX}"))
        if not paths:
            raise UserError(f"{folder}: no {SUFFIX} files in it; set --data-path to their folder")
        for path in paths:
            if path.stem in files:
                raise UserError(f"{path}: the sample is also in {files[path.stem].parent}; keep one")
            files[path.stem] = path
    return files


def list_sources(files: Mapping[str, Path], dataset: str, benchmarks: Iterable[str]) -> list[Source | str]:
    """Return a source for each file, given by name, of the data set, and lines about the others."""
    sources: list[Source | str] = []
    of_ntu120 = []
    for name, path in files.items():
        if dataset == "ntu60" and _NTU120_ONLY.match(name):
            of_ntu120.append(name)
            continue
        try:
            numbers = parse_name(name, dataset)
        except UserError as error:
            sources.append(f"{path}: {error}")
            continue
        parts = {benchmark: part_of(numbers, benchmark) for benchmark in benchmarks}
        sources.append(Source(path, (Sample(name + SUFFIX, numbers.action - 1, parts),)))
    if of_ntu120:
        count = f"{len(of_ntu120)} samples of NTU-120, not NTU-60"
        sources.append(f"{files[of_ntu120[0]]}: {count}, such as {of_ntu120[0]}; set --dataset ntu120")
    return sources


def read_clips(source: Source) -> list[Result]:
    """Return the only clip of a `.skeleton` file."""
    return [to_result(source.path, read_bodies(source.path))]


def read_bodies(path: Path) -> np.ndarray:
    """Return the joints of a `.skeleton` file, (B, T, 25, 3) float64 in metres, zeros if a body is absent.

    B is the largest number of bodies in a frame, at most 4. They are in the order of each frame's lines: the
    reference ignores body ids. Of the twelve numbers of a joint only the position is used.
    """
    lines = read_text(path).split("\n")
    num_frames, blocks, frames, places = _find_bodies(path, lines)
    bodies = np.zeros((1 + max(places, default=-1), num_frames, NUM_JOINTS, 3))
    if blocks:
        joints = read_positions(path, lines, blocks, columns=3, width=12)
        bodies[places, frames] = joints.reshape(-1, NUM_JOINTS, 3)
    return bodies


def _find_bodies(path: Path, lines: list[str]) -> tuple[int, list[range], list[int], list[int]]:
    """Return the number of frames and, for each body, its lines of joints, its frame and its place there."""

    def count(at: int, what: str) -> int:
        try:
            return int(lines[at])
        except IndexError:
            raise UserError(f"{path}: line {len(lines)}: the file ends before its last frame") from None
        except ValueError:
            raise UserError(f"{path}: line {at + 1}: {lines[at][:20]!r} is not a number of {what}") from None

    blocks, frames, places = [], [], []
    num_frames, at = count(0, "frames"), 1
    if num_frames < 1:
        raise UserError(f"{path}: line 1: {num_frames} frames")
    for frame in range(num_frames):
        num_bodies = count(at, "bodies")
        at += 1
        for place in range(num_bodies):
            if (joints := count(at + 1, "joints")) != NUM_JOINTS:
                remedy = "map them to the 25 (docs/extending.md)"
                raise UserError(f"{path}: line {at + 2}: {joints} joints, expected {NUM_JOINTS}; {remedy}")
            if place < MAX_BODIES:
                blocks.append(range(at + 2, at + 2 + NUM_JOINTS))
                frames.append(frame)
                places.append(place)
            at += 2 + NUM_JOINTS
    if at != len(lines):
        reason = "the file ends before its last frame is complete"
        if at < len(lines):
            reason = f"unexpected text after the last of {num_frames} frames"
        raise UserError(f"{path}: line {min(at + 1, len(lines))}: {reason}")
    return num_frames, blocks, frames, places
