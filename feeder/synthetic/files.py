"""Synthetic people as raw files: NTU `.skeleton` files, and PKU-MMD's long videos with labels and splits."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np

from feeder.cli import UserError
from feeder.preparation.ntu import SUFFIX, TRAIN_SUBJECTS
from feeder.skeleton import NUM_JOINTS
from feeder.synthetic.motions import make_clip

NTU_VIEWS = (2, 3, 1)  # cross-view trains on 2 and 3
# of each part: skeletons, labels, cross-subject and cross-view split, test view of the latter
PKU_PATHS = {
    1: (
        "Data/PKU_Skeleton_Renew",
        "Label/Train_Label_PKU_final",
        "Split/cross-subject.txt",
        "Split/cross-view.txt",
        "M",
    ),
    2: ("Data/skeleton", "Label/label", "Split/cross_subject_v2.txt", "Split/cross_view_v2.txt", "L"),
}

# one body: its id and state, 25 joints; no projections, no orientation; tracked (2)
_NTU_BODY = (
    "72057594037931101 0 1 0 1 0 0 0.01 -0.2 2\n25\n" + "%.7g %.7g %.7g 0 0 0 0 1 0 0 0 2\n" * NUM_JOINTS
)
_PKU_FRAME = " %.6f" * (NUM_JOINTS * 3) + " 0.000000" * (NUM_JOINTS * 3)  # one body of two


def write_ntu(
    out: Path, classes: int = 10, subjects: int = 12, repetitions: int = 5, cameras: int = 1, seed: int = 0
) -> int:
    """Write a data set in the format of NTU RGB+D into a new folder; return the number of `.skeleton` files.

    Each subject repeats each of the first `classes` actions; all cameras record the same performances. Another seed gives
    other performances by the same people.
    """
    takes = list(product(range(classes), subject_numbers(subjects), range(repetitions)))
    with _new_folder(out) as folder:
        for (action, subject, take), camera in product(takes, NTU_VIEWS[:cameras]):
            clip = make_clip(np.random.default_rng([seed, action, subject, take]), action, subject, camera)
            # two takes in each setup; replications 3 and 4, so that no name is on NTU's list of missing skeletons
            name = (
                f"S{1 + take // 2:03d}C{camera:03d}P{subject:03d}R{3 + take % 2:03d}A{action + 1:03d}{SUFFIX}"
            )
            (folder / name).write_text(ntu_text(clip))
    return len(takes) * cameras


def subject_numbers(count: int) -> list[int]:
    """Return the numbers of 3 to 40 subjects, of whom NTU's cross-subject protocol trains on about 60 %."""
    train = sorted(number for number in TRAIN_SUBJECTS if number <= 40)
    test = [number for number in range(1, 41) if number not in train]
    num_train = min(max(round(0.6 * count), count - len(test)), len(train))
    return sorted(train[:num_train] + test[: count - num_train])


def ntu_text(clip: np.ndarray) -> str:
    """Return the text of a `.skeleton` file of (T, 25, 3) metres; a frame that is all zeros has no body."""
    frames = [f"1\n{_NTU_BODY % tuple(joints.ravel())}" if joints.any() else "0\n" for joints in clip]
    return f"{len(clip)}\n{''.join(frames)}"


def write_pku(
    out: Path,
    part: int = 1,
    classes: int = 10,
    subjects: int = 5,
    repetitions: int = 1,
    cameras: int = 3,
    seed: int = 0,
) -> int:
    """Write a data set in the format of PKU-MMD, as its unpacked download, into a new folder; return the number of videos.

    In a video, one subject performs every class once. Oddities of the real download always occur: one video is missing from
    the splits, one that they list has no files, their lists end with commas; `_make_video` adds those of segments.
    """
    takes = list(product(range(1, repetitions + 1), range(1, subjects + 1)))
    takes += [
        (repetitions + 1, 1),
        (repetitions + 1, 2),
    ]  # the first is not in the splits, the second has no files
    unlisted, lost = len(takes) - 2, len(takes) - 1
    skeletons, labels, xsub, xview, test_view = PKU_PATHS[part]
    val: dict[str, dict[str, bool]] = {
        xsub: {},
        xview: {},
    }  # of each split: video -> whether it is for validation
    with _new_folder(out) as folder:
        for name in (skeletons, labels, "Split"):
            (folder / name).mkdir(parents=True)
        for (number, (take, subject)), view in product(enumerate(takes), "LMR"[:cameras]):
            video = f"{2 + number:04d}-{view}" if part == 1 else f"A{take:02d}N{subject:02d}-{view}"
            if number != unlisted:
                val[xsub][video], val[xview][video] = subject % 5 in (2, 3), view == test_view
            if number != lost:
                clip, rows = _make_video(
                    [seed, part, number], number, subject, classes, 1 + "LMR".index(view)
                )
                # as in the download, each line but the first starts with a blank
                text = "\n".join(_PKU_FRAME % tuple(joints.ravel()) for joints in clip)[1:] + "\n"
                (folder / skeletons / f"{video}.txt").write_text(text)
                (folder / labels / f"{video}.txt").write_text(
                    "".join(f"{','.join(map(str, row))}\n" for row in rows)
                )
        for path, in_val in val.items():
            train, test = (
                ", ".join(video for video in in_val if in_val[video] is side) for side in (False, True)
            )
            (folder / path).write_text(f"Training videos: \n{train}, \nValidataion videos: \n{test},\n")
    return lost * cameras


def _make_video(
    seed: list[int], number: int, subject: int, classes: int, camera: int
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Return a video, (T, 25, 3) metres, and its rows (class, start, end, confidence); videos 0, 1, 2 have oddities."""
    rng = np.random.default_rng(seed)
    clips: list[np.ndarray] = []
    rows: list[tuple[int, ...]] = []
    end = 0
    for place, action in enumerate(rng.permutation(classes).tolist()):
        idle, frames = int(rng.integers(12, 40)), 0
        if number == 0 and place == 0:  # a segment at frame 0 that is longer than a sample's 300 frames
            idle, frames = 0, 320
        if idle:
            clips.append(
                make_clip(np.random.default_rng([*seed, place, 0]), -1, subject, camera, frames=idle)
            )
        clips.append(
            make_clip(np.random.default_rng([*seed, place, 1]), action, subject, camera, frames=frames)
        )
        start, end = end + idle, end + idle + len(clips[-1])
        rows.append((action + 1, start, end, (2, 2, 1, 0)[place % 4]))
    if number == 0:  # a row whose start is after its end
        rows.append((1, end - 20, end - 50, 2))
    if number == 1:  # rows out of order, a segment without any body
        rows[:2] = rows[1::-1]
        rows.append((1, end, end + 30, 1))
        clips.append(np.zeros((30, NUM_JOINTS, 3)))
    if number == 2:  # a segment that ends after the video
        rows[-1] = (*rows[-1][:2], end + 12, 2)
    return np.concatenate(clips), rows


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out`, which must be new or empty, at the end of the `with` block."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; remove it or choose a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.tmp-", dir=out.parent) as temporary:
        folder = Path(temporary, out.name)
        folder.mkdir()
        yield folder
        os.rename(folder, out)
