"""NTU RGB+D 60 and 120: lists of missing skeletons, the raw `.skeleton` format."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from feeder.arrays import check_is_folder
from feeder.cli import UserError
from feeder.data_sets import DATA_SETS
from feeder.preparation.raw_file import read_positions, read_text
from feeder.preparation.sources import Result, Sample, Source, to_result
from feeder.skeleton import NUM_JOINTS

SUFFIX = ".skeleton"
EXAMPLE = "S001C002P003R002A013"
MAX_BODIES = 4  # the reference reads the first four bodies of a frame, by position, and ignores more


def missing_samples(dataset: str) -> frozenset[str]:
    """Return the names (no suffix) that the authors list as missing: 302 for "ntu60", 535 for "ntu120"."""
    lines = Path(__file__).with_name("ntu_missing.txt").read_text().splitlines()
    groups = (line.split(": ") for line in lines if not line.startswith("#"))
    names = (group + entry for group, entries in groups for entry in entries.split())
    return frozenset(name for name in names if DATA_SETS[dataset].place(name))


def read_names(path: Path) -> set[str]:
    """Return the sample names (no suffix) in a text file; other text, such as a heading, is ignored."""
    text = path.read_text("utf-8-sig", errors="replace")
    names = set(re.findall(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", text, re.ASCII))
    if text.strip() and not names:
        raise UserError(f"{path}: no sample name in it; write one per line, like {EXAMPLE}")
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


def list_sources(files: Mapping[str, Path], dataset: str) -> list[Source | str]:
    """Return a source for each file, given by name, of the data set, and lines about the others."""
    sources: list[Source | str] = []
    of_ntu120 = []
    for name, path in files.items():
        if place := DATA_SETS[dataset].place(name):
            sources.append(Source(path, (Sample(name + SUFFIX, *place),)))
        elif DATA_SETS["ntu120"].place(name):
            of_ntu120.append(path)
        else:
            sources.append(f"{path}: {name} is not a sample of {dataset}, like {EXAMPLE}")
    if of_ntu120:
        count = f"{len(of_ntu120)} samples of ntu120, not {dataset}"
        sources.append(f"{of_ntu120[0]}: {count}; set --dataset ntu120")
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
    num_frames, found = _find_bodies(path, lines)
    bodies = np.zeros((1 + max((place for place, _, _ in found), default=-1), num_frames, NUM_JOINTS, 3))
    if found:
        places, frames, starts = zip(*found, strict=True)
        blocks = [range(start, start + NUM_JOINTS) for start in starts]
        positions = read_positions(path, lines, blocks, width=12, columns=3)
        bodies[places, frames] = positions.reshape(-1, NUM_JOINTS, 3)
    return bodies


def _find_bodies(path: Path, lines: list[str]) -> tuple[int, list[tuple[int, int, int]]]:
    """Return the number of frames and, for each body, its place in its frame, the frame and its first line.

    A file is the number of frames; for each frame the number of bodies; for each body a line of ids and
    states, the number of joints, and a line for each joint.
    """
    found = []
    at = 0  # the next line
    try:
        num_frames = int(lines[at])
        if num_frames < 1:
            raise ValueError
        for frame in range(num_frames):
            at += 1
            for place in range(int(lines[at])):
                at += 2
                if int(lines[at]) != NUM_JOINTS:
                    remedy = f"expected {NUM_JOINTS}: map them to these (docs/extending.md)"
                    raise UserError(f"{path}: line {at + 1}: {lines[at]} joints, {remedy}")
                if place < MAX_BODIES:
                    found.append((place, frame, at + 1))
                at += NUM_JOINTS
    except (ValueError, IndexError):
        reason = f"{lines[at][:20]!r} is not a number of frames, bodies or joints" if at < len(lines) else ""
        raise UserError(f"{path}: line {at + 1}: {reason or 'the file ends before its last frame'}") from None
    if at + 1 != len(lines):
        raise UserError(
            f"{path}: line {min(at + 2, len(lines))}: not the end of the last of {num_frames} frames"
        )
    return num_frames, found
