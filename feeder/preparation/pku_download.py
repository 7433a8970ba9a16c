"""A download of PKU-MMD: where its folders are, and which samples its labels and splits define."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from feeder.cli import UserError
from feeder.preparation.generate import Report, Sample, Source
from feeder.preparation.pku import MAX_BYTES, Row, is_video, read_rows, read_split
from feeder.preparation.raw_file import read_text
from feeder.skeleton import MAX_FRAMES

# Names that the folders with the files themselves have in the archives, or that users gave them; any case.
_FOLDERS = {
    "skeletons": ("PKU_Skeleton_Renew", "skeleton", "skeletons", "skeleton_v2", "Data", "Datav2"),
    "labels": ("Train_Label_PKU_final", "label", "labels", "label_v2", "Label_PKUMMD", "Label_PKUMMD_v2", "Labelv2"),
}
_SPLITS = {  # with "-" for "_" as well
    (1, "xsub"): "cross_subject.txt",
    (1, "xview"): "cross_view.txt",
    (2, "xsub"): "cross_subject_v2.txt",
    (2, "xview"): "cross_view_v2.txt",
}
_ARCHIVES = (".7z", ".zip", ".rar")
_MAX_DEPTH = 3  # folders below --data-path, such as PKUMMD/Data/PKU_Skeleton_Renew

NO_SKELETON = "videos without a skeleton file"
NO_LABEL = "videos without a label file"
NEITHER = "videos in neither list of {}, left out there"
BACKWARDS = "rows with start >= end, dropped"
LONG = f"segments longer than {MAX_FRAMES} frames, the first {MAX_FRAMES} kept"
CUT = "segments cut at the end of the video"
EMPTY = "segments without any body, left out"


class Plan(NamedTuple):
    """What to prepare. `notes` names the exceptions found, by kind; `rows` counts the label rows of (benchmark, part)."""

    num_videos: int
    sources: list[Source]
    notes: dict[str, list[str]]
    rows: dict[tuple[str, str], int]
    bad: list[str]


def plan(root: Path, part: int, benchmarks: Iterable[str]) -> Plan:
    """Return the samples to cut from a download: one for each usable label row of each video that has both files.

    Args:
        root: as delivered and unpacked, such as with Data/PKU_Skeleton_Renew, Label/Train_Label_PKU_final and Split; the
            folders may be up to three levels below.
        part: 1 or 2; files of the other part are ignored.
        benchmarks: of "xsub" and "xview"; the split files of these are needed.

    Raises:
        UserError: a folder or split file is missing, still packed or ambiguous, or a split file is damaged.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give --data-path with the download of PKU-MMD")
    tree = list(_walk(root))
    skeletons, labels = (_find_videos(root, tree, kind, part) for kind in _FOLDERS)
    splits = {name: read_split(_find_split(root, tree, part, name), part) for name in benchmarks}
    listed = {name for lists in splits.values() for names in lists.values() for name in names}
    notes = {
        NO_SKELETON: sorted((listed | set(labels)) - set(skeletons)),
        NO_LABEL: sorted(set(skeletons) - set(labels)),
        **{NEITHER.format(benchmark): [] for benchmark in splits},
        BACKWARDS: [],
        LONG: [],
    }
    counts = {(benchmark, part): 0 for benchmark in splits for part in ("train", "val")}
    result = Plan(len(skeletons), [], notes, counts, [])
    for video in sorted(set(skeletons) & set(labels)):
        parts = {name: part for name, lists in splits.items() for part, videos in lists.items() if video in videos}
        for benchmark in set(splits) - set(parts):
            notes[NEITHER.format(benchmark)].append(video)
        try:
            rows = read_rows(labels[video]) if parts else []
        except UserError as error:
            result.bad.append(str(error))
            continue
        for place in parts.items():
            counts[place] += len(rows)
        result.sources.append(Source(skeletons[video], tuple(_samples(video, rows, parts, notes))))
    return result


def _samples(video: str, rows: list[Row], parts: dict[str, str], notes: dict[str, list[str]]) -> Iterator[Sample]:
    for row in rows:
        name = row.sample(video)
        if row.start >= row.end:
            notes[BACKWARDS].append(f"{video} row {row.line}")
            continue
        if row.end - row.start > MAX_FRAMES:
            notes[LONG].append(name)
        yield Sample(name, row.action - 1, parts, (row.start, row.end))


def cut_segments(report: Report) -> list[str]:
    """Return a line for each segment that is shorter than its label row says, because its video ends before."""
    cut = set()
    for sample, frames in (entry for entries in report.written.values() for entry in entries):
        start, end = sample.segment
        if frames < (length := min(end - start, MAX_FRAMES)):
            cut.add(f"{sample.name} ({frames} of {length} frames)")
    return sorted(cut)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder down to the depth that matters, with its files; `root` comes first."""
    for folder, folders, files in os.walk(root, followlinks=True):
        if len(Path(folder).relative_to(root).parts) >= _MAX_DEPTH:
            folders.clear()
        folders.sort()
        yield Path(folder), files


def _find_videos(root: Path, tree: list[tuple[Path, list[str]]], kind: str, part: int) -> dict[str, Path]:
    known = {name.lower() for name in _FOLDERS[kind]}
    named = [(folder, files) for folder, files in tree if folder.name.lower() in known]
    found = [(folder, videos) for folder, files in named if (videos := _videos(files, part))]
    if len(found) > 1:
        raise UserError(f"{root}: {kind} of part {part} in both {found[0][0]} and {found[1][0]}; keep one")
    if found:
        folder, videos = found[0]
        return {video: folder / f"{video}.txt" for video in videos}
    reason = f"{root}: no {kind} of part {part} in a folder named {', '.join(_FOLDERS[kind])}"
    if any(_videos(files, 3 - part) for _, files in named):
        raise UserError(f"{reason}, but those of part {3 - part}: give --part {3 - part}")
    archives = [
        folder / file
        for folder, files in tree
        for file in sorted(files)
        if file.lower().endswith(_ARCHIVES) and file.lower().startswith(kind.removesuffix("s"))
    ]
    raise UserError(f"{reason}; unpack {archives[0]} first" if archives else f"{reason}; give --data-path with them")


def _videos(files: list[str], part: int) -> list[str]:
    return [file[:-4] for file in files if file.endswith(".txt") and is_video(file[:-4], part)]


def _find_split(root: Path, tree: list[tuple[Path, list[str]]], part: int, benchmark: str) -> Path:
    name = _SPLITS[part, benchmark]
    found = [folder / file for folder, files in tree for file in files if file.lower().replace("-", "_") == name]
    if not found:
        names = f"{name.replace('_', '-', 1)} or {name}"
        raise UserError(f"{root}: no split file {names}; give --data-path with it, or the other --benchmark")
    if len({read_text(path, MAX_BYTES) for path in found}) > 1:
        raise UserError(f"{root}: {found[0]} and {found[1]} differ; keep one")
    return found[0]
