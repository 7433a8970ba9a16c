"""Published forms of NTU RGB+D other than the raw files: pyskl's annotations, CTR-GCN's .npz."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT
from raw_files import random_bodies, sample_names, skeleton_text

import ntu_gendata
from feeder.arrays import open_split
from feeder.preparation import ntu, pyskl
from feeder.preparation.normalize import to_sample

PARTS = [(benchmark, part) for benchmark in ("xsub", "xview") for part in ("train", "val")]


def make_annotations(names, dtype=np.float16, seed=0):
    """Return the content of a file of clips of one or two people who wander."""
    rng = np.random.default_rng(seed)
    annotations = []
    for number, name in enumerate(names):
        bodies = random_bodies(rng, int(rng.integers(2, 9)), 1 + number % 2).astype(dtype)
        annotations.append({"frame_dir": name, "label": int(name[-3:]) - 1, "keypoint": bodies})
    return {"split": {"xsub_train": list(names), "xsub_val": []}, "annotations": annotations}


def prepare(folder, content, *flags, protocol=4):
    """Write the file, prepare it as folder/out."""
    raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    (folder / "ntu60_3danno.pkl").write_bytes(raw)
    ntu_gendata.main(["--data-path", f"{folder}/ntu60_3danno.pkl", "--out-folder", f"{folder}/out", *flags])


@pytest.mark.parametrize("protocol, dtype", [(2, np.float16), (4, np.float32), (5, np.float16)])
def test_arrays_are_those_of_raw_files(tmp_path, protocol, dtype):
    names = [*sample_names(12), min(ntu.missing_samples("ntu60"))]
    content = make_annotations(names, dtype)
    raw = pickle.dumps(content, protocol)
    if protocol == 2:  # of an older NumPy
        raw = raw.replace(b"numpy._core", b"numpy.core")
    prepare(tmp_path, raw)
    (tmp_path / "raw").mkdir()
    for clip in content["annotations"]:
        text = skeleton_text(clip["keypoint"].astype(np.float64))
        (tmp_path / f"raw/{clip['frame_dir']}.skeleton").write_text(text)
    ntu_gendata.main(["--data-path", f"{tmp_path}/raw", "--out-folder", f"{tmp_path}/expected"])
    for benchmark, part in PARTS:
        found, expected = (open_split(tmp_path / name / benchmark, part) for name in ("out", "expected"))
        assert found.names == expected.names and found.labels == expected.labels
        assert np.array_equal(found.num_frame, expected.num_frame)
        assert np.abs(found.data - expected.data).max() < 1e-4


class Trap:
    def __reduce__(self):
        return (open, ("trap", "w"))


def edited(**changes):
    """Return annotations of which one is changed."""
    content = make_annotations(["S001C001P001R003A001", "S001C001P003R003A002"])
    content["annotations"][0].update(changes)
    return content


REFUSED = [
    (b"", "not a readable pickle of annotations"),
    (Trap(), "not a readable pickle of annotations: it contains"),
    ([1, 2], "not annotations of pyskl or MMAction2"),
    (edited(keypoint=np.zeros((1, 9, 17, 2))), r"two-dimensional poses, \(1, 9, 17, 2\); use"),
    (edited(label=5), "S001C001P001R003A001: label 5, expected 0"),
    (edited(keypoint=np.full((1, 9, 25, 3), np.nan)), "of finite numbers"),
    (edited(keypoint=np.ones((1, 400, 25, 3))), "400 frames; a sample has 1 to 300: cut or resample it"),
    (edited(frame_dir="walking"), "walking is not a sample of ntu60"),
    (edited(frame_dir="S018C001P041R001A061"), "1 samples of ntu120, not ntu60; set --dataset ntu120"),
]


@pytest.mark.parametrize("content, reason", REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_is_refused(here, capsys, content, reason):
    with pytest.raises(SystemExit) as end:
        prepare(here, content)
    err = capsys.readouterr().err
    assert end.value.code == 1 and re.fullmatch(f".*ntu60_3danno.pkl: .*{reason}.*\n", err), err
    assert not (here / "trap").exists() and not (here / "out/xsub").exists()


def test_memory_is_about_that_of_the_file(tmp_path):
    content = make_annotations(sample_names(200))
    for clip in content["annotations"]:
        clip["keypoint"] = np.ones((2, 300, 25, 3), np.float16)
    path = tmp_path / "ntu60_3danno.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    del content
    tracemalloc.start()
    annotations = pyskl.read_annotations(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(annotations) == 200 and peak < 1.2 * path.stat().st_size


def test_the_program_for_ctrgcn(here):
    """The program in docs/data.md, on files of the same form."""
    program = re.search(r"```python\n(.*?NTU60_CS.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)[1]
    rng, arrays, bodies = np.random.default_rng(0), {}, {}
    for part, count in (("train", 3), ("test", 2)):
        bodies[part] = [random_bodies(rng, frames, 2) for frames in (5, 300, 7)[:count]]
        clips = np.zeros((count, 300, 150), np.float32)
        for clip, people in zip(clips, bodies[part], strict=True):
            people -= people[:1, :1, 1:2]  # the spine of the first frame becomes the origin
            clip[: people.shape[1]] = people.swapaxes(0, 1).reshape(-1, 150)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = clips, np.eye(60)[3 : 3 + count]
    np.savez("NTU60_CS.npz", **arrays)
    exec(program, {})
    for part, theirs in (("train", "train"), ("val", "test")):
        split = open_split("data/ctrgcn/NTU-RGB-D-60-AGCN/xsub", part)
        assert split.labels == list(range(3, 3 + len(bodies[theirs])))
        assert split.num_frame.tolist() == [people.shape[1] for people in bodies[theirs]]
        for data, people in zip(split.data, bodies[theirs], strict=True):
            assert np.abs(data - to_sample(people + (0.1, 0.2, 3))).max() < 1e-5
