"""A trained model on clips: `engine.predict`, `--evaluate`, `engine.draw`."""

import json
import shutil

import numpy as np
import pytest
from conftest import GOLDENS, classify, failure, newest, retrieve, rows_of
from PIL import Image
from raw_files import random_bodies, skeleton_text

import action_classification
from engine import draw, predict

RAW = GOLDENS / "raw" / "S001C001P001R001A001.skeleton"
TWO = "--finetune-skeleton-representation joint bone"


def split_of(data):
    return data / "NTU-RGB-D-60-AGCN" / "xsub"


@pytest.fixture(scope="module")
def trained(data, whole, tmp_path_factory):
    """A folder with a pre-training, linear layers on two streams, and log folders of both evaluations."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(whole / "ck", "pretrain")
        classify(data, f"--pretrained pretrain pretrain {TWO} --epochs 3 --lr 0.1 --checkpoint-path two")
        shutil.copytree(newest(), "log_two")
        retrieve(data, "--pretrained pretrain")
        shutil.copytree(newest(), "log_retrieval")
    return folder


def run_predict(capsys, *flags):
    """Return the lines that `engine.predict` writes with --json."""
    predict.main([*map(str, flags), "--json", "out.json", "--device", "cpu"])
    capsys.readouterr()
    return [json.loads(line) for line in open("out.json", encoding="utf-8")]


def test_a_prepared_split_has_the_predictions_of_the_evaluation(data, trained, here, capsys):
    split, found = split_of(data), np.load(trained / "log_two" / "predictions.npz")
    both = [f"--pretrained={trained / 'two' / stream}" for stream in ("joint", "bone")]
    fused = run_predict(capsys, *both, split)
    assert [line["clip"] for line in fused] == found["names"].tolist()
    assert [line["labels"][0] for line in fused] == found["predictions"].tolist()
    single = run_predict(capsys, both[1], split, "--top", "60")
    assert [line["labels"][0] for line in single] == found["scores"][1].argmax(axis=1).tolist()
    for line in single:
        assert sum(line["probabilities"]) == pytest.approx(1, abs=1e-4)
        assert line["probabilities"] == sorted(line["probabilities"], reverse=True)
    assert {name for line in fused for name in line["classes"]} <= set(single[0]["classes"])


def test_raw_files_of_any_name_and_length(trained, here, capsys):
    """A clip with each frame repeated until there are more than 300 has nearly the same scores."""
    bodies = random_bodies(np.random.default_rng(0), 40)
    (here / "mine.skeleton").write_text(skeleton_text(bodies))
    (here / "long.skeleton").write_text(skeleton_text(bodies.repeat(9, axis=1)))
    long, mine = run_predict(capsys, "--pretrained", trained / "two" / "joint", ".", "--top", 60)
    assert (long["clip"], mine["clip"]) == ("long.skeleton", "mine.skeleton")
    one, other = (dict(zip(x["labels"], x["probabilities"], strict=True)) for x in (long, mine))
    assert one == pytest.approx(other, abs=0.02)


def test_neighbours_are_those_of_retrieval(data, trained, here, capsys):
    split, found = split_of(data), np.load(trained / "log_retrieval" / "predictions.npz")
    lines = run_predict(capsys, "--pretrained", trained / "pretrain", "--gallery", split, split, "--top", 1)
    assert [line["labels"] for line in lines] == found["predictions"][:, None].tolist()
    assert [line["neighbours"] for line in lines] == found["gallery_names"][found["neighbours"]].tolist()


def test_evaluate_repeats_the_result_of_training(data, trained, here):
    classify(data, f"--evaluate --pretrained {trained}/two/joint {trained}/two/bone {TWO}")
    before, again = rows_of(trained / "log_two"), rows_of(newest())
    for one, other in zip(before, again, strict=True):
        assert other["setup"].replace(" --evaluate", "") == one["setup"] and other["best_acc1"] is None
        assert all(one[name] == other[name] for name in ("encoder", "acc1", "seed"))
    assert not (here / "ck").exists()
    classify(data, f"--evaluate --pretrained {trained}/two/joint/model_best.pth.tar")
    (row,) = rows_of(newest())
    assert "best on the test set" in row["setup"] and row["acc1"] == before[0]["best_acc1"]


def test_pictures_of_a_clip(data, here, capsys):
    draw.main([str(RAW), "--out", "clip.png", "--views", "2"])
    width, height = Image.open("clip.png").size
    draw.main([str(RAW), "--out", "one.png"])
    assert Image.open("one.png").size == (width, height // 3)
    split = split_of(data)
    draw.main([str(split / "S001C002P003R003A001"), "--out", "clip.gif"])
    frames = int(capsys.readouterr().out.split()[-2])
    assert Image.open("clip.gif").n_frames == -(-frames // 2)


def test_mistakes_are_one_line(data, trained, here, capsys):
    split, evaluate = split_of(data), f"--data-path {data} --evaluate"
    for module, flags, message in [
        (predict, f"--pretrained {trained}/pretrain {RAW}", "it is not a classifier"),
        (predict, f"--pretrained {trained}/two/joint nowhere.skeleton", "nowhere.skeleton: no such file"),
        (predict, f"--pretrained {trained}/two/joint .", "no .skeleton files and no prepared split"),
        (predict, f"--pretrained {trained}/pretrain --gallery nowhere {RAW}", "nowhere"),
        (action_classification, f"{evaluate} --pretrained {trained}/two/bone", "ntu60, cross_subject, bone"),
        (action_classification, f"{evaluate} --random-encoder", "set it"),
        (draw, f"{split} --out a.png", "choose one"),
        (draw, f"{split}/S009 --out a.png", "has no sample S009"),
        (draw, f"{RAW} --out a.jpg", "--out is a .png or a .gif"),
    ]:
        code, line = failure(capsys, module.main, flags.split())
        assert code in (1, 2) and message in line


def test_the_names_of_classes_come_from_the_checkpoint(trained, here, capsys):
    predict.main(["--pretrained", str(trained / "two" / "joint"), str(RAW), "--top", "60", "--device", "cpu"])
    out = capsys.readouterr().out
    assert out.startswith(RAW.name) and "0 drink water\n" in out and out.count(" %  ") == 60
