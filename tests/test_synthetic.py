"""Synthetic people: bodies that hold together, files that read back, and classes that only motion tells apart."""

import os
import signal

import numpy as np
import pytest
from conftest import failure

from feeder.preparation.normalize import to_sample
from feeder.preparation.ntu import TRAIN_SUBJECTS, missing_samples, parse_name, part_of, read_bodies
from feeder.skeleton import JOINT_NAMES, MIRROR
from feeder.synthetic import ACTIONS, files, people
from feeder.synthetic.__main__ import main
from feeder.synthetic.files import ntu_text, subject_numbers
from feeder.synthetic.motions import make_clip


def rng(*seed):
    return np.random.default_rng(seed)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_bodies_keep_their_bones_stay_on_the_ground_and_within_limits():
    person, angles = people.make_person(3), rng(1).uniform(-900, 900, (50, 25, 3))
    joints = people.pose(person, angles)
    for joint, parent in people.PARENTS.items():
        lengths = np.linalg.norm(joints[:, joint] - joints[:, parent], axis=-1)
        np.testing.assert_allclose(
            lengths, np.linalg.norm(person.offsets[joint]), rtol=1e-9, err_msg=JOINT_NAMES[joint]
        )
    np.testing.assert_allclose(joints[..., 1].min(axis=1), 0, atol=1e-9)
    assert (people.LOWEST <= people.HIGHEST).all()
    np.testing.assert_array_equal(joints, people.pose(person, angles.clip(people.LOWEST, people.HIGHEST)))


def test_a_person_stands_upright_faces_the_camera_and_bends_forwards():
    angles = np.zeros((2, 25, 3))
    for joint, degrees in (("left elbow", 90), ("left knee", -90), ("left shoulder", 90)):
        angles[1, JOINT_NAMES.index(joint), 0] = degrees
    rest, bent = (
        dict(zip(JOINT_NAMES, joints, strict=True)) for joints in people.pose(people.make_person(0), angles)
    )
    heights = [rest[name][1] for name in ("head", "neck", "spine mid", "left knee", "left foot")]
    assert heights == sorted(heights, reverse=True)
    assert rest["left shoulder"][0] < 0 < rest["right shoulder"][0]
    assert bent["left elbow"][2] < bent["left shoulder"][2]  # forwards is towards the camera, -z
    assert bent["left wrist"][1] > bent["left elbow"][1]
    assert bent["left ankle"][2] > bent["left knee"][2]


def test_equal_angles_on_both_sides_give_a_symmetric_body():
    angles = rng(2).uniform(-60, 60, (9, 25, 3))
    angles = (angles + angles[:, MIRROR]) / 2
    angles[:, np.array(MIRROR) == range(25), 1:] = 0  # no twist, no lean to a side
    joints = people.pose(people.make_person(5), angles)
    np.testing.assert_allclose(joints[:, MIRROR] * (-1, 1, 1), joints, atol=1e-9)


def test_clips_vary_and_cameras_record_the_same_performance():
    np.testing.assert_array_equal(make_clip(rng(0), 0, 1), make_clip(rng(0), 0, 1))
    lengths = {len(make_clip(rng(seed), 0, 1)) for seed in range(30)}
    assert min(lengths) >= 60 and max(lengths) <= 110 and len(lengths) > 10
    left, front = (
        make_clip(rng(0), 4, 2, camera, frames=320) for camera in (1, 2)
    )  # one performance, but for noise
    assert left.shape == front.shape == (320, 25, 3) and np.abs(left - front).max() > 0.2
    bones = [np.linalg.norm(clip[:, 4] - clip[:, 10], axis=-1) for clip in (left, front)]
    assert 0 < np.median(np.abs(bones[0] - bones[1])) < 0.08


def test_ntu_text_reads_back_with_lost_frames(tmp_path):
    file = tmp_path / "a.skeleton"
    for action in range(-1, len(ACTIONS)):
        clip = make_clip(rng(0), action, 1)
        assert np.abs(clip).max() < 8
        clip[3:5] = 0
        file.write_text(ntu_text(clip))
        np.testing.assert_allclose(read_bodies(file)[0], clip, atol=1e-6)


def test_cross_subject_trains_on_sixty_percent():
    for count in range(3, 41):
        numbers = subject_numbers(count)
        assert len(set(numbers)) == count and set(numbers) <= set(range(1, 41))
        share = np.mean([number in TRAIN_SUBJECTS for number in numbers])
        assert abs(share - 0.6) <= (0.17 if count < 5 else 0.1 + 1e-9), count


NTU = "--classes 3 --subjects 3 --repetitions 2".split()
PKU = "--format pku --classes 2 --subjects 3 --cameras 1".split()


def test_ntu_names_suit_the_protocols(tmp_path):
    main([str(tmp_path / "a"), *NTU, "--cameras", "3"])
    main([str(tmp_path / "b"), *NTU])
    names = [path.stem for path in (tmp_path / "a").iterdir()]
    assert len(names) == 3 * 3 * 2 * 3 and not set(names) & missing_samples("ntu120")
    for benchmark in ("xsub", "xview"):
        assert {part_of(parse_name(name), benchmark) for name in names} == {"train", "val"}
    assert contents(tmp_path / "b").items() <= contents(tmp_path / "a").items()


@pytest.mark.parametrize(
    "args, count", [(NTU, "18 clips"), (PKU, "4 videos"), ([*PKU, "--part", "2"], "4 videos")]
)
def test_equal_arguments_write_equal_bytes_once_all_are_there(tmp_path, capsys, monkeypatch, args, count):
    out = tmp_path / "a"
    main([str(out), *args])
    assert capsys.readouterr().out == f"{out}: {count}\n"
    main([str(tmp_path / "b"), *args])
    main([str(tmp_path / "c"), *args, "--seed", "1"])
    first, second, third = (contents(tmp_path / name) for name in "abc")
    assert first == second and first.keys() == third.keys() and first != third
    assert "already exists" in failure(capsys, main, [str(out), *args])[1] and contents(out) == first
    monkeypatch.setattr(files, "make_clip", lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):  # interrupted
        main([str(tmp_path / "d"), *args])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_wrong_numbers_are_refused(tmp_path, capsys):
    cases = {
        "--classes 99": "99 is not in 2 .. 10",
        "--subjects many": "invalid integer",
        "--part 2": "requires --format pku",
    }
    for args, message in cases.items():
        status, line = failure(capsys, main, [str(tmp_path / "a"), *args.split()])
        assert status == 2 and message in line and not (tmp_path / "a").exists()


def test_classes_differ_in_motion_and_not_in_a_still_pose():
    takes = [
        (action, subject, take)
        for action in range(10)
        for subject in subject_numbers(12)
        for take in range(5)
    ]
    labels, trains = (
        np.array([take[0] for take in takes]),
        np.array([take[1] in TRAIN_SUBJECTS for take in takes]),
    )
    clips = [make_clip(rng(0, *take), *take[:2]) for take in takes]
    clips = [to_sample(clip[None])[:, : len(clip)] for clip in clips]  # (3, T, 25, 2)

    def accuracy(describe):
        """Return the cross-subject accuracy, in percent, of the nearest neighbour by Euclidean distance."""
        described = np.stack([describe(clip).ravel() for clip in clips]).astype(float)
        gallery, queries = described[trains], described[~trains]
        distances = (gallery**2).sum(1) - 2 * queries @ gallery.T
        return 100 * np.mean(labels[trains][distances.argmin(axis=1)] == labels[~trains])

    for still in (
        lambda clip: clip[:, 0],
        lambda clip: clip[:, clip.shape[1] // 2],
        lambda clip: clip.mean(axis=1),
    ):
        assert accuracy(still) < 40
    assert accuracy(lambda clip: clip[:, np.linspace(0, clip.shape[1] - 1, 32).round().astype(int)]) < 45
    assert accuracy(lambda clip: np.abs(np.diff(clip, axis=1)).mean(axis=1)) > 85
