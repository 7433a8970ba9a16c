"""PKU-MMD: downloads with the oddities of the real one, prepared by pku_gendata.py; a plain reading."""

import numpy as np
import pytest
from raw_files import PKU_NAMES, write_pku

import pku_gendata
from feeder.arrays import open_split
from feeder.cli import UserError
from feeder.preparation import pku
from feeder.preparation.normalize import to_sample


def run(folder, *flags):
    """Prepare folder/raw as folder/arrays."""
    pku_gendata.main(["--data-path", f"{folder}/raw", "--out-folder", f"{folder}/arrays", *map(str, flags)])


def fails(folder, capsys, *flags):
    """Return standard error of a run that fails."""
    with pytest.raises(SystemExit) as end:
        run(folder, *flags)
    assert end.value.code == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module", params=[1, 2], ids=["part 1", "part 2"])
def prepared(request, tmp_path_factory):
    """(part, folder): both benchmarks, two workers."""
    folder = tmp_path_factory.mktemp("pku")
    write_pku(folder / "raw", request.param)
    run(folder, "--part", request.param, "--workers", 2)
    return request.param, folder


@pytest.fixture
def small(tmp_path):
    """A download of part 1 with one view."""
    write_pku(tmp_path / "raw", views="L")
    return tmp_path


def plain_samples(raw, names):
    """{sample name: (label, frames as lists of two bodies of 25 positions)} of the videos named."""
    samples = {}
    for video in names:
        found = {path.parts[-3]: path for path in raw.rglob(f"{video}.txt")}
        if not found:
            continue
        frames = []
        for line in found["Data"].read_text().split("\n")[:-1]:
            numbers = [float(word) for word in line.split()]
            joints = [numbers[3 * joint : 3 * joint + 3] for joint in range(50)]
            frames.append([joints[:25], joints[25:]])
        for row, line in enumerate(found["Label"].read_text().split("\n")[:-1], 1):
            action, start, end, _ = (int(field) for field in line.split(","))
            cut = [frames[at] for at in range(len(frames)) if start <= at < end][:300]
            if any(number != 0 for frame in cut for body in frame for joint in body for number in joint):
                samples[f"{video}_r{row:02d}_c{action:02d}"] = (action - 1, cut)
    return samples


@pytest.mark.parametrize("benchmark, file", [("xsub", "cross?subject*"), ("xview", "cross?view*")])
def test_arrays_are_those_of_a_plain_reading(prepared, benchmark, file):
    _, folder = prepared
    train, val = next((folder / "raw/Split").glob(file)).read_text().split("Validataion videos:")
    for part, text in (("train", train), ("val", val)):
        names = [name.strip() for name in text.split("\n")[1].split(",") if name.strip()]
        expected = plain_samples(folder / "raw", names)
        split = open_split(folder / "arrays" / benchmark, part)
        assert split.names == sorted(expected) and len(split.names) > 4
        for name, label, frames, data in zip(*split[2:4], split.num_frame, split.data, strict=True):
            assert (label, frames) == (expected[name][0], len(expected[name][1]))
            np.testing.assert_array_equal(data, to_sample(np.array(expected[name][1]).swapaxes(0, 1)))


def test_oddities_are_counted_and_named(prepared, capsys):
    part, folder = prepared
    run(folder, "--part", part)
    out = capsys.readouterr().out
    first, second, _, unlisted, lost = PKU_NAMES[part]
    for kind, name, end in (
        ("videos without a skeleton file", lost, ""),
        ("videos in neither list of xsub", unlisted, ""),
        ("videos in neither list of xview", unlisted, ""),
        ("rows with start >= end, skipped", first, "_r03_c01"),
        ("segments longer than 300 frames, cut", first, "_r01_c01"),
        ("without any body, skipped", second, "_r03_c02"),
    ):
        assert f"{kind}: 3\n" + "".join(f"  {name}-{view}{end}\n" for view in "LMR") in out
    assert "videos without a label file: 0\n" in out and "damaged, skipped: 0\n" in out
    full = "the full set has 14,356 / 7,188" if part == 1 else "the size of the full set is not known"
    assert full in out.split("\nxview: ")[1]


GOOD = " ".join(f"{number / 7:.6f}" for number in range(150))
REST = GOOD.split(" ", 1)[1]
EXPECTED = "is not class (1..51),start,end,confidence"
DAMAGED = [
    (pku.read_rows, "1,2,3,2\n1,2,3\n", f"line 2: '1,2,3' {EXPECTED}"),
    (pku.read_rows, "5,2,3,2\n52,2,3,2\n", f"line 2: '52,2,3,2' {EXPECTED}"),
    (pku.read_video, f"{GOOD}\n{GOOD.rsplit(maxsplit=3)[0]}", "line 2: expected 150 numbers, found 147"),
    (pku.read_video, GOOD.replace(" ", ", "), "line 1: expected 150 numbers, found 150: '0.000000,"),
    (pku.read_video, f"{GOOD}\n1e300 {REST}", "line 2: expected 150 numbers, found 150: '1e300 "),
    (pku.read_split, "0002-L\n", 'no lists "Training videos:" and "Validataion videos:"'),
]


@pytest.mark.parametrize("read, text, reason", DAMAGED)
def test_damage_is_reported_with_its_line(tmp_path, read, text, reason):
    path = tmp_path / "0002-L.txt"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {reason}") and "\n" not in str(caught.value)


def test_harmless_forms(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf32,182,235,2\r\n 1 , 4925 , 4036 , 2\r\n\r\n51,0,7,0\r\n\r\n")
    assert pku.read_rows(path) == [(1, 32, 182, 235), (2, 1, 4925, 4036), (4, 51, 0, 7)]
    path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n {GOOD}\r\n\r\n".encode())
    video = pku.read_video(path)
    assert video.shape == (2, 2, 25, 3) and np.allclose(video[1, 1, 24], [147 / 7, 148 / 7, 149 / 7])
    for text in (
        "Training videos: \n0002-L, 0002-M, \nValidataion videos: \n0291-L,",
        "\ufeffTraining videos:\r\n0002-L,0002-M\r\nValidation videos:\r\n0291-L\r\n",
        "Training videos: 0002-L,\n0002-M\n\nValidataion videos:0291-L",
    ):
        path.write_text(text, encoding="utf-8", newline="")
        assert pku.read_split(path) == {"0002-L": "train", "0002-M": "train", "0291-L": "val"}


def test_folders_are_found_or_given(small, capsys):
    run(small)
    expected = capsys.readouterr().out
    (small / "raw/Split").rename(small / "splits")
    assert "no xsub of part 1 (named cross[-_]subject.txt)" in fails(small, capsys)
    (small / "raw/Data/PKU_Skeleton_Renew").rename(small / "mine")
    assert "set --skeletons" in fails(small, capsys)
    flags = ("--skeletons", small / "mine", "--labels", small / "raw/Label/Train_Label_PKU_final")
    run(small, *flags, "--splits", small / "splits")
    assert capsys.readouterr().out == expected
    write_pku(small / "raw/other", 2, views="L")  # both parts below one folder
    run(small, "--part", 2, "--out-folder", small / "two")
    write_pku(small / "raw/again", 2, views="L")
    assert "there is also" in fails(small, capsys, "--part", 2)


def test_all_damage_is_reported_and_nothing_is_written(small, capsys):
    run(small, "--benchmark", "xsub")
    assert [path.name for path in (small / "arrays").iterdir()] == ["xsub"]
    before = {path: path.stat().st_mtime_ns for path in (small / "arrays").rglob("*")}
    video = small / "raw/Data/PKU_Skeleton_Renew/0003-L.txt"
    labels = [small / f"raw/Label/Train_Label_PKU_final/{name}-L.txt" for name in ("0002", "0004")]
    video.write_text(video.read_text()[:-40])
    labels[0].write_text("23,0,23,1\n1,90000,90040,2\n")
    labels[1].write_text("52,1,9,2\n")
    err = fails(small, capsys, "--overwrite")
    assert f"{video}: line 100: expected 150 numbers, found 146" in err and "(and 2 more" in err
    assert f"{labels[1]}: line 1: '52,1,9,2' {EXPECTED}" in err
    assert "0002-L_r02_c01 starts at frame 90000, the video has 370" in err
    assert {path: path.stat().st_mtime_ns for path in (small / "arrays").rglob("*")} == before
    run(small, "--skip-bad", "--overwrite", "--benchmark", "xsub")
    assert open_split(small / "arrays/xsub", "train").names == ["0002-L_r01_c23"]
