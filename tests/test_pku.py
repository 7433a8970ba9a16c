"""PKU-MMD: synthetic downloads prepared by pku_gendata.py, against a slow plain reading; oddities; damaged files."""

import contextlib
import functools
import io
import itertools
import shutil

import numpy as np
import pytest
from raw_files import skeleton_text

import pku_gendata
from feeder.arrays import open_split
from feeder.cli import UserError
from feeder.preparation import ntu, pku
from feeder.preparation.normalize import to_sample
from feeder.preparation.pku import plan
from feeder.synthetic import write_pku

NAMES = {1: ("0002", "0003", "0004", "0005", "0006"), 2: ("A01N01", "A01N02", "A01N03", "A02N01", "A02N02")}


@pytest.fixture(scope="module", params=[1, 2], ids=["part 1", "part 2"])
def prepared(request, tmp_path_factory):
    """(part, download, arrays, what was printed): both benchmarks, two workers."""
    folder = tmp_path_factory.mktemp(f"pku{request.param}")
    write_pku(folder / "raw", part=request.param, classes=4, subjects=3, cameras=3)
    return request.param, folder / "raw", folder / "arrays", run(folder, request.param, "--workers", "2")


@pytest.fixture
def small(tmp_path):
    """A download of part 1 with one view."""
    write_pku(tmp_path / "raw", classes=2, subjects=3, cameras=1)
    return tmp_path


def run(folder, part=1, *flags):
    """Prepare folder/raw as folder/arrays; return what was printed."""
    printed, paths = io.StringIO(), ["--data-path", f"{folder}/raw", "--out-folder", f"{folder}/arrays"]
    with contextlib.redirect_stdout(printed):
        pku_gendata.main([*paths, "--part", str(part), *flags])
    return printed.getvalue()


# ---- the slow plain reading


def plain_split(path):
    train, val = path.read_text().split("Validataion videos:")
    return [
        [name.strip() for name in text.split("\n")[1].split(",") if name.strip()] for text in (train, val)
    ]


def plain_samples(raw, part, names):
    """{sample name: (label, frames as lists of two bodies of 25 positions)} of the videos named."""
    samples = {}
    for video in names:
        found = sorted(raw.rglob(f"{video}.txt"))
        if not found:
            continue
        (skeleton,) = (path for path in found if "Data" in path.parts)
        (label,) = (path for path in found if "Label" in path.parts)
        frames = []
        for line in skeleton.read_text().split("\n")[:-1]:
            numbers = [float(word) for word in line.split()]
            assert len(numbers) == 150
            joints = [numbers[3 * joint : 3 * joint + 3] for joint in range(50)]
            frames.append([joints[:25], joints[25:]])
        for row, line in enumerate(label.read_text().split("\n")[:-1], 1):
            action, start, end, _ = (int(field) for field in line.split(","))
            cut = [frames[at] for at in range(len(frames)) if start <= at < end][:300]
            if any(number != 0 for frame in cut for body in frame for joint in body for number in joint):
                samples[f"{video}_r{row:02d}_c{action:02d}"] = (action - 1, cut)
    return samples


@pytest.mark.parametrize("benchmark", ["xsub", "xview"])
def test_arrays_are_those_of_a_plain_reading(prepared, tmp_path, benchmark):
    part, raw, arrays, _ = prepared
    file = {"xsub": "cross?subject*", "xview": "cross?view*"}[benchmark]
    lists = plain_split(next((raw / "Split").glob(file)))
    for place, names in zip(("train", "val"), lists, strict=True):
        expected = plain_samples(raw, part, names)
        split = open_split(arrays / benchmark, place)
        assert split.names == sorted(expected) and len(split.names) > 4
        assert split.labels == [expected[name][0] for name in split.names]
        assert split.num_frame.tolist() == [len(expected[name][1]) for name in split.names]
        for row, name in list(enumerate(split.names))[::3]:
            bodies = np.array(expected[name][1]).swapaxes(0, 1)  # as an NTU file: the same sample
            (tmp_path / "a.skeleton").write_text(skeleton_text(bodies))
            np.testing.assert_array_equal(
                split.data[row], to_sample(ntu.read_bodies(tmp_path / "a.skeleton"))
            )


def test_oddities_are_counted_and_named(prepared):
    part, _, arrays, printed = prepared
    first, second, third, unlisted, lost = NAMES[part]
    lines = printed.splitlines()
    views = lambda text: [text.format(view) for view in "LMR"]  # noqa: E731

    def below(heading):
        rest = lines[lines.index(heading) + 1 :]
        return [line.strip() for line in itertools.takewhile(lambda line: line.startswith("  "), rest)]

    assert below("videos without a skeleton file: 3") == views(lost + "-{}")
    assert below("videos without a label file: 0") == []
    for benchmark in ("xsub", "xview"):
        assert below(f"videos in neither list of {benchmark}, skipped there: 3") == views(unlisted + "-{}")
    assert below("rows with start >= end, skipped: 3") == views(first + "-{} row 5")
    assert below("segments longer than 300 frames, the first 300 kept: 3") == []
    cut = below("segments cut at the end of the video: 3")
    assert len(cut) == 3 and cut[0].startswith(f"{third}-L_r04_c") and cut[0].endswith(" frames)")
    assert below("segments without any body, skipped: 3") == views(second + "-{}_r05_c01")
    assert "damaged files or segments, skipped: 0" in lines
    xview = {
        1: "24 / 12 samples; the full set has 14,356 / 7,188",
        2: "the size of the full set is not known",
    }[part]
    assert f"xview: {xview}" in printed
    split = open_split(arrays / "xsub", "train")
    longest = [name for name, frames in zip(split.names, split.num_frame, strict=True) if frames == 300]
    assert [name.split("_")[:2] for name in longest] == [[f"{first}-{view}", "r01"] for view in "LMR"]


def test_one_worker_and_one_benchmark_write_the_same(prepared, tmp_path):
    part, raw, arrays, _ = prepared
    (tmp_path / "raw").symlink_to(raw)
    run(tmp_path, part, "--workers", "1", "--benchmark", "xview")
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["xview"]
    for path in (tmp_path / "arrays" / "xview").iterdir():
        assert path.read_bytes() == (arrays / "xview" / path.name).read_bytes()


# ---- the formats


def test_label_rows(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf32,182,235,2\r\n 1 , 4925 , 4036 , 2\r\n\r\n51,0,7,0\r\n\r\n")
    assert pku.read_rows(path) == [(1, 32, 182, 235), (2, 1, 4925, 4036), (4, 51, 0, 7)]


GOOD = " ".join(f"{number / 7:.6f}" for number in range(150))
WORDS = GOOD.split(" ", 1)[1]


DAMAGED = {
    pku.read_rows: {
        **dict.fromkeys(("", "\n\n"), "line 1: the file is empty"),
        "1,2,3,2\n1,2,3\n": "line 2: '1,2,3' is not class,start,end,confidence",
        **{f"{row}\n": f"line 1: {row!r} is not class,start,end,confidence"
           for row in ("1,2,3,2,", "1,2,x,2", "1,2.0,3,2", "1,2,,2", "1,-2,3,2", "1,2,3,-1", "1_0,2,3,2".replace("_", "?"))},
        "0,2,3,2\n": "line 1: class 0 is outside 1..51",
        "5,2,3,2\n52,2,3,2\n": "line 2: class 52 is outside 1..51",
        "1,2,3,2\n\x00\xff": "line 2: not ASCII text",
    },
    pku.read_video: {
        "": "line 1: the file is empty",
        f"{GOOD}\n{GOOD.rsplit(maxsplit=3)[0]}": "line 2: 147 numbers, expected 150",
        f"{GOOD} 1\n{GOOD} 1\n": "line 1: 151 numbers, expected 150",
        f"{GOOD}\n\n{GOOD}\n": "line 2: 0 numbers, expected 150",
        f"{GOOD}\nabc {WORDS}": "line 2: could not convert string to float: 'abc'",
        f"1_0 {WORDS}": "line 1: could not convert string to float: '1?0'",
        GOOD.replace(" ", ", "): "line 1: could not convert string to float: '0.000000,'",
        **{f"{GOOD}\n{word} {WORDS}": f"line 2: {word} is not a position in metres" for word in ("nan", "-inf", "1e+300")},
        f"{GOOD}\n\xff": "line 2: not ASCII text",
    },
    functools.partial(pku.read_split, part=1): {
        **dict.fromkeys(("0002-L\n", "Training videos:\n0002-L\n"), 'no lists "Training videos:" and "Validataion videos:"'),
        "Training videos:\nA01N01-L\nValidataion videos:\n": "'A01N01-L' is not a video of part 1 (like 0002-L)",
        "Training videos:\n0002-L\nValidataion videos:\n0002-L\n": "0002-L is in both lists",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "read, text, reason", [(read, *case) for read, cases in DAMAGED.items() for case in cases.items()]
)
def test_damage_is_reported_with_its_line(tmp_path, read, text, reason):
    path = tmp_path / "0002-L.txt"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {reason}") and "\n" not in str(caught.value)


def test_video_with_mark_and_crlf(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n {GOOD}\r\n\r\n".encode())
    video = pku.read_video(path)
    assert video.shape == (2, 2, 25, 3) and video.dtype == np.float64
    np.testing.assert_allclose(video[1, 1, 24], [147 / 7, 148 / 7, 149 / 7], atol=1e-6)
    path.write_text(GOOD)  # one frame, no line end
    np.testing.assert_array_equal(pku.read_video(path), video[:, :1])


def test_split_spellings(tmp_path):
    for text in ("Training videos: \n0002-L, 0002-M, \nValidataion videos: \n0291-L,",
                 "\ufeffTraining videos:\r\n0002-L,0002-M\r\nValidation videos:\r\n0291-L\r\n",
                 "Training videos: 0002-L,\n0002-M\n\nValidataion videos:0291-L"):  # fmt: skip
        (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
        assert pku.read_split(tmp_path / "a.txt", 1) == {"train": {"0002-L", "0002-M"}, "val": {"0291-L"}}


# ---- the download's folders


def move(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def test_other_names_of_folders_and_splits(small):
    expected = run(small)
    raw = small / "raw"
    move(raw / "Data/PKU_Skeleton_Renew", raw / "nest/Datav2/skeletons")
    move(raw / "Label/Train_Label_PKU_final", raw / "label")
    move(raw / "Split/cross-subject.txt", raw / "Spliv2/cross_subject.txt")
    move(raw / "Split/cross-view.txt", raw / "cross_view.txt")
    assert run(small) == expected
    write_pku(small / "other", part=2, classes=2, subjects=3, cameras=1)
    shutil.copytree(small / "other", raw, dirs_exist_ok=True)  # both parts in one folder
    assert run(small) == expected and "part 2: 4 videos, 3 used" in run(small, 2)


def test_what_is_missing_is_named(small):
    raw = small / "raw"

    def message(part=1, benchmarks=pku.BENCHMARKS):
        with pytest.raises(UserError) as caught:
            plan(raw, part, benchmarks)
        return str(caught.value)

    assert "no skeletons of part 2" in message(2) and "set --part 1" in message(2)
    move(raw / "Split/cross-view.txt", small / "gone.txt")
    assert "no split file cross-view.txt or cross_view.txt" in message()
    plan(raw, 1, ["xsub"])
    shutil.copytree(raw / "Data/PKU_Skeleton_Renew", raw / "skeleton")
    assert "keep one" in message()
    shutil.rmtree(raw / "skeleton")
    shutil.rmtree(raw / "Data/PKU_Skeleton_Renew")
    assert "no skeletons of part 1" in message() and message().endswith("unpack the archives")


def test_real_rows_of_part_one_and_a_video_without_labels(small):
    (small / "raw/Label/Train_Label_PKU_final/0003-L.txt").unlink()
    (small / "raw/Label/Train_Label_PKU_final/0002-L.txt").write_text(
        "23,0,23,1\n" * 20 + "1,4925,4036,2\n1,5,5,2\n"
    )
    planned = plan(small / "raw", 1, ["xsub"])
    assert planned.notes["rows with start >= end, skipped"] == ["0002-L row 21", "0002-L row 22"]
    assert planned.notes["videos without a label file"] == ["0003-L"]
    assert [sample.segment for sample in planned.sources[0].samples] == [(0, 23)] * 20


# ---- damaged downloads


def test_all_damage_is_reported_and_nothing_is_written(small, capsys):
    run(small)
    before = {path: path.stat().st_mtime_ns for path in (small / "arrays").rglob("*")}
    video = small / "raw/Data/PKU_Skeleton_Renew/0003-L.txt"
    label = small / "raw/Label/Train_Label_PKU_final/0004-L.txt"
    video.write_text(video.read_text()[:-40])
    label.write_text("52,1,9,2\n")
    with pytest.raises(SystemExit) as caught:
        run(small)
    assert caught.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith(f"{video}: line ") and line.endswith("numbers, expected 150") for line in lines
    )
    assert f"{label}: line 1: class 52 is outside 1..51" in lines
    assert "2 files or samples cannot be used (above)" in lines[-1]
    assert {path: path.stat().st_mtime_ns for path in (small / "arrays").rglob("*")} == before
    printed = run(small, 1, "--skip-bad")
    assert "damaged files or segments, skipped: 2" in printed and f"  {label}: line 1" in printed
    assert {name[:6] for name in open_split(small / "arrays/xsub", "train").names} == {"0002-L"}


def test_row_that_starts_after_the_end_is_damage(small, capsys):
    label = small / "raw/Label/Train_Label_PKU_final/0003-L.txt"
    label.write_text(label.read_text() + "1,90000,90040,2\n")
    with pytest.raises(SystemExit):
        run(small)
    assert capsys.readouterr().err.count("\n") == 1  # a single mistake is the error itself
    assert "0003-L_r04_c01 starts at frame 90000, the video has" in run(small, 1, "--skip_bad")
