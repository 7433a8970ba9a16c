"""Synthetic people: bodies that hold together, files that read back, and classes that only motion tells apart."""

import os

import numpy as np
import pytest
from conftest import failure

from feeder.preparation.normalize import to_sample
from feeder.preparation.ntu import TRAIN_SUBJECTS, missing_samples, parse_name, part_of, read_bodies
from feeder.skeleton import JOINT_NAMES, MIRROR
from feeder.synthetic import ACTIONS, people, write_ntu
from feeder.synthetic.__main__ import main
from feeder.synthetic.files import ntu_text, subject_numbers
from feeder.synthetic.motions import make_clip

SMALL = dict(classes=3, subjects=3, repetitions=2)


def rng(*seed):
    return np.random.default_rng(seed)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_bodies_keep_their_bones_stay_on_the_ground_and_within_limits():
    person, angles = people.make_person(3), rng(1).uniform(-900, 900, (50, 25, 3))
    joints = people.pose(person, angles)
    for joint, parent in people.PARENTS.items():
        lengths = np.linalg.norm(joints[:, joint] - joints[:, parent], axis=-1)
        np.testing.assert_allclose(lengths, np.linalg.norm(person.offsets[joint]), rtol=1e-9, err_msg=JOINT_NAMES[joint])
    np.testing.assert_allclose(joints[..., 1].min(axis=1), 0, atol=1e-9)
    assert (people.LOWEST <= people.HIGHEST).all()
    np.testing.assert_array_equal(joints, people.pose(person, angles.clip(people.LOWEST, people.HIGHEST)))


def test_a_person_stands_upright_faces_the_camera_and_bends_forwards():
    angles = np.zeros((2, 25, 3))
    for joint, degrees in (("left elbow", 90), ("left knee", -90), ("left shoulder", 90)):
        angles[1, JOINT_NAMES.index(joint), 0] = degrees
    rest, bent = (dict(zip(JOINT_NAMES, joints, strict=True)) for joints in people.pose(people.make_person(0), angles))
    heights = [rest[name][1] for name in ("head", "neck", "spine mid", "left knee", "left foot")]
    assert heights == sorted(heights, reverse=True)
    assert rest["left shoulder"][0] < 0 < rest["right shoulder"][0]
    assert bent["left elbow"][2] < bent["left shoulder"][2]  # forwards is towards the camera, -z
    assert bent["left wrist"][1] > bent["left elbow"][1]
    assert bent["left ankle"][2] > bent["left knee"][2]


def test_equal_angles_on_both_sides_give_a_symmetric_body():
    angles = rng(2).uniform(-60, 60, (9, 25, 3))
    angles = (angles + angles[:, MIRROR]) / 2
    angles[:, [joint for joint in range(25) if MIRROR[joint] == joint], 1:] = 0  # no twist, no lean to a side
    joints = people.pose(people.make_person(5), angles)
    np.testing.assert_allclose(joints[:, MIRROR] * (-1, 1, 1), joints, atol=1e-9)


def test_clips_vary_and_cameras_record_the_same_performance():
    np.testing.assert_array_equal(make_clip(rng(0), 0, 1), make_clip(rng(0), 0, 1))
    lengths = {make_clip(rng(seed), 0, 1).shape[1] for seed in range(30)}
    assert min(lengths) >= 60 and max(lengths) <= 110 and len(lengths) > 10
    left, front = (make_clip(rng(0), 4, 2, camera, frames=320) for camera in (1, 2))  # one performance, but for noise
    assert left.shape == front.shape == (1, 320, 25, 3) and np.abs(left - front).max() > 0.2
    bones = [np.linalg.norm(clip[0, :, 4] - clip[0, :, 10], axis=-1) for clip in (left, front)]
    assert 0 < np.median(np.abs(bones[0] - bones[1])) < 0.08


@pytest.mark.parametrize("action", range(-1, len(ACTIONS)))
def test_every_action_is_finite_and_has_its_number_of_bodies(action):
    clips = [make_clip(rng(seed), action, 2) for seed in range(5)]
    assert all(np.isfinite(clip).all() and np.abs(clip).max() < 8 for clip in clips)
    assert {len(clip) for clip in clips} == {2 if action >= 0 and ACTIONS[action].walk is not None else 1}


def test_ntu_text_reads_back_with_lost_bodies_and_swapped_ones(tmp_path):
    file = tmp_path / "a.skeleton"
    for seed in range(12):
        clip = make_clip(rng(seed), [action.name for action in ACTIONS].index("push"), 1)
        file.write_text(ntu_text(clip))
        np.testing.assert_allclose(read_bodies(file)[:2], clip, atol=1e-6)
    clip = rng(1).normal(size=(2, 10, 25, 3))
    text = ntu_text(clip, swapped=(0.5, 2))
    file.write_text(text)
    np.testing.assert_allclose(read_bodies(file)[:2], np.concatenate([clip[:, :5], clip[::-1, 5:]], axis=1), atol=1e-6)
    assert text.splitlines()[2].split()[0] == text.splitlines()[-27].split()[0]  # the ids move with the bodies


def test_cross_subject_trains_on_sixty_percent():
    for count in range(2, 41):
        numbers = subject_numbers(count)
        assert len(set(numbers)) == count and set(numbers) <= set(range(1, 41))
        assert abs(np.mean([number in TRAIN_SUBJECTS for number in numbers]) - 0.6) <= (0.17 if count < 5 else 0.1 + 1e-9), (
            count
        )


def test_ntu_names_suit_the_protocols(tmp_path):
    names = write_ntu(tmp_path / "a", **SMALL, cameras=3)
    assert names == sorted(path.name for path in (tmp_path / "a").iterdir()) and len(names) == 3 * 3 * 2 * 3
    for benchmark in ("xsub", "xview"):
        assert {part_of(parse_name(name), benchmark) for name in names} == {"train", "val"}
    assert not {name.removesuffix(".skeleton") for name in names} & missing_samples("ntu120")
    write_ntu(tmp_path / "b", **SMALL)
    assert contents(tmp_path / "b").items() <= contents(tmp_path / "a").items()


NTU = "--classes 3 --subjects 3 --repetitions 2".split()
PKU = "--format pku --part 2 --classes 2 --subjects 3 --cameras 1".split()
FIRST = "S001C002P001R003A001.skeleton"


@pytest.mark.parametrize(
    "args, count", [(NTU, "18 clips"), (PKU, "4 videos"), (["--part", "1", *PKU[:2], *PKU[4:]], "4 videos")]
)
def test_a_folder_is_completed_and_repeated_byte_by_byte(tmp_path, capsys, args, count):
    main([str(tmp_path), *args])
    assert capsys.readouterr().out == f"{tmp_path}: {count}\n"
    before = contents(tmp_path)
    first, second = list(before)[:2]
    os.replace(tmp_path / first, tmp_path / f"{first}.tmp")  # interrupted
    (tmp_path / second).unlink()
    main([str(tmp_path), *args])
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "args, status, message",
    [
        ([*NTU, "--seed", "1"], 1, f"{FIRST}: differs from this data set"),
        (["--classes", "2", *NTU[2:]], 1, "already holds S001C002P001R003A003.skeleton, not part"),
        (PKU, 1, f"already holds {FIRST}, not part"),
        (["--classes", "99"], 2, "--classes 99: give 2 .. 17"),
        (["--seed", "-1"], 2, "--seed -1: give 0 .. "),
        (["--part", "2"], 2, "--part goes with --format pku"),
    ],
)
def test_another_data_set_and_wrong_numbers_are_refused(tmp_path, capsys, args, status, message):
    write_ntu(tmp_path, **SMALL)
    before = contents(tmp_path)
    found = failure(capsys, main, [str(tmp_path), *args])
    assert found[0] == status and message in found[1]
    assert contents(tmp_path) == before
    assert "not a folder" in failure(capsys, main, [str(tmp_path / FIRST)])[1]


@pytest.mark.parametrize("suffix", ["", ".tmp"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("target")], ids=["FIFO", "link"])
def test_a_fifo_or_link_named_like_a_file_is_refused(tmp_path, capsys, suffix, make):
    make(tmp_path / (FIRST + suffix))
    assert f"already holds {FIRST}{suffix}" in failure(capsys, main, [str(tmp_path), *NTU])[1]
    assert not (tmp_path / "target").exists()


def test_classes_differ_in_motion_and_not_in_a_still_pose():
    takes = [(action, subject, take) for action in range(10) for subject in subject_numbers(12) for take in range(5)]
    labels, trains = np.array([take[0] for take in takes]), np.array([take[1] in TRAIN_SUBJECTS for take in takes])
    clips = [make_clip(rng(0, *take), *take[:2]) for take in takes]
    clips = [to_sample(clip)[:, : clip.shape[1]] for clip in clips]  # (3, T, 25, 2)

    def accuracy(describe):
        """Return the cross-subject accuracy, in percent, of the nearest neighbour by Euclidean distance."""
        described = np.stack([describe(clip).ravel() for clip in clips]).astype(float)
        gallery, queries = described[trains], described[~trains]
        distances = (gallery**2).sum(1) - 2 * queries @ gallery.T
        return 100 * np.mean(labels[trains][distances.argmin(axis=1)] == labels[~trains])

    assert accuracy(lambda clip: clip[:, 0]) < 40
    assert accuracy(lambda clip: clip[:, clip.shape[1] // 2]) < 40
    assert accuracy(lambda clip: clip.mean(axis=1)) < 40
    assert accuracy(lambda clip: clip[:, np.linspace(0, clip.shape[1] - 1, 32).round().astype(int)]) < 45
    assert accuracy(lambda clip: np.abs(np.diff(clip, axis=1)).mean(axis=1)) > 85
