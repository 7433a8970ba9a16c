"""NTU RGB+D: names, protocols, lists; the reader of raw files: numbers, places, harmless forms, damage."""

import numpy as np
import pytest
from raw_files import random_bodies, skeleton_text

from feeder.cli import UserError
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
    for name in ("S001C002P003R004A005.skeleton", "S001C002P003R004A005"):
        assert ntu.parse_name(name) == (1, 2, 3, 4, 5)
    for wrong in (
        "",
        "x.skeleton",
        "S1C002P003R004A005",
        "S001C002P003R004A005.txt",
        "S001C002P003R004A0055",
    ):
        with pytest.raises(UserError, match="not a sample name"):
            ntu.parse_name(wrong)
    later = {"setup 18": "S018C001P001R001A001", "subject 41": "S001C001P041R001A001"}
    for reason, name in (
        later | {"camera 4": "S001C004P001R001A001", "action 0": "S001C001P001R001A000"}
    ).items():
        with pytest.raises(UserError, match=f"{reason} is outside ntu60"):
            ntu.parse_name(name, "ntu60")
    for name in later.values():
        ntu.parse_name(name, "ntu120")


def test_protocols_and_missing_samples_give_the_known_counts():
    def parts(setup, camera, subject):
        name = ntu.SampleName(setup, camera, subject, 1, 1)
        return [ntu.part_of(name, benchmark) for benchmark in ("xsub", "xview", "xsetup")]

    assert parts(1, 1, 1) == ["train", "val", "val"] and parts(2, 2, 3) == ["val", "train", "train"]
    assert parts(32, 3, 103) == ["train", "train", "train"] and parts(31, 1, 106) == ["val", "val", "val"]
    assert len(ntu.TRAIN_SUBJECTS) == 53 and sum(subject <= 40 for subject in ntu.TRAIN_SUBJECTS) == 20
    small, large = ntu.missing_samples("ntu60"), ntu.missing_samples("ntu120")
    assert (len(small), len(large)) == (302, 535) and small < large
    raw = ((40320, 16560), (37920, 18960), (63360, 51120), (54720, 59760))  # in the order of the table
    for (dataset, benchmark), (train, val) in zip(ntu.SAMPLE_COUNTS, raw, strict=True):
        gone = [ntu.part_of(ntu.parse_name(name), benchmark) for name in ntu.missing_samples(dataset)]
        left = train - gone.count("train"), val - gone.count("val")
        assert left == ntu.SAMPLE_COUNTS[dataset, benchmark]


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
    (changed(1, "0"), "line 1: 0 frames"),
    (changed(1, "2"), "line 112: unexpected text after the last of 2 frames"),
    (changed(1, "4"), "line 166: the file ends before its last frame"),
    (TEXT[:-30], "line 166: 5 numbers, expected 12"),
    (changed(2, "1"), "line 30: '72057594037930001 0 ' is not a number of bodies"),
    (
        TEXT.replace("\n25\n", "\n20\n"),
        "line 4: 20 joints, expected 25; map them to the 25 (docs/extending.md)",
    ),
    (changed(5, " ".join(JOINT.split()[:7])), "line 5: 7 numbers, expected 12"),
    (changed(6, f"1_0 {YZ}"), "line 6: could not convert string to float: '1?0'"),
    (changed(7, f"nan {YZ}"), "line 7: nan is not a position in metres"),
    (changed(8, "\n" + JOINT), "line 31: '72057594037930001 0 ' is not a number of joints"),
]


@pytest.mark.parametrize("content, reason", DAMAGED)
def test_damage_is_reported_with_its_line(tmp_path, content, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/S001C001P001R001A001.skeleton: line ") and reason in message
    assert "\n" not in message
