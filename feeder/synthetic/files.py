"""Synthetic people as raw files: NTU `.skeleton` files, and PKU-MMD's long videos with labels and splits."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from feeder.cli import UserError
from feeder.preparation.ntu import SUFFIX, TRAIN_SUBJECTS
from feeder.skeleton import NUM_JOINTS
from feeder.synthetic.motions import make_clip

TAKES_PER_SETUP = 2  # as in NTU RGB+D; further repetitions go to the next setup
FIRST_REPLICATION = 3  # NTU RGB+D has 1 and 2, so that no name is on its list of missing skeletons
NTU_VIEWS = (2, 3, 1)  # cross-view trains on 2 and 3
PKU_VIEWS = {"L": 1, "M": 2, "R": 3}
PKU_TEST_VIEW = {1: "M", 2: "L"}
PKU_FOLDERS = {1: ("Data/PKU_Skeleton_Renew", "Label/Train_Label_PKU_final"), 2: ("Data/skeleton", "Label/label")}
PKU_SPLITS = {
    1: ("Split/cross-subject.txt", "Split/cross-view.txt"),
    2: ("Split/cross_subject_v2.txt", "Split/cross_view_v2.txt"),
}

_NTU_BODY = "0 1 0 1 0 0 0.01 -0.2 2\n25\n"
_NTU_BODY_ID = 72057594037931101
_NTU_JOINTS = "%.7g %.7g %.7g 0 0 0 0 1 0 0 0 2\n" * NUM_JOINTS  # no projections, no orientation; tracked (2)
_PKU_FRAME = " %.6f" * (2 * NUM_JOINTS * 3)
_CONFIDENCE = (2, 2, 1, 0)


def write_ntu(
    out: Path, classes: int = 10, subjects: int = 12, repetitions: int = 5, cameras: int = 1, seed: int = 0
) -> list[str]:
    """Write a data set in the format of NTU RGB+D and return the names of its `.skeleton` files, sorted.

    Each subject repeats each of the first `classes` actions; all cameras record the same performances. Another seed gives
    other performances by the same people. `out` may already hold a part of this data set. `__main__` has the ranges.

    Raises:
        UserError: the folder holds something else.
    """
    samples = {}
    for action, subject, take in itertools.product(range(classes), subject_numbers(subjects), range(repetitions)):
        setup, replication = 1 + take // TAKES_PER_SETUP, FIRST_REPLICATION + take % TAKES_PER_SETUP
        for camera in NTU_VIEWS[:cameras]:
            name = f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action + 1:03d}{SUFFIX}"
            samples[name] = (action, subject, take, camera)
    _check_folder(out, samples)
    for name, (action, subject, take, camera) in samples.items():
        rng = np.random.default_rng([seed, action, subject, take])
        clip = make_clip(rng, action, subject, camera)
        # in one clip of twenty, the bodies change places in the file for a while
        start, length = rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.5)
        swapped = (start, start + length) if rng.random() < 0.05 else (0.0, 0.0)
        _write(out / name, ntu_text(clip, swapped))
    return sorted(samples)


def subject_numbers(count: int) -> list[int]:
    """Return the numbers of 2 to 40 subjects, of whom NTU's cross-subject protocol trains on about 60 %."""
    train, test = ([n for n in range(1, 41) if (n in TRAIN_SUBJECTS) == trains] for trains in (True, False))
    num_train = min(max(round(0.6 * count), count - len(test)), len(train), count - 1)
    return sorted(train[:num_train] + test[: count - num_train])


def ntu_text(clip: np.ndarray, swapped: tuple[float, float] = (0.0, 0.0)) -> str:
    """Return the text of a `.skeleton` file.

    Args:
        clip: (bodies, T, 25, 3) metres; a body that is all zeros in a frame is left out of it.
        swapped: from where to where in the clip, 0 .. 1, the bodies are listed in reverse order.
    """
    frames = clip.shape[1]
    lines = [f"{frames}\n"]
    for frame, joints in enumerate(clip.swapaxes(0, 1)):
        bodies = [
            f"{_NTU_BODY_ID + body} {_NTU_BODY}" + _NTU_JOINTS % tuple(joints[body].ravel().tolist())
            for body in np.flatnonzero(joints.any(axis=(1, 2))).tolist()
        ]
        if swapped[0] <= frame / frames < swapped[1]:
            bodies.reverse()
        lines += [f"{len(bodies)}\n", *bodies]
    return "".join(lines)


def write_pku(
    out: Path, part: int = 1, classes: int = 10, subjects: int = 5, repetitions: int = 1, cameras: int = 3, seed: int = 0
) -> list[str]:
    """Write a data set in the format of PKU-MMD, laid out as its unpacked download, and return the names of its videos.

    In a video, one subject performs every class once. The oddities of the real download, and some that a copy may have,
    always occur: here one video is missing from the splits, one that they list has no files, and the splits say
    "Validataion videos:" and have commas at the ends of lists; `_make_video` adds those of segments. `out` may already hold
    a part of this data set. `__main__` has the ranges of the numbers.

    Raises:
        UserError: the folder holds something else.
    """
    views = list(PKU_VIEWS)[:cameras]
    takes = list(itertools.product(range(1, repetitions + 1), range(1, subjects + 1)))
    takes += [(repetitions + 1, 1), (repetitions + 1, 2)]  # the first is not in the splits, the second has no files
    videos = [f"{2 + number:04d}" if part == 1 else "A{:02d}N{:02d}".format(*take) for number, take in enumerate(takes)]
    (skeletons, labels), (xsub, xview) = PKU_FOLDERS[part], PKU_SPLITS[part]
    written = [f"{video}-{view}" for video in videos[:-1] for view in views]
    _check_folder(out, [f"{folder}/{name}.txt" for folder in (skeletons, labels) for name in written] + [xsub, xview])

    in_val = {}  # of the cross-subject split
    for number, (video, (_, subject)) in enumerate(zip(videos, takes, strict=True)):
        for view in views:
            name = f"{video}-{view}"
            if video != videos[-2]:
                in_val[name] = subject % 5 in (2, 3)
            if video != videos[-1]:
                clip, rows = _make_video([seed, part, number], number, subject, classes, PKU_VIEWS[view])
                _write(out / skeletons / f"{name}.txt", pku_text(clip))
                _write(out / labels / f"{name}.txt", "".join(f"{','.join(map(str, row))}\n" for row in rows))
    _write(out / xsub, _split_text(in_val))
    _write(out / xview, _split_text({name: name.endswith(PKU_TEST_VIEW[part]) for name in in_val}))
    return written


def _make_video(
    seed: list[int], number: int, subject: int, classes: int, camera: int
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Return a video, (2, T, 25, 3) metres, and its rows (class, start, end, confidence).

    The videos with number 0, 1 and 2 in the data set have oddities of real ones.
    """
    rng = np.random.default_rng(seed)
    clips, rows, at = [], [], 0
    for place, action in enumerate(rng.permutation(classes).tolist()):
        idle, frames = int(rng.integers(12, 40)), 0
        if number == 0 and place == 0:  # a segment at frame 0 that is longer than a sample's 300 frames
            idle, frames = 0, 320
        if idle:
            clips.append(make_clip(np.random.default_rng([*seed, place, 0]), -1, subject, camera, frames=idle))
        clips.append(make_clip(np.random.default_rng([*seed, place, 1]), action, subject, camera, frames=frames))
        start, at = at + idle, at + idle + clips[-1].shape[1]
        rows.append((action + 1, start, at, _CONFIDENCE[place % 4]))
    if number == 0:  # a row whose start is after its end
        rows.append((1, at - 20, at - 50, 2))
    if number == 1:  # rows out of order, a segment without any body
        rows[:2] = rows[1::-1]
        rows.append((1, at, at + 30, 1))
        clips.append(np.zeros((2, 30, NUM_JOINTS, 3)))
    if number == 2:  # a segment that ends after the video
        rows[-1] = (*rows[-1][:2], at + 12, 2)
    pairs = [np.concatenate([clip, np.zeros_like(clip)])[:2] for clip in clips]
    return np.concatenate(pairs, axis=1), rows


def pku_text(clip: np.ndarray) -> str:
    """Return the text of a skeleton file of PKU-MMD, of (2, T, 25, 3) metres, zeros where a body is absent.

    As in the download, each line but the first starts with a blank.
    """
    frames = clip.swapaxes(0, 1).reshape(clip.shape[1], -1).tolist()
    return "\n".join(_PKU_FRAME % tuple(values) for values in frames)[1:] + "\n"


def _split_text(in_val: dict[str, bool]) -> str:
    train, val = (", ".join(name for name in in_val if in_val[name] == part) for part in (False, True))
    return f"Training videos: \n{train}, \nValidataion videos: \n{val},\n"


def _check_folder(folder: Path, names: Iterable[str]) -> None:
    """Raise `UserError` unless everything in a folder is a regular file of the data set with these names."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give a new or empty one")
    names = set(names)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        regular = path.is_file() and not path.is_symlink()
        if not path.is_dir() and not (regular and name.removesuffix(".tmp") in names):
            raise UserError(f"{folder}: already holds {name}, not part of this data set; give a new or empty folder")


def _write(path: Path, text: str) -> None:
    """Write a file completely or not at all; raise `UserError` if it exists with other contents."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.tmp")
        unfinished.write_bytes(text.encode())
        os.replace(unfinished, path)
    elif path.read_bytes() != text.encode():
        raise UserError(f"{path}: differs from this data set; give a new or empty folder")
