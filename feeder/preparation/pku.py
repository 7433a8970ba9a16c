"""PKU-MMD: names of videos, raw skeletons, labels and splits, and the samples that they define.

The official readme does not say whether frames of labels count from 0 or whether the end is included. Here
they are the rows start .. end of the skeleton file, from 0, end excluded: only this agrees with part 1, where
three labels start at 0 and some ends equal the length of the video.
"""

import collections
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from feeder.arrays import check_is_folder
from feeder.cli import UserError
from feeder.data_sets import DATA_SETS
from feeder.preparation.raw_file import read_positions, read_text
from feeder.preparation.sources import Result, Sample, Source, to_result
from feeder.skeleton import MAX_FRAMES, NUM_BODIES, NUM_JOINTS

NUM_CLASSES = DATA_SETS["pku_part1"].num_classes  # in part 2 as well
# Patterns of the folders and split files of each part, as in the official archives.
_NAMES = {
    "skeletons": {1: "PKU_Skeleton_Renew", 2: "skeleton*"},
    "labels": {1: "Train_Label_PKU_final", 2: "label"},
    "xsub": {1: "cross[-_]subject.txt", 2: "cross[-_]subject_v2.txt"},
    "xview": {1: "cross[-_]view.txt", 2: "cross[-_]view_v2.txt"},
}
# "Validataion videos:" is the spelling of the official files.
_SPLIT = re.compile(r"\s*train\w*\s+videos?\s*:?(.*)\bval\w*\s+videos?\s*:?(.*)", re.IGNORECASE | re.DOTALL)


def find(root: Path, part: int, kind: str) -> Path:
    """Return the folder of "skeletons" or "labels", or the split file "xsub" or "xview", below a folder."""
    pattern = _NAMES[kind][part]
    found = [path for path in sorted(root.rglob(pattern)) if path.is_dir() or path.suffix == ".txt"]
    flag = f"--{kind if kind in ('skeletons', 'labels') else 'splits'}"
    if not found:
        remedy = f"check --data-path and --part, or set {flag}"
        raise UserError(f"{root}: no {kind} of part {part} (named {pattern}); {remedy}")
    if len(found) > 1:
        raise UserError(f"{found[0]}: there is also {found[1]}; set {flag} to one of them")
    return found[0]


def read_split(path: Path) -> dict[str, str]:
    """Return the videos of a split file: video -> "train" or "val"."""
    lists = _SPLIT.fullmatch(read_text(path))
    if not lists:
        known = '"Training videos:" and "Validataion videos:"'
        raise UserError(f"{path}: no lists {known}; use the official split file")
    train, val = (re.findall(r"[^\s,]+", videos) for videos in lists.groups())
    if both := set(train) & set(val):
        raise UserError(f"{path}: {min(both)} is in both lists; use the official split file")
    return dict.fromkeys(train, "train") | dict.fromkeys(val, "val")


def read_rows(path: Path) -> list[tuple[int, int, int, int]]:
    """Return (line from 1, class id from 1, start, end) of each row of a label file."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                action, start, end, _ = (int(word) for word in line.split(","))
                if not 1 <= action <= NUM_CLASSES or min(start, end) < 0:
                    raise ValueError
            except ValueError:
                expected = f"class (1..{NUM_CLASSES}),start,end,confidence"
                raise UserError(f"{path}: line {number}: {line[:40]!r} is not {expected}") from None
            rows.append((number, action, start, end))
    return rows


def read_video(path: Path) -> np.ndarray:
    """Return the two bodies of a skeleton file, (2, T, 25, 3) float64 in metres, zeros for an absent body."""
    # a line is a frame: x y z of the first body's joints, then of the second's
    lines = read_text(path).split("\n")
    frames = read_positions(path, lines, [range(len(lines))], NUM_BODIES * NUM_JOINTS * 3)
    return frames.reshape(-1, NUM_BODIES, NUM_JOINTS, 3).swapaxes(0, 1)


def read_clips(source: Source) -> list[Result]:
    """Return the clip of each segment of a video: its first 300 frames, processed like an NTU file."""
    video = read_video(source.path)
    results: list[Result] = []
    for sample in source.samples:
        start, end = sample.segment
        bodies = np.ascontiguousarray(video[:, start : min(end, start + MAX_FRAMES)])
        if bodies.size:
            results.append(to_result(source.path, bodies))
        else:
            where = f"{source.path}: {sample.name} starts at frame {start}"
            results.append(f"{where}, the video has {video.shape[1]}")
    return results


def plan(
    skeletons: Path, labels: Path, splits: Mapping[str, Path]
) -> tuple[list[Source | str], dict[str, list[str]]]:
    """Return a source for each video that has both files, with a sample for each valid label row.

    A damaged label file becomes a line. The second result is the exceptional videos and rows, by kind.

    Args:
        skeletons: folder of the videos.
        labels: folder of the label files.
        splits: benchmark -> split file.
    """
    for folder in (skeletons, labels):
        check_is_folder(folder)
    lists = {benchmark: read_split(path) for benchmark, path in splits.items()}
    recorded, labelled = ({path.stem for path in folder.glob("*.txt")} for folder in (skeletons, labels))
    both, sources, notes = sorted(recorded & labelled), [], collections.defaultdict(list)
    notes["videos without a skeleton file"] = sorted(labelled.union(*lists.values()) - recorded)
    notes["videos without a label file"] = sorted(recorded - labelled)
    for benchmark, videos in lists.items():
        notes[f"videos in neither list of {benchmark}"] = [video for video in both if video not in videos]
    for video in both:
        parts = {benchmark: videos[video] for benchmark, videos in lists.items() if video in videos}
        try:
            rows = read_rows(labels / f"{video}.txt") if parts else []
        except UserError as error:
            sources.append(str(error))
            continue
        samples = []
        for line, action, start, end in rows:
            name = f"{video}_r{line:02d}_c{action:02d}"
            if start >= end:
                notes["rows with start >= end, skipped"].append(name)
                continue
            if end - start > MAX_FRAMES:
                notes[f"segments longer than {MAX_FRAMES} frames, cut"].append(name)
            samples.append(Sample(name, action - 1, parts, (start, end)))
        sources.append(Source(skeletons / f"{video}.txt", tuple(sorted(samples))))
    return sources, notes
