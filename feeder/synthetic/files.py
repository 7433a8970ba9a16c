"""Synthetic people as raw files: NTU `.skeleton` files, and PKU-MMD's long videos with labels and splits."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from feeder.cli import UserError
from feeder.preparation.ntu import SUFFIX, TRAIN_SUBJECTS
from feeder.skeleton import NUM_JOINTS
from feeder.synthetic.motions import ACTIONS, make_clip

TAKES_PER_SETUP = 2  # as in NTU RGB+D; further repetitions go to the next setup
# NTU's own are 1 and 2. With these no name is on its list of missing skeletons, which are passed over in preparation.
FIRST_REPLICATION = 3
MAX_SUBJECTS = 40
NTU_VIEWS = (2, 3, 1)  # cross-view trains on 2 and 3
PKU_VIEWS = {"L": 1, "M": 2, "R": 3}
PKU_TEST_VIEW = {1: "M", 2: "L"}
PKU_FOLDERS = {1: ("Data/PKU_Skeleton_Renew", "Label/Train_Label_PKU_final"), 2: ("Data/skeleton", "Label/label")}
PKU_SPLITS = {1: ("cross-subject.txt", "cross-view.txt"), 2: ("cross_subject_v2.txt", "cross_view_v2.txt")}

_BODY = "{} 0 1 0 1 0 0 0.01 -0.2 2\n25\n"
_BODY_ID = 72057594037931101
# Only x, y, z are simulated: no projections, no orientation; tracked (2).
_NTU_JOINTS = "%.7g %.7g %.7g 0 0 0 0 1 0 0 0 2\n" * NUM_JOINTS
_PKU_JOINTS = " %.6f" * (3 * NUM_JOINTS)
_PKU_NOBODY = _PKU_JOINTS % ((0,) * (3 * NUM_JOINTS))
_CONFIDENCE = (2, 2, 1, 0)


def write_ntu(
    out: Path, classes: int = 10, subjects: int = 12, repetitions: int = 5, cameras: int = 1, seed: int = 0
) -> list[str]:
    """Write a data set of raw NTU files and return their names, SsssCcccPpppRrrrAaaa.skeleton, sorted.

    All cameras record one and the same performance; the first is camera 2, then 3, then 1.

    Args:
        out: new or empty folder, or one that holds the same data set, in whole or in part.
        classes: 2 .. 17; label 0 is `ACTIONS[0]`.
        subjects: 2 .. 40, see `subject_numbers`.
        repetitions: of each action by each subject, 1 .. 64 (up to 34 fit the setups of NTU RGB+D 60).
        cameras: 1 .. 3.
        seed: 0 or more; another seed is other performances by the same people.

    Raises:
        UserError: a number out of its range, or a folder with something else in it.
    """
    _check_range("classes", classes, 2, len(ACTIONS))
    _check_range("subjects", subjects, 2, MAX_SUBJECTS)
    _check_range("repetitions", repetitions, 1, 64)
    _check_range("cameras", cameras, 1, 3)
    _check_range("seed", seed, 0, 2**63)
    samples = {}
    for action, subject, take in itertools.product(range(classes), subject_numbers(subjects), range(repetitions)):
        setup, replication = 1 + take // TAKES_PER_SETUP, FIRST_REPLICATION + take % TAKES_PER_SETUP
        for camera in NTU_VIEWS[:cameras]:
            name = f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action + 1:03d}{SUFFIX}"
            samples[name] = (action, subject, take, camera)
    _check_folder(out, samples)
    for name, (action, subject, take, camera) in samples.items():
        rng = np.random.default_rng([seed, action, subject, take])
        _write(out / name, ntu_text(make_clip(rng, action, subject, camera), _swap_places(rng)))
    return sorted(samples)


def subject_numbers(count: int) -> list[int]:
    """Return the numbers of `count` subjects, up to 40, of whom NTU's cross-subject protocol trains on about 60 %."""
    train = [number for number in range(1, MAX_SUBJECTS + 1) if number in TRAIN_SUBJECTS]
    test = [number for number in range(1, MAX_SUBJECTS + 1) if number not in TRAIN_SUBJECTS]
    num_train = min(round(0.6 * count), len(train), count - 1)
    num_train = max(num_train, count - len(test))
    return sorted(train[:num_train] + test[: count - num_train])


def ntu_text(clip: np.ndarray, swapped: tuple[float, float] = (0.0, 0.0)) -> str:
    """Return the text of a `.skeleton` file.

    Args:
        clip: (bodies, T, 25, 3) metres; a body that is all zeros in a frame is not written there.
        swapped: from and to, 0 .. 1 of the clip, where the bodies stand in the reverse order in the file.
    """
    bodies, frames = clip.shape[:2]
    present = np.any(clip, axis=(2, 3))  # (bodies, T)
    joints = [[_NTU_JOINTS % tuple(values) for values in body] for body in clip.reshape(bodies, frames, -1).tolist()]
    parts = [f"{frames}\n"]
    for frame in range(frames):
        order = [body for body in range(bodies) if present[body, frame]]
        if swapped[0] <= frame / frames < swapped[1]:
            order.reverse()
        parts.append(f"{len(order)}\n")
        parts += [_BODY.format(_BODY_ID + body) + joints[body][frame] for body in order]
    return "".join(parts)


def write_pku(
    out: Path,
    part: int = 1,
    classes: int = 10,
    subjects: int = 5,
    repetitions: int = 1,
    cameras: int = 3,
    seed: int = 0,
) -> list[str]:
    """Write a download of PKU-MMD as it is delivered and unpacked; return the names of its videos.

    A video is one subject who performs every class once, in some order, idle in between. The oddities of the real
    download and some that a copy may have are always there: in the first video a segment at frame 0, of 320 frames, and
    a row whose start lies behind its end; in the second a segment without any body, and rows out of order; in the third
    a segment that ends 12 frames after the video; a video that the splits list but that has no files, one with files
    that they do not list; confidence 0, "Validataion videos:", commas at the end of a list.

    Args:
        out: new or empty folder, or one that holds the same data set, in whole or in part.
        part: 1 or 2: the names of folders, files and videos, and the view that cross-view tests on.
        classes: 2 .. 11, with the ids 1, 2, ...
        subjects: 3 .. 13, of whom cross-subject tests on the second and third of every five.
        repetitions: videos a subject, 1 .. 26.
        cameras: 1 .. 3, of L, M and R; cross-view needs two.
        seed: 0 or more.

    Raises:
        UserError: a number out of its range, or a folder with something else in it.
    """
    _check_range("part", part, 1, 2)
    _check_range("classes", classes, 2, 11)  # id 12 does not occur in part 2
    _check_range("subjects", subjects, 3, 13)
    _check_range("repetitions", repetitions, 1, 26)
    _check_range("cameras", cameras, 1, 3)
    _check_range("seed", seed, 0, 2**63)
    views = list(PKU_VIEWS)[:cameras]
    takes = list(itertools.product(range(1, repetitions + 1), range(1, subjects + 1)))
    takes += [(repetitions + 1, 1), (repetitions + 1, 2)]  # without a place in the splits; without files
    videos = [_pku_video(part, number, *take) for number, take in enumerate(takes)]
    skeletons, labels = PKU_FOLDERS[part]
    written = [f"{video}-{view}" for video in videos[:-1] for view in views]
    files = [f"{folder}/{name}.txt" for folder in (skeletons, labels) for name in written]
    _check_folder(out, files + [f"Split/{file}" for file in PKU_SPLITS[part]])
    for number, (video, (_, subject)) in enumerate(zip(videos[:-1], takes, strict=False)):
        for view in views:
            clip, rows = make_video([seed, part, number], number, subject, classes, PKU_VIEWS[view])
            _write(out / skeletons / f"{video}-{view}.txt", pku_text(clip))
            _write(out / labels / f"{video}-{view}.txt", "".join(f"{','.join(map(str, row))}\n" for row in rows))
    tested = {f"{video}-{view}" for video, (_, subject) in zip(videos, takes, strict=True) for view in views
              if subject % 5 in (2, 3)}  # fmt: skip
    listed = [f"{video}-{view}" for video in [*videos[:-2], videos[-1]] for view in views]
    xsub, xview = PKU_SPLITS[part]
    _write(out / "Split" / xsub, _split_text(listed, tested))
    _write(out / "Split" / xview, _split_text(listed, {name for name in listed if name[-1] == PKU_TEST_VIEW[part]}))
    return written


def make_video(
    seed: list[int], number: int, subject: int, classes: int, camera: int
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Return a long video, (2, T, 25, 3) metres, zeros for absent bodies, and its rows (class, start, end, confidence).

    Args:
        seed: of the video; the same performance for every camera.
        number: of the video in its data set, from 0: the first three have the oddities that `write_pku` lists.
        subject: the performer.
        classes: how many classes, each performed once.
        camera: 1, 2 or 3.
    """
    rng = np.random.default_rng(seed)
    clips, rows, at = [], [], 0
    for place, action in enumerate(rng.permutation(classes).tolist()):
        idle, frames = int(rng.integers(12, 40)), 0
        if number == 0 and place == 0:
            idle, frames = 0, 320
        if idle:
            clips.append(make_clip(np.random.default_rng([*seed, place, 0]), -1, subject, camera, frames=idle))
        clips.append(make_clip(np.random.default_rng([*seed, place, 1]), action, subject, camera, frames=frames))
        start, at = at + idle, at + idle + clips[-1].shape[1]
        rows.append((action + 1, start, at, _CONFIDENCE[place % 4]))
    if number == 0:
        rows.append((1, at - 20, at - 50, 2))
    if number == 1:
        clips.append(np.zeros((2, 30, NUM_JOINTS, 3)))
        rows[:2] = rows[1::-1]
        rows.append((1, at, at + 30, 1))
    if number == 2:
        rows[-1] = (*rows[-1][:2], at + 12, 2)
    return np.concatenate([np.concatenate([clip, np.zeros_like(clip)])[:2] for clip in clips], axis=1), rows


def pku_text(clip: np.ndarray) -> str:
    """Return the text of a skeleton file of PKU-MMD: 150 numbers a frame; every line but the first begins with a blank.

    Args:
        clip: (2, T, 25, 3) metres, zeros where a body is absent.
    """
    present = np.any(clip, axis=(2, 3))  # (2, T)
    frames = clip.reshape(*clip.shape[:2], -1).tolist()
    lines = (
        "".join(_PKU_JOINTS % tuple(values) if there else _PKU_NOBODY for values, there in zip(*pair, strict=True))
        for pair in zip(zip(*frames, strict=True), present.T.tolist(), strict=True)
    )
    return "\n".join(lines)[1:] + "\n"


def _pku_video(part: int, number: int, take: int, subject: int) -> str:
    """A video's name without its view: 0002, 0003, ... in part 1, A01N01 in part 2."""
    return f"{number + 2:04d}" if part == 1 else f"A{take:02d}N{subject:02d}"


def _split_text(names: list[str], tested: set[str]) -> str:
    train = ", ".join(name for name in names if name not in tested)
    val = ", ".join(name for name in names if name in tested)
    return f"Training videos: \n{train}, \nValidataion videos: \n{val},\n"


def _swap_places(rng: np.random.Generator) -> tuple[float, float]:
    """In which part of a clip the bodies change places in the file: for one clip in twenty."""
    start, length = rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.5)
    return (start, start + length) if rng.random() < 0.05 else (0.0, 0.0)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"--{name} {value}: give {low} .. {high}")


def _check_folder(folder: Path, names: Iterable[str]) -> None:
    """Raise `UserError` if a folder holds anything but some of the files named."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; give a new or empty folder")
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    strange = sorted({name.removesuffix(".tmp") for name in found} - set(names))
    if strange:
        raise UserError(f"{folder}: already holds {strange[0]}, no part of this data set; give a new or empty folder")


def _write(path: Path, text: str) -> None:
    """Write a file, in whole or not at all; if it is there, it must be the same."""
    if path.exists():
        if path.read_bytes() != text.encode():
            raise UserError(f"{path}: holds something else than this data set; give a new or empty folder")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.tmp")
    aside.write_bytes(text.encode())
    os.replace(aside, path)
