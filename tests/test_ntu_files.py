"""NTU RGB+D: names, protocols, lists, and the reader of raw files: numbers, places, harmless forms, damage with its line."""

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
    assert (
        ntu.parse_name("S001C002P003R004A005.skeleton")
        == (1, 2, 3, 4, 5)
        == ntu.parse_name("S001C002P003R004A005")
    )
    for wrong in (
        "",
        "x.skeleton",
        "S1C002P003R004A005",
        "S001C002P003R004A005.txt",
        "S001C002P003R004A0055",
    ):
        with pytest.raises(UserError, match="not a sample name"):
            ntu.parse_name(wrong)
    wrong = {"S018C001P001R001A001": "setup 18", "S001C004P001R001A001": "camera 4", "S001C001P041R001A001": "subject 41",
             "S001C001P001R001A061": "action 61", "S001C001P001R001A000": "action 0",
             "S001C001P001R000A001": "replication 0"}  # fmt: skip
    for name, reason in wrong.items():
        with pytest.raises(UserError, match=f"{reason} is outside ntu60"):
            ntu.parse_name(name, "ntu60")
        if reason in ("setup 18", "subject 41", "action 61"):
            ntu.parse_name(name, "ntu120")


def test_protocols_and_missing_samples_give_the_known_counts():
    def parts(setup, camera, subject):
        return [
            ntu.part_of(ntu.SampleName(setup, camera, subject, 1, 1), name)
            for name in ("xsub", "xview", "xsetup")
        ]

    assert parts(1, 1, 1) == ["train", "val", "val"] and parts(2, 2, 3) == ["val", "train", "train"]
    assert parts(32, 3, 103) == ["train", "train", "train"] and parts(31, 1, 106) == ["val", "val", "val"]
    assert len(ntu.TRAIN_SUBJECTS) == 53 and sum(subject <= 40 for subject in ntu.TRAIN_SUBJECTS) == 20
    small, large = ntu.missing_samples("ntu60"), ntu.missing_samples("ntu120")
    assert (len(small), len(large)) == (302, 535) and small < large
    raw = {("ntu60", "xsub"): (40320, 16560), ("ntu60", "xview"): (37920, 18960),
           ("ntu120", "xsub"): (63360, 51120), ("ntu120", "xsetup"): (54720, 59760)}  # fmt: skip
    for (dataset, benchmark), counts in raw.items():
        gone = [
            ntu.part_of(ntu.parse_name(name, dataset), benchmark) for name in ntu.missing_samples(dataset)
        ]
        left = tuple(count - gone.count(part) for count, part in zip(counts, ("train", "val"), strict=True))
        assert left == ntu.SAMPLE_COUNTS[dataset, benchmark]


def test_list_of_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Some heading.\nAnother line\n\nS001C002P003R002A013\r\n\nS001C002P003R002A014.skeleton")
    assert ntu.read_names(path) == {"S001C002P003R002A013", "S001C002P003R002A014"}
    path.write_text("")
    assert ntu.read_names(path) == set()
    for content, reason in (
        (b"S001C002P003R002A013\nS1\n", "line 2: 'S1' is not a sample"),
        (b"\xff\0", "no sample name"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"names.txt: {reason}"):
            ntu.read_names(path)


def test_numbers_are_read_as_by_python(tmp_path):
    rng = np.random.default_rng(1)
    words = [f"{rng.normal() * 10.0 ** rng.integers(-9, 5):.{rng.integers(1, 18)}g}" for _ in range(60)]
    words += ["0", "-0", "7", "+1.5", ".5", "-.5", "5.", "1e-05", "-2.5E-7", "1E+2", "0.1234567890123", "0.12345678901234567",
              "00000.1", "-999999.9", "123456.7890123"]  # fmt: skip
    lines = TEXT.split("\n")
    for at in range(25):
        lines[4 + at] = " ".join([*words[3 * at : 3 * at + 3], *lines[4 + at].split()[3:]])
    expected = np.array([float(word) for word in words]).reshape(25, 3)
    for text in ("\n".join(lines), "\n".join(lines).replace(" ", "  ")):
        assert np.array_equal(read(tmp_path, text)[0, 0], expected)


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
DAMAGED = {
    "empty": ("", "line 1: the file is empty"),
    "blank": (" \n\n", "line 1: the file is empty"),
    "other bytes": (TEXT.encode().replace(b"0.3", b"\xff\xfe", 1), "not ASCII text"),
    "other digits": (changed(6, f"\u0663 {YZ}"), "line 6: not ASCII text"),
    "no frames": (changed(1, "0"), "line 1: 0 frames"),
    "negative frames": (changed(1, "-3"), "line 1: '-3' is not a number of frames"),
    "301 frames": (changed(1, "301"), "line 1: 301 frames"),
    "absurd frames": (changed(1, "9" * 5000), "line 1: '99999999999999999999' is not a number of frames"),
    "letters for frames": (changed(1, "three"), "line 1: could not convert string to float: 'three'"),
    "too few frames": (changed(1, "2"), "line 112: unexpected text after the last of 2 frames"),
    "too many frames": (changed(1, "4"), "line 166: the file ends before its last frame is complete"),
    "negative bodies": (changed(2, "-1"), "line 2: '-1' is not a number of bodies"),
    "absurd bodies": (changed(2, "999999999"), "line 57: 1 numbers, expected 10"),
    "one body too few": (changed(2, "1"), "line 30: '72057594037930001 0 ' is not a number of bodies"),
    "wrong joint count": (changed(4, "24"), "line 4: '24' joints, expected 25"),
    "no joint count": (changed(4, ""), "line 4: 0 numbers, expected 1"),
    "short body line": (changed(3, "7205759403793000 0 1"), "line 3: 3 numbers, expected 10"),
    "letters in a body": (changed(3, "id 0 1 1 1 1 0 0.0112 -0.256 2"), "line 3: could not convert string to float: 'id'"),
    "truncated joint": (changed(5, " ".join(JOINT.split()[:7])), "line 5: 7 numbers, expected 12"),
    "moved number": (changed(5, f"{JOINT}\n{YZ}").replace(f"\n{TEXT.split(chr(10))[5]}\n", "\n"), "line 6: 11 numbers"),
    "long joint": (changed(5, JOINT + " 1"), "line 5: 13 numbers, expected 12"),
    "letters in an unused column": (changed(6, JOINT.replace(" 257.1", " 2S7.1")), "line 6: could not convert"),
    **{word: (changed(6, f"{word} {YZ}"), f"line 6: could not convert string to float: {word.replace('_', '?')!r}")
       for word in ("abc", "1_0", "0x1", "1.2.3", "1-2", ".")},
    **{word: (changed(7, f"{word} {YZ}"), f"line 7: {float(word):g} is not a position in metres")
       for word in ("nan", "-inf", "1e999", "1e30")},
    "blank line inside": (changed(8, "\n" + JOINT), "line 8: 0 numbers, expected 12"),
    "trailing garbage": (TEXT + "1 2 3\n", "line 167: unexpected text after the last of 3 frames"),
    "cut": (TEXT[: len(TEXT) // 2], "line 84: "),
}  # fmt: skip


@pytest.mark.parametrize("content, reason", DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_reported_with_its_line(tmp_path, content, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    message = str(error.value)
    assert (
        message.startswith(f"{tmp_path}/S001C001P001R001A001.skeleton: line ")
        and reason in message
        and "\n" not in message
    )
