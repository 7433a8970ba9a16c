"""UI-PRMD and NW-UCLA: small files of the same form, values worked out by hand, damaged files."""

import gzip
import json

import numpy as np
import pytest

from feeder import check
from feeder.arrays import open_split
from feeder.preparation import nw_ucla, ui_prmd
from feeder.preparation.normalize import to_sample

KINECT = "UI-PRMD/Segmented Movements/Kinect"


def write_ui_prmd(folder, names, seed=0, frames=5):
    """Write pairs of files of random numbers as the archive has them; return the folder."""
    rng = np.random.default_rng(seed)
    for kind, scale, extra in (("Positions", 30, 0), ("Angles", 20, 1)):  # the angles have a frame more
        (folder / KINECT / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            rows = rng.normal(0, scale, (frames + extra, 66))
            np.savetxt(folder / KINECT / kind / f"{name}_{kind.lower()}.txt", rows, "%.6f", ",")
    return folder


def write_nw_ucla(folder, labels, seed=0, frames=4):
    """Write a file for each name and label in `labels` as the archive has them; return the folder."""
    rng = np.random.default_rng(seed)
    (folder / "NW-UCLA/all_sqe").mkdir(parents=True, exist_ok=True)
    for name, label in labels.items():
        skeletons = rng.normal(0, 1, (frames, 20, 3)).tolist()
        recording = {"file_name": name, "skeletons": skeletons, "label": label}
        (folder / f"NW-UCLA/all_sqe/{name}.json").write_text(json.dumps(recording))
    return folder


def error_of(module, raw, capsys):
    """Return the error of a command, which is one line; nothing may be written."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        module.main([str(raw), "--out-folder", f"{raw}/out", "--workers", "1"])
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert end.value.code == 1 and len(lines) == 1 and not list(raw.glob("out/*"))
    return lines[0].split(": error: ")[1]


# ---- UI-PRMD


def chain(**joints):
    """Return zeros (1, 22, 3) except the joints given as j3=(x, y, z)."""
    values = np.zeros((1, 22, 3))
    for joint, value in joints.items():
        values[0, int(joint[1:])] = value
    return values


def test_forward_kinematics_of_a_rotated_chain():
    # a root at (1, 2, 3), the left arm (0, 1, 2, 6, 7) of unit bones: a quarter turn about z at the root
    # takes x to y, and then one about x at joint 1 takes, in the axes of the root, y to z
    positions = chain(j0=(1, 2, 3), j1=(1, 0, 0), j2=(0, 1, 0), j6=(0, 1, 0), j7=(0, 0, 1))
    places = ui_prmd.place_joints(positions, chain(j0=(0, 0, 90), j1=(90, 0, 0)))[0]
    expected = [[1, 2, 3], [1, 3, 3], [1, 3, 4], [1, 3, 5], [2, 3, 5]]
    assert places[[0, 1, 2, 6, 7]].round(9).tolist() == expected
    assert places[14].tolist() == [1, 2, 3] and places[10].tolist() == places[2].tolist()  # bones of length 0


def test_order_of_rotations():
    # Rz Rx Ry with quarter turns: y is turned by Ry to itself, by Rx to z, by Rz to itself; x to -z, to y, to
    # -x
    for bone, expected in (((0, 1, 0), [0, 0, 1]), ((1, 0, 0), [-1, 0, 0]), ((0, 0, 1), [0, 1, 0])):
        places = ui_prmd.place_joints(chain(j1=bone), chain(j0=(90, 90, 90)))
        assert places[0, 1].round(9).tolist() == expected


def test_ui_prmd_arrays(tmp_path, capsys):
    names = [f"m{m:02d}_s{s:02d}_e01" for m in (1, 10) for s in range(1, 11)]
    raw = write_ui_prmd(tmp_path / "raw", names)
    vicon = raw / "UI-PRMD/Segmented Movements/Vicon/Positions"  # not used
    vicon.mkdir(parents=True)
    (vicon / f"{names[0]}_positions.txt").write_text("1,2,3\n")
    path = raw / KINECT / f"Positions/{names[1]}_positions.txt"
    path.with_suffix(".txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    ui_prmd.main([str(raw), "--out-folder", str(tmp_path / "UI-PRMD"), "--workers", "2"])
    assert "xsub: 12 / 8 samples; the full set has 600 / 400" in capsys.readouterr().out

    train, val = (open_split(tmp_path / "UI-PRMD/xsub", part) for part in ("train", "val"))
    assert train.names == [name for name in names if int(name[5:7]) in (1, 2, 4, 5, 8, 9)]
    assert sorted(train.names + val.names) == names and set(train.num_frame) == {5}
    assert train.labels == [0] * 6 + [9] * 6 and val.labels == [0] * 4 + [9] * 4
    # one sample from its two files: centimetres, x and z reversed, joints by name
    tables = [raw / KINECT / f"{kind}/{names[0]}_{kind.lower()}.txt" for kind in ("Positions", "Angles")]
    positions, angles = (np.loadtxt(table, delimiter=",")[:5].reshape(5, 22, 3) for table in tables)
    joints = ui_prmd.place_joints(positions, angles) * (-1, 1, -1) / 100
    order = [0, 1, 3, 4, 7, 8, 9, 9, 11, 12, 13, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2, 9, 9, 13, 13]
    np.testing.assert_allclose(train.data[0], to_sample(joints[None, :, order]), atol=1e-6)


def test_damaged_files_of_ui_prmd(tmp_path, capsys):
    raw = write_ui_prmd(tmp_path, ["m01_s01_e01"])
    paths = [raw / KINECT / f"{kind}/m01_s01_e01_{kind.lower()}.txt" for kind in ("Positions", "Angles")]
    positions, angles = (path.read_text() for path in paths)
    cut, packed = positions[positions.index(",") + 1 :], paths[0].with_suffix(".txt.gz")
    for texts, reason in (
        ((cut, angles), f"{paths[0]}: line 1: expected 66 numbers, found 65"),
        ((positions, angles + "1,2\n"), f"{paths[1]}: line 7: expected 66 numbers, found 2"),
        ((positions * 61, angles * 61), f"{paths[0]}: 305 frames; a sample has 1 to 300"),
    ):
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        assert error_of(ui_prmd, raw, capsys).startswith(reason)
    paths[1].unlink()
    assert "no file m01_s01_e01_angles.txt for it" in error_of(ui_prmd, raw, capsys)
    packed.write_bytes(gzip.compress(cut.encode())[:-6])
    assert f"{paths[0]}; keep one" in error_of(ui_prmd, raw, capsys)
    paths[0].unlink()
    paths[1].write_text(angles)
    assert error_of(ui_prmd, raw, capsys).startswith(f"{packed}: Compressed file ended")


# ---- NW-UCLA


def test_neck_and_other_joints():
    joints = np.arange(60.0).reshape(1, 20, 3)  # joint j is at (3 j, 3 j + 1, 3 j + 2)
    joints[0, 2:4] = (0.3, 1.2, 3), (0, 1.5, 2.7)  # shoulder centre and head
    body = nw_ucla.to_ntu_joints(joints)[0]
    np.testing.assert_allclose(body[2], (0.2, 1.3, 2.9))
    assert body[20].tolist() == [0.3, 1.2, 3] and body[3].tolist() == [0, 1.5, 2.7]
    assert body[[0, 1, *range(4, 20)], 0].tolist() == [0, 3, *range(12, 60, 3)]
    assert body[21:, 0].tolist() == [21, 21, 33, 33]


def test_nw_ucla_arrays(tmp_path, capsys):
    actions = {1: 1, 2: 2, 6: 6, 8: 7, 9: 8, 11: 9, 12: 10}  # number in the name: label in the file
    labels = {
        f"a{a:02d}_s{s:02d}_e00_v{v:02d}": actions[a] for a in actions for s in (2, 3) for v in (1, 2, 3)
    }
    raw, out = write_nw_ucla(tmp_path / "raw", labels), tmp_path / "NW-UCLA"
    write_nw_ucla(raw, {"a01_s02_e00_v01": 1}, frames=1)
    (raw / "NW-UCLA/val_label.json").write_text("not a recording")
    nw_ucla.main([str(raw / "NW-UCLA/all_sqe"), "--out-folder", str(out), "--workers", "2"])
    printed = capsys.readouterr().out
    assert "xview: 28 / 14 samples; the full set has 1,020 / 464" in printed
    assert "xsub: 21 / 21 samples; the full set has 892 / 592" in printed

    splits = {(b, part): open_split(out / b, part) for b in ("xsub", "xview") for part in ("train", "val")}
    trains = {"xsub": lambda name: "_s02_" in name, "xview": lambda name: not name.endswith("v03")}
    for (benchmark, part), split in splits.items():
        assert split.names == [name for name in labels if trains[benchmark](name) == (part == "train")]
        assert split.labels == [labels[name] - 1 for name in split.names]
    first = splits["xview", "train"]
    assert first.num_frame.tolist() == [1] + [4] * 27
    recording = json.loads((raw / "NW-UCLA/all_sqe/a01_s02_e00_v02.json").read_text())
    bodies = nw_ucla.to_ntu_joints(np.array(recording["skeletons"]))[None]
    np.testing.assert_array_equal(first.data[1], to_sample(bodies))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"label": 8}, "label 8, but this action has label 7"),
        ({"skeletons": np.zeros((301, 20, 3)).tolist()}, "301 frames; a sample has 1 to 300"),
        ({"skeletons": np.zeros((2, 25, 3)).tolist()}, "not JSON of a label and"),
        ({"skeletons": [[[0, 0, 0]] * 20, [[0, 0, 0]]]}, "not JSON of a label and"),
        ({"skeletons": [[[0, 0, float("nan")]] * 20]}, "not JSON of a label and"),
        ([1, 2], "not JSON of a label and"),
        (b'{"label": ', "not JSON of a label and skeletons of 20 joints: Expecting value: line 1"),
    ],
)
def test_damaged_files_of_nw_ucla(tmp_path, capsys, change, reason):
    raw = write_nw_ucla(tmp_path, {"a08_s01_e00_v01": 7})
    path = raw / "NW-UCLA/all_sqe/a08_s01_e00_v01.json"
    whole = json.loads(path.read_text()) | change if isinstance(change, dict) else change
    path.write_bytes(whole if isinstance(whole, bytes) else json.dumps(whole).encode())
    assert error_of(nw_ucla, raw, capsys).startswith(f"{path}: {reason}")


# ---- both


@pytest.mark.parametrize(
    "module, expected", [(ui_prmd, "m01_s01_e01_positions.txt"), (nw_ucla, "a01_s01_e00_v01.json")]
)
def test_folders_without_recordings(tmp_path, capsys, module, expected):
    (tmp_path / "m01_s01_e01_positions_inc.txt").write_text("incorrect movements are not used")
    (tmp_path / "a07_s01_e00_v01.json").write_text("there is no action 7")
    message = error_of(module, tmp_path, capsys)
    assert message.startswith(f"{tmp_path}: no recordings of ") and expected in message
    assert error_of(module, tmp_path / "x", capsys).startswith(f"{tmp_path}/x: no such folder")


def test_check_knows_both_sets(tmp_path, capsys):
    raw = write_nw_ucla(tmp_path, {f"a12_s0{s}_e00_v0{v}": 10 for s in (2, 3) for v in (1, 3)})
    nw_ucla.main([str(raw), "--out-folder", str(tmp_path / "nw"), "--workers", "1"])
    raw = write_ui_prmd(tmp_path, ["m10_s01_e01", "m10_s03_e01"])
    ui_prmd.main([str(raw), "--out-folder", str(tmp_path / "ui"), "--workers", "1"])
    verdicts = {
        "nw": ("nw_ucla: 2 / 2 samples; the full set has 892 / 592", "1,020 / 464"),
        "ui": ("ui_prmd: 1 / 1 samples; the full set has 600 / 400",),
    }
    for folder, lines in verdicts.items():
        check.main([str(tmp_path / folder)])
        out = capsys.readouterr().out
        assert "no problems found" in out and all(line in out for line in lines)

    split = tmp_path / "nw/xview"
    for path in list(split.glob("train*")):  # exchange the parts
        other = path.with_name(path.name.replace("train", "val"))
        other.rename(tmp_path / "kept")
        path.rename(other)
        (tmp_path / "kept").rename(path)
    with pytest.raises(SystemExit):
        check.main([str(split)])
    misplaced = "samples that do not belong to this part of xview: 2 of 2 samples, such as a12_s02_e00_v03"
    assert misplaced in capsys.readouterr().err
