"""PKU-MMD: names of videos, raw skeletons, labels and splits, and the samples that they define.

The official readme does not say whether label frames count from 0 or whether the end is included. Here they are the rows
start .. end of the skeleton file, from 0, end excluded: only this agrees with part 1, where three label rows start at 0 and
some ends equal the length of the video.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.preparation.generate import Report, Result, Sample, Source
from feeder.preparation.normalize import to_sample
from feeder.preparation.raw_file import check_positions, parse_numbers, read_text
from feeder.skeleton import MAX_FRAMES, NUM_BODIES, NUM_JOINTS

NUM_CLASSES = 51  # in part 2 as well, where ten of the ids do not occur
BENCHMARKS = ("xsub", "xview")
# Samples of (train, val): of part 1, the label rows except the one that ends before it starts; of part 2, as commonly quoted.
# The number of segments without any body, which are skipped too, is not known.
SAMPLE_COUNTS = {(1, "xsub"): (18840, 2704), (1, "xview"): (14356, 7188), (2, "xsub"): (5332, 1613)}
_COLUMNS = NUM_BODIES * NUM_JOINTS * 3
_VIDEO = {1: r"\d{4}-[LMR]", 2: r"A\d{2}N\d{2}-[LMR]"}
_EXAMPLE = {1: "0002-L", 2: "A01N01-L"}
# "Validataion videos:" is the spelling of the official files.
_SPLIT = re.compile(r"\s*train\w*\s+videos?\s*:?(.*)\bval\w*\s+videos?\s*:?(.*)", re.IGNORECASE | re.DOTALL)

# Known names of the folders of the files, in the archives and in related repositories, in lower case.
_FOLDERS = {
    "skeletons": ("pku_skeleton_renew", "skeleton", "skeletons", "skeleton_v2", "data", "datav2"),
    "labels": (
        "train_label_pku_final",
        "label",
        "labels",
        "label_v2",
        "label_pkummd",
        "label_pkummd_v2",
        "labelv2",
    ),
}
_DEPTH = 4  # files below --data-path, such as PKUMMD/Data/PKU_Skeleton_Renew/0002-L.txt


def part_number(sample: str) -> int | None:
    """Return the part (1 or 2) of a sample such as "0043-L_r21_c01" (video, row, class id), None for other names."""
    return next(
        (part for part, video in _VIDEO.items() if re.fullmatch(rf"{video}_r\d+_c\d+", sample, re.ASCII)),
        None,
    )


def read_split(path: Path, part: int) -> dict[str, frozenset[str]]:
    """Return the videos of a split file as {"train": names, "val": names}."""
    lists = _SPLIT.fullmatch(read_text(path))
    if not lists:
        raise UserError(
            f'{path}: no lists "Training videos:" and "Validataion videos:"; use the official split file'
        )
    videos = {
        key: frozenset(re.findall(r"[^\s,]+", names))
        for key, names in zip(("train", "val"), lists.groups(), strict=True)
    }
    for name in sorted(videos["train"] | videos["val"]):
        if not re.fullmatch(_VIDEO[part], name):
            raise UserError(f"{path}: {name[:40]!r} is not a video of part {part} (like {_EXAMPLE[part]})")
    if twice := videos["train"] & videos["val"]:
        raise UserError(f"{path}: {min(twice)} is in both lists")
    return videos


def read_rows(path: Path) -> list[tuple[int, int, int, int]]:
    """Return (line from 1, class id from 1, start, end) of each row of a label file; the confidence is ignored."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*){3}", line, re.ASCII):
            raise UserError(
                f"{path}: line {number}: {line[:40]!r} is not class,start,end,confidence, whole numbers from 0"
            )
        action, start, end, _ = map(int, line.split(","))
        if not 1 <= action <= NUM_CLASSES:
            raise UserError(f"{path}: line {number}: class {action} is outside 1..{NUM_CLASSES}")
        rows.append((number, action, start, end))
    return rows


def read_video(path: Path) -> np.ndarray:
    """Return the two bodies of a skeleton file, zeros where a body is absent: (2, T, 25, 3) float64 in metres."""
    lines = read_text(path).split(
        "\n"
    )  # one frame per line: x y z of the first body's joints, then of the second's
    try:
        frames = np.loadtxt(lines, comments=None, ndmin=2)
    except ValueError:
        frames = np.empty((0, 0))
    if frames.shape != (len(lines), _COLUMNS):
        for number, line in enumerate(lines, 1):
            words = parse_numbers(path, number, line.split())
            if len(words) != _COLUMNS:
                raise UserError(f"{path}: line {number}: {len(words)} numbers, expected {_COLUMNS}")
        raise UserError(f"{path}: numbers are separated by something other than blanks")
    check_positions(path, frames, range(1, len(frames) + 1))
    return frames.reshape(-1, NUM_BODIES, NUM_JOINTS, 3).swapaxes(0, 1)


def read_clips(source: Source) -> list[Result]:
    """Return the clip of each segment of a video: its first 300 frames, ranked and normalised like an NTU file."""
    video = read_video(source.path)
    results: list[Result] = []
    for sample in source.samples:
        start, end = sample.segment
        bodies = np.ascontiguousarray(video[:, start : min(end, start + MAX_FRAMES)])
        if not bodies.size:
            results.append(
                f"{source.path}: {sample.name} starts at frame {start}, the video has {video.shape[1]}"
            )
            continue
        data = to_sample(bodies)
        results.append((data, bodies.shape[1]) if data[:, 0].any() else None)
    return results


class Plan(NamedTuple):
    """Samples to prepare. `notes` has the names of exceptions by kind."""

    num_videos: int
    sources: list[Source]
    notes: dict[str, list[str]]
    bad: list[str]


BACKWARDS = "rows with start >= end, skipped"
LONG = f"segments longer than {MAX_FRAMES} frames, the first {MAX_FRAMES} kept"


def plan(root: Path, part: int, benchmarks: Iterable[str]) -> Plan:
    """Return the samples of an unpacked download: one for each valid label row of each video that has both files.

    The folders of the files may be up to three levels below `root`. Files of the other part are ignored.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; set --data-path")
    files = [path for depth in range(1, _DEPTH + 1) for path in sorted(root.glob("/".join("*" * depth)))]
    skeletons, labels = (_find_videos(root, files, kind, part) for kind in _FOLDERS)
    splits = {name: read_split(_find_split(root, files, part, name), part) for name in benchmarks}
    listed = {name for lists in splits.values() for names in lists.values() for name in names}
    notes: dict[str, list[str]] = {
        "videos without a skeleton file": sorted((listed | set(labels)) - set(skeletons)),
        "videos without a label file": sorted(set(skeletons) - set(labels)),
    }
    neither = {benchmark: f"videos in neither list of {benchmark}, skipped there" for benchmark in splits}
    notes |= {kind: [] for kind in (*neither.values(), BACKWARDS, LONG)}
    result = Plan(len(skeletons), [], notes, [])
    for video in sorted(set(skeletons) & set(labels)):
        parts = {
            name: part for name, lists in splits.items() for part, videos in lists.items() if video in videos
        }
        for benchmark in set(splits) - set(parts):
            notes[neither[benchmark]].append(video)
        try:
            rows = read_rows(labels[video]) if parts else []
        except UserError as error:
            result.bad.append(str(error))
            continue
        samples = []
        for line, action, start, end in rows:
            name = f"{video}_r{line:02d}_c{action:02d}"
            if start >= end:
                notes[BACKWARDS].append(f"{video} row {line}")
                continue
            if end - start > MAX_FRAMES:
                notes[LONG].append(name)
            samples.append(Sample(name, action - 1, parts, (start, end)))
        result.sources.append(Source(skeletons[video], tuple(samples)))
    return result


def _find_videos(root: Path, files: list[Path], kind: str, part: int) -> dict[str, Path]:
    """Return the files of one kind in `root` by video name."""
    texts = [path for path in files if path.parent.name.lower() in _FOLDERS[kind] and path.suffix == ".txt"]
    videos = {part: [path for path in texts if re.fullmatch(_VIDEO[part], path.stem)] for part in _VIDEO}
    folders = sorted({path.parent for path in videos[part]})
    if len(folders) > 1:
        raise UserError(f"{root}: {kind} of part {part} in both {folders[0]} and {folders[1]}; keep one")
    if folders:
        return {path.stem: path for path in videos[part]}
    advice = (
        f"those of part {3 - part} exist: set --part {3 - part}"
        if videos[3 - part]
        else "unpack the archives"
    )
    raise UserError(
        f"{root}: no {kind} of part {part} in a folder named {', '.join(_FOLDERS[kind])}; {advice}"
    )


def _find_split(root: Path, files: list[Path], part: int, benchmark: str) -> Path:
    name = f"cross_{'subject' if benchmark == 'xsub' else 'view'}{'_v2' if part == 2 else ''}.txt"  # or with "-" for "_"
    found = [path for path in files if path.name.lower().replace("-", "_") == name]
    if not found:
        names = f"{name.replace('_', '-', 1)} or {name}"
        raise UserError(f"{root}: no split file {names}; check --data-path, or choose the other --benchmark")
    if len({read_text(path) for path in found}) > 1:
        raise UserError(f"{root}: {found[0]} and {found[1]} differ; keep one")
    return found[0]


def cut_segments(report: Report) -> list[str]:
    """Return a line for each segment that is shorter than its label row says, because its video ends earlier."""
    cut = set()
    for sample, frames in (entry for entries in report.written.values() for entry in entries):
        start, end = sample.segment
        if frames < (length := min(end - start, MAX_FRAMES)):
            cut.add(f"{sample.name} ({frames} of {length} frames)")
    return sorted(cut)
