"""Synthetic people: valid NTU files that suit the protocols, reproducible bytes, bodies that differ."""

import numpy as np
import pytest
from conftest import failure

from feeder import synthetic
from feeder.data_sets import DATA_SETS, class_names
from feeder.preparation.ntu import missing_samples, read_bodies
from feeder.skeleton import JOINT_NAMES, LINKS
from feeder.synthetic import ACTIONS, main, make_body, make_clip, pose, write_ntu

SMALL = "--classes 3 --subjects 3 --repetitions 2".split()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_read_and_their_names_suit_the_protocols(tmp_path, capsys):
    main([str(tmp_path / "a"), *SMALL, "--cameras", "3"])
    assert capsys.readouterr().out == f"{tmp_path / 'a'}: 54 clips\n"
    paths = list((tmp_path / "a").iterdir())
    labels, parts = zip(*(DATA_SETS["ntu60"].place(path.name) for path in paths), strict=True)
    assert len(paths) == 3 * 3 * 2 * 3 and not {path.stem for path in paths} & missing_samples("ntu120")
    assert set(labels) == {0, 1, 2} and {path.name[8:12] for path in paths} == {"P001", "P002", "P003"}
    for benchmark in ("xsub", "xview"):
        assert {part[benchmark] for part in parts} == {"train", "val"}
    for path in paths:
        bodies = read_bodies(path)
        assert 60 <= bodies.shape[1] <= 110 and not bodies[1:].any()
        assert (bodies[0, :, 0, 2] > 1).all() and np.abs(bodies).max() < 8  # in front of the camera


def test_equal_arguments_write_equal_bytes(tmp_path):
    for name, flags in {"a": [], "b": [], "seed": ["--seed", "1"], "cameras": ["--cameras", "2"]}.items():
        main([str(tmp_path / name), *SMALL, *flags])
    first, second, seed, cameras = (contents(tmp_path / name) for name in ("a", "b", "seed", "cameras"))
    assert first == second and first.keys() == seed.keys() and not set(first.values()) & set(seed.values())
    assert first.items() < cameras.items()


def test_the_folder_appears_when_it_is_complete(tmp_path, capsys, monkeypatch):
    main([str(tmp_path / "a"), *SMALL])
    before = contents(tmp_path / "a")
    assert "already exists" in failure(capsys, main, [str(tmp_path / "a"), *SMALL])[1]

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "make_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_ntu(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and contents(tmp_path / "a") == before


@pytest.mark.parametrize("flags, message", [("--classes 99", "choose from"), ("--subjects x", "invalid")])
def test_wrong_numbers_are_refused(tmp_path, capsys, flags, message):
    status, line = failure(capsys, main, [str(tmp_path / "a"), *flags.split()])
    assert status == 2 and message in line and not (tmp_path / "a").exists()


def test_people_differ_and_keep_their_bones():
    bones = np.linalg.norm([make_body(subject) for subject in range(1, 41)], axis=-1)[:, 1:20]
    assert bones.shape == (40, 19) and (np.std(bones, axis=0) / np.mean(bones, axis=0) > 0.03).all()
    assert len({make_clip([0], 3, subject).tobytes() for subject in (1, 2)}) == 2
    joints = pose(make_body(1), np.random.default_rng(0).uniform(-90, 90, (50, 25, 3)))
    for joint, parent in LINKS:
        if "hand" not in JOINT_NAMES[joint] and "thumb" not in JOINT_NAMES[joint]:
            assert np.ptp(np.linalg.norm(joints[:, joint] - joints[:, parent], axis=-1)) < 1e-9
    np.testing.assert_allclose(joints[..., 1].min(axis=1), 0, atol=1e-9)


def test_the_class_names_of_the_demo_are_the_actions():
    assert class_names("demo", len(ACTIONS)) == tuple(ACTIONS)
