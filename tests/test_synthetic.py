"""Synthetic people: bodies that hold together, files that read back, and classes that only their motion tells apart."""

import functools

import numpy as np
import pytest

from feeder.cli import UserError
from feeder.preparation.normalize import to_sample
from feeder.preparation.ntu import TRAIN_SUBJECTS, missing_samples, parse_name, part_of, read_bodies
from feeder.skeleton import JOINT_NAMES, MIRROR
from feeder.synthetic import make_clip, people, write_ntu, write_pku
from feeder.synthetic.__main__ import main
from feeder.synthetic.files import ntu_text, pku_text, subject_numbers
from feeder.synthetic.motions import ACTIONS

WALK_TOWARDS = [act.name for act in ACTIONS].index("walk towards each other")
FAST = dict(classes=3, subjects=3, repetitions=2)


def rng(*seed):
    return np.random.default_rng(seed)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- bodies


def test_bones_keep_their_lengths_and_feet_stay_on_the_ground():
    person = people.make_person(3)
    joints = people.pose(person, rng(1).uniform(-180, 180, (50, 25, 3)))
    for name, (above, _) in people._TREE.items():
        if above:
            joint, parent = JOINT_NAMES.index(name), JOINT_NAMES.index(above)
            lengths = np.linalg.norm(joints[:, joint] - joints[:, parent], axis=-1)
            np.testing.assert_allclose(lengths, np.linalg.norm(person.offsets[joint]), rtol=1e-9)
    np.testing.assert_allclose(joints[..., 1].min(axis=1), 0, atol=1e-9)


def test_a_person_stands_upright_faces_the_camera_and_bends_where_a_person_bends():
    person, angles = people.make_person(0), np.zeros((1, 25, 3))
    named = dict(zip(JOINT_NAMES, people.pose(person, angles)[0], strict=True))
    assert named["head"][1] > named["neck"][1] > named["spine mid"][1] > named["left knee"][1] > named["left foot"][1]
    assert named["left shoulder"][0] < 0 < named["right shoulder"][0]
    for joint in ("left elbow", "left knee", "left shoulder"):
        angles[0, JOINT_NAMES.index(joint), 0] = 90 if joint != "left knee" else -90
    bent = dict(zip(JOINT_NAMES, people.pose(person, angles)[0], strict=True))
    assert bent["left elbow"][2] < bent["left shoulder"][2]  # forwards is towards the camera, -z
    assert bent["left wrist"][1] > bent["left elbow"][1]
    assert bent["left ankle"][2] > bent["left knee"][2]


def test_same_angles_on_both_sides_are_a_mirrored_body():
    angles = rng(2).uniform(-60, 60, (9, 25, 3))
    angles = (angles + angles[:, MIRROR]) / 2
    angles[:, [joint for joint in range(25) if MIRROR[joint] == joint], 1:] = 0  # no twist, no lean to a side
    joints = people.pose(people.make_person(5), angles)
    np.testing.assert_allclose(joints[:, MIRROR] * (-1, 1, 1), joints, atol=1e-9)


def test_angles_stop_at_the_joints_limits():
    low, high = people._bounds()
    assert (low <= high).all()
    person, wild = people.make_person(1), rng(3).uniform(-900, 900, (7, 25, 3))
    np.testing.assert_array_equal(people.pose(person, wild), people.pose(person, wild.clip(low, high)))


def test_people_differ_in_size_and_proportions():
    sizes = [np.linalg.norm(people.make_person(subject).offsets, axis=-1) for subject in range(40)]
    total = np.sum(sizes, axis=1)
    assert total.std() / total.mean() > 0.02
    assert (np.array(sizes) / total[:, None])[:, 5].std() / np.mean(sizes) > 0.005


# ---- clips


def test_clips_are_deterministic_and_vary():
    first = make_clip(rng(0), 0, 1)
    np.testing.assert_array_equal(first, make_clip(rng(0), 0, 1))
    lengths = {make_clip(rng(seed), 0, 1).shape[1] for seed in range(30)}
    assert min(lengths) >= 60 and max(lengths) <= 110 and len(lengths) > 10
    assert make_clip(rng(0), 0, 1, frames=320).shape[1:] == (320, 25, 3)


@pytest.mark.parametrize("action", range(len(ACTIONS)))
def test_every_action_is_finite_and_two_person_actions_have_two(action):
    clips = [make_clip(rng(seed), action, 2) for seed in range(20)]
    assert all(np.isfinite(clip).all() and np.abs(clip).max() < 8 for clip in clips)
    bodies = [len(clip) for clip in clips]
    assert set(bodies) == {2} if ACTIONS[action].walk is not None else bodies.count(1) > 10


def test_cameras_see_one_performance():
    views = [make_clip(rng(7), 4, 2, camera) for camera in (1, 2, 3)]
    assert np.abs(views[0] - views[1]).max() > 0.2
    bones = [np.linalg.norm(view[0, :, 4] - view[0, :, 10], axis=-1) for view in views]
    assert np.median(np.abs(bones[0] - bones[2])) < 0.08  # each has a skew and noise of its own
    assert np.abs(bones[0] - bones[2]).min() > 0


@pytest.mark.parametrize("name, sign", [("walk towards each other", -1), ("walk apart", 1)])
def test_walking_changes_the_distance(name, sign):
    action = [act.name for act in ACTIONS].index(name)
    for seed in range(10):
        clip = make_clip(rng(seed), action, 1)
        clip = clip[:, clip.any(axis=(2, 3)).all(axis=0)]
        distance = np.linalg.norm(clip[0, :, 0] - clip[1, :, 0], axis=-1)
        assert sign * (distance[-3:].mean() - distance[:3].mean()) > 0.3


# ---- NTU files


def test_ntu_text_reads_back(tmp_path):
    for seed in range(12):
        clip = make_clip(rng(seed), WALK_TOWARDS, 1)
        (tmp_path / "a.skeleton").write_text(ntu_text(clip))
        read = read_bodies(tmp_path / "a.skeleton")
        np.testing.assert_allclose(read[:2], clip, atol=1e-6)


def test_bodies_that_swap_places_keep_their_ids(tmp_path):
    clip = rng(1).normal(size=(2, 10, 25, 3))
    text = ntu_text(clip, swapped=(0.5, 2))
    (tmp_path / "a.skeleton").write_text(text)
    read = read_bodies(tmp_path / "a.skeleton")
    np.testing.assert_allclose(read[:2, :5], clip[:, :5], atol=1e-6)
    np.testing.assert_allclose(read[:2, 5:], clip[::-1, 5:], atol=1e-6)
    assert text.splitlines()[2].split()[0] == text.splitlines()[-26 - 1].split()[0]


def test_write_ntu_is_named_for_the_protocols_and_repeatable(tmp_path):
    names = write_ntu(tmp_path / "a", **FAST, cameras=3)
    assert names == sorted(path.name for path in (tmp_path / "a").iterdir()) and len(names) == 3 * 3 * 2 * 3
    for benchmark in ("xsub", "xview"):
        assert {part_of(parse_name(name), benchmark) for name in names} == {"train", "val"}
    assert not {name.removesuffix(".skeleton") for name in names} & missing_samples("ntu120")
    before = contents(tmp_path / "a")
    (tmp_path / "a" / names[0]).unlink()
    assert write_ntu(tmp_path / "a", **FAST, cameras=3) == names
    assert contents(tmp_path / "a") == before
    write_ntu(tmp_path / "b", **FAST)
    assert contents(tmp_path / "b").items() <= before.items()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    write_ntu(tmp_path, **FAST)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds something else"):
        write_ntu(tmp_path, **FAST, seed=1)
    with pytest.raises(UserError, match="already holds S001C002P001R003A003"):
        write_ntu(tmp_path, classes=2, subjects=3, repetitions=2)
    with pytest.raises(UserError, match="a file"):
        write_ntu(tmp_path / "S001C002P001R003A001.skeleton", **FAST)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("count", [2, 3, 5, 10, 12, 20, 33, 40])
def test_subject_numbers_split_sixty_to_forty(count):
    numbers = subject_numbers(count)
    share = np.mean([number in TRAIN_SUBJECTS for number in numbers])
    assert len(set(numbers)) == count and max(numbers) <= 40
    assert abs(share - 0.6) <= (0.1 if 2 < count <= 33 else 0.11)


# ---- PKU files


def test_pku_text_is_laid_out_as_delivered():
    clip = rng(0).normal(size=(2, 3, 25, 3))
    clip[1, 1] = 0
    lines = pku_text(clip).split("\n")
    assert [line[:1] == " " for line in lines] == [False, True, True, False] and lines[-1] == ""
    read = np.array([line.split() for line in lines[:-1]], float).reshape(3, 2, 25, 3).swapaxes(0, 1)
    np.testing.assert_allclose(read, clip, atol=1e-6)


@pytest.mark.parametrize("part, folder", [(1, "Data/PKU_Skeleton_Renew/0002-L.txt"), (2, "Data/skeleton/A01N01-L.txt")])
def test_write_pku_is_repeatable(tmp_path, part, folder):
    names = write_pku(tmp_path, part=part, classes=2, subjects=3)
    before = contents(tmp_path)
    assert folder in before and len(before) == 2 * len(names) + 2
    write_pku(tmp_path, part=part, classes=2, subjects=3)
    assert contents(tmp_path) == before


# ---- command line


def test_command_line(tmp_path, capsys):
    main([str(tmp_path / "n"), "--classes", "2", "--subjects", "2", "--repetitions", "1"])
    assert capsys.readouterr().out == f"{tmp_path / 'n'}: 4 clips\n"
    main([str(tmp_path / "p"), "--format", "pku", "--part", "2", "--classes", "2", "--subjects", "3", "--cameras", "1"])
    assert capsys.readouterr().out == f"{tmp_path / 'p'}: 4 videos\n"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x"), "--classes", "99"])
    assert "--classes 99: give 2 .. 17" in capsys.readouterr().err


# ---- what tells the classes apart


@functools.cache
def normalised():
    """(gallery, labels, query, labels): clips of 10 classes by train and test subjects, each (3, T, 25, 2)."""
    parts = []
    for is_train in (True, False):
        subjects = [number for number in subject_numbers(12) if (number in TRAIN_SUBJECTS) == is_train]
        takes = [(action, subject, take) for action in range(10) for subject in subjects for take in range(5)]
        clips = [make_clip(rng(0, *take), *take[:2]) for take in takes]
        parts += [[to_sample(clip)[:, : clip.shape[1]] for clip in clips], np.array([take[0] for take in takes])]
    return parts


def one_nearest(describe):
    """Accuracy in percent of a cross-subject nearest neighbour by Euclidean distance."""
    gallery, labels, query, truth = normalised()
    known, asked = (np.stack([describe(clip).ravel() for clip in clips]).astype(float) for clips in (gallery, query))
    distance = (known**2).sum(1) - 2 * asked @ known.T
    return 100 * np.mean(labels[distance.argmin(axis=1)] == truth)


def resized(clip):
    return clip[:, np.linspace(0, clip.shape[1] - 1, 32).round().astype(int)]


def test_classes_differ_in_motion_and_not_in_a_still_pose():
    first = one_nearest(lambda clip: clip[:, 0])
    middle = one_nearest(lambda clip: clip[:, clip.shape[1] // 2])
    mean = one_nearest(lambda clip: clip.mean(axis=1))
    sequence = one_nearest(resized)
    motion = one_nearest(lambda clip: np.abs(np.diff(clip, axis=1)).mean(axis=1))
    print(f"1-NN %: first frame {first}, middle {middle}, mean {mean}, sequence {sequence}, mean motion {motion}")
    assert max(first, middle, mean) < 40, "a still pose says little"
    assert sequence < 45, "nor do raw coordinates"
    assert motion > 85, "motion tells the class"
