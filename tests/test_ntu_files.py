"""NTU RGB+D: names, protocols, lists; the reader of raw files: numbers, places, harmless forms, damage."""

import numpy as np
import pytest
from raw_files import random_bodies, skeleton_text

from feeder.cli import UserError
from feeder.data_sets import DATA_SETS, TRAIN_SUBJECTS
from feeder.preparation import ntu

TEXT = skeleton_text(random_bodies(np.random.default_rng(0), 3, 2))


def read(tmp_path, content):
    path = tmp_path / "S001C001P001R001A001.skeleton"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ntu.read_bodies(path)


def changed(number, line):
    """Return the small file with another line `number` (from 1)."""
    lines = TEXT.split("\n")
    lines[number - 1] = line
    return "\n".join(lines)


def test_names_and_their_limits():
    both = ("S001C002P003R004A005", "S017C003P040R002A060.skeleton")
    later = ("S018C001P001R001A001", "S001C001P001R001A061", "S032C001P106R001A120.skeleton")
    wrong = ("", "x.skeleton", "S1C002P003R004A005", "S001C002P003R004A005.txt", "S001C002P003R004A0055")
    wrong += ("S033C001P001R001A001", "S001C001P001R001A121", "S001C001P001R001A000")
    for name in both + later + wrong:
        assert bool(DATA_SETS["ntu60"].place(name)) == (name in both), name
        assert bool(DATA_SETS["ntu120"].place(name)) == (name not in wrong), name
    assert DATA_SETS["ntu60"].place(both[0]) == (4, {"xsub": "val", "xview": "train"})


# samples with the missing skeletons
RAW_COUNTS = {
    ("ntu60", "xsub"): (40320, 16560),
    ("ntu60", "xview"): (37920, 18960),
    ("ntu120", "xsub"): (63360, 51120),
    ("ntu120", "xsetup"): (54720, 59760),
}


def test_protocols_and_missing_samples_give_the_known_counts():
    def parts(data_set, setup, camera, subject):
        return list(DATA_SETS[data_set].place(f"S{setup:03}C{camera:03}P{subject:03}R001A001")[1].values())

    assert parts("ntu60", 1, 1, 1) == ["train", "val"] and parts("ntu60", 2, 2, 3) == ["val", "train"]
    assert parts("ntu120", 32, 3, 103) == ["train", "train"] and parts("ntu120", 31, 1, 106) == ["val", "val"]
    assert len(TRAIN_SUBJECTS) == 53 and sum(subject <= 40 for subject in TRAIN_SUBJECTS) == 20
    small, large = ntu.missing_samples("ntu60"), ntu.missing_samples("ntu120")
    assert (len(small), len(large)) == (302, 535) and small < large
    for (data_set, benchmark), (train, val) in RAW_COUNTS.items():
        row = DATA_SETS[data_set]
        gone = [row.place(name)[1][benchmark] for name in ntu.missing_samples(data_set)]
        assert row.counts[benchmark] == (train - gone.count("train"), val - gone.count("val"))


def test_list_of_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Some heading.\nAnother line\n\nS001C002P003R002A013\r\n\nS001C002P003R002A014.skeleton")
    assert ntu.read_names(path) == {"S001C002P003R002A013", "S001C002P003R002A014"}
    path.write_text("")
    assert ntu.read_names(path) == set()
    path.write_bytes(b"\xff\0")
    with pytest.raises(UserError, match="names.txt: no sample name"):
        ntu.read_names(path)


def test_numbers_are_read_as_by_python(tmp_path):
    rng = np.random.default_rng(1)
    words = (
        "0 -0 7 +1.5 .5 -.5 5. 1e-05 -2.5E-7 1E+2 0.12345678901234567 00000.1 -999999.9 99999.78901 1".split()
    )
    words += [f"{rng.normal() * 10.0 ** rng.integers(-9, 5):.{rng.integers(1, 18)}g}" for _ in range(60)]
    lines = TEXT.split("\n")
    for at in range(25):
        lines[4 + at] = " ".join([*words[3 * at : 3 * at + 3], *lines[4 + at].split()[3:]])
    expected = np.array([float(word) for word in words]).reshape(25, 3)
    assert np.array_equal(read(tmp_path, "\n".join(lines))[0, 0], expected)


def test_bodies_are_where_their_lines_are(tmp_path):
    bodies = random_bodies(np.random.default_rng(2), 4, 5).round(5)
    bodies[0, 1] = 0
    bodies[:, 2] = 0
    found = read(tmp_path, skeleton_text(bodies))
    assert found.shape == (4, 4, 25, 3)
    assert np.abs(found[:, 0] - bodies[:4, 0]).max() < 1e-6
    assert np.abs(found[:, 1] - bodies[1:, 1]).max() < 1e-6  # the second body is the first one there
    assert not found[:, 2].any()


def test_harmless_forms(tmp_path):
    expected = read(tmp_path, TEXT)
    for text in (TEXT.rstrip("\n"), TEXT + "\n \n", "\ufeff" + TEXT):
        assert np.array_equal(read(tmp_path, text), expected), text
    unused = (" 257.1 -191.9 ", " NaN -Infinity ")  # NaN in columns that are not used
    for old, new in (("\n", "\r\n"), ("\n", " \n"), (" ", "  "), (" ", "\t"), unused):
        assert np.array_equal(read(tmp_path, TEXT.replace(old, new)), expected), new


JOINT = TEXT.split("\n")[4]
YZ = JOINT.split(" ", 1)[1]
DAMAGED = [
    (" \n\n", "line 1: the file is empty"),
    (changed(6, f"\u0663 {YZ}"), "line 6: not ASCII text"),
    (changed(1, "0"), "line 1: '0' is not a number of frames"),
    (changed(1, "2"), "line 112: not the end of the last of 2 frames"),
    (changed(1, "4"), "line 167: the file ends before its last frame"),
    (TEXT[:-30], "line 166: expected 12 numbers, found 5"),
    (TEXT[:-300], "not the end of the last of 3 frames"),
    (changed(2, "1"), "line 30: '72057594037930001 0 ' is not a number of frames, bodies"),
    (TEXT.replace("\n25\n", "\n20\n"), "line 4: 20 joints, expected 25: map them"),
    (changed(5, " ".join(JOINT.split()[:7])), "line 5: expected 12 numbers, found 7"),
    (changed(6, f"1_0 {YZ}"), "line 6: expected 12 numbers, found 12: '1?0 "),
    (changed(7, f"nan {YZ}"), "line 7: expected 12 numbers, found 12: 'nan "),
    (changed(8, "\n" + JOINT), "line 31: '72057594037930001 0 ' is not a number"),
]


@pytest.mark.parametrize("content, reason", DAMAGED)
def test_damage_is_reported_with_its_line(tmp_path, content, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/S001C001P001R001A001.skeleton: line ") and reason in message
    assert "\n" not in message
