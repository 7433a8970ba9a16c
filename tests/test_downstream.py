"""Downstream tasks on tiny data: classifiers, resuming, streams, transfer, export, mistakes."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import (
    ROOT,
    SIZES,
    SMALL,
    assert_same,
    classify,
    failure,
    metrics,
    newest,
    pretrain,
    retrieve,
    rows_of,
    saved,
)

from engine.evaluation import repeat_seed
from feeder.augmentations import centre_crop
from feeder.dataset import SkeletonDataset
from model import DownstreamModel, Encoder, SCDNet

STREAMS = ["joint", "motion", "bone"]
THREE = "--pretrained joint.tar motion.tar bone.tar --finetune-skeleton-representation joint motion bone"
TWO = "--pretrained joint.tar bone.tar --finetune-skeleton-representation joint bone"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a checkpoint of pre-training for each stream."""
    monkeypatch.chdir(tmp_path)
    for i, stream in enumerate(STREAMS):
        torch.manual_seed(i)
        net = SCDNet(SMALL, dim=8, K=4)
        torch.save({"state_dict": net.state_dict(), "sizes": net.sizes}, f"{stream}.tar")
    return tmp_path


def part_of(data, part):
    return SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", part)


def clips_of(dataset, ratio=0.95):
    """All clips of a part, cropped, (N, 3, 16, 25, 2)."""
    batch = dataset[range(len(dataset))]
    return centre_crop(batch.x, batch.num_frames, ratio, SMALL["frames"])


def arrays_of(name="predictions"):
    return np.load(newest() / f"{name}.npz", allow_pickle=False)


def weights(path):
    return saved(path)["state_dict"]


def shuffled(epoch):
    """The order of the 32 training samples with seed 1."""
    return np.random.default_rng([1, epoch]).permutation(32)


def test_a_linear_probe_is_plain_gradient_descent_on_shuffled_features(data, here):
    flags = "--epochs 4 --start-epoch 1 --batch-size 12 --lr 0.5 --schedule 3 --momentum 0.9 --wd 0.1"
    classify(data, f"--pretrained joint.tar --save-features {flags}")
    train, test = arrays_of("features_joint_train"), arrays_of("features_joint_val")["features"]
    x, y = (torch.from_numpy(train[name]) for name in ("features", "labels"))
    encoder = Encoder(**SMALL)
    torch.manual_seed(1)
    w, b = (p.detach() for p in DownstreamModel(encoder, 60).fc.parameters())
    dw, db = torch.zeros_like(w), torch.zeros_like(b)
    for line, epoch, lr in zip(metrics(newest()), (1, 2, 3), (0.5, 0.5, 0.05), strict=False):
        order, losses = shuffled(epoch), []
        for rows in (order[:12], order[12:24], order[24:]):
            p = torch.softmax(x[rows] @ w.T + b, dim=1)
            losses += (-torch.log(p[torch.arange(len(rows)), y[rows]])).tolist()
            g = (p - F.one_hot(y[rows], 60)) / len(rows)
            dw, db = 0.9 * dw + g.T @ x[rows] + 0.1 * w, 0.9 * db + g.sum(dim=0) + 0.1 * b
            w, b = w - lr * dw, b - lr * db
        assert (line["epoch"], line["lr"]) == (epoch, pytest.approx(lr))
        assert line["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    np.testing.assert_allclose(arrays_of()["scores"][0], test @ w.T.numpy() + b.numpy(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights("ck")["fc.weight"], w)


def test_one_step_of_fine_tuning_is_plain_gradient_descent_in_training_mode(data, here):
    flags = "--momentum 0 --lr 0.1 --epochs 1 --batch-size 99 --crop-ratio 1 1"
    classify(data, f"--finetune --random-encoder {SIZES} {flags}")
    torch.manual_seed(1)
    model, train, order = DownstreamModel(SMALL, 60), part_of(data, "train"), shuffled(epoch=0)
    F.cross_entropy(model.train()(clips_of(train, 1)[order]), torch.tensor(train.labels)[order]).backward()
    expected = model.state_dict()
    expected |= {name: (p - 0.1 * p.grad).detach() for name, p in model.named_parameters()}
    torch.testing.assert_close(weights("ck"), dict(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", ["--lr 1", "--finetune --lr 0.1"])
def test_weights_and_features_explain_the_scores(data, here, monkeypatch, flags):
    """At a learning rate that makes the accuracy go up and down; the best epoch is not the last one."""
    written, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: written.append(str(other)) or replace(one, other))
    classify(data, f"--pretrained joint.tar --epochs 5 --save-features {flags}")
    names = [name for name in written if name.endswith(".tar")]
    assert names[:2] == ["ck/model_best.pth.tar", "ck/checkpoint.pth.tar"], "no kill between both loses one"
    accuracies, found = [line["acc1"] for line in metrics(newest())[:-1]], arrays_of()
    best = saved("ck/model_best.pth.tar")
    assert best["epoch"] == 1 + np.argmax(accuracies) < 5, accuracies
    x, model = clips_of(part_of(data, "val")), DownstreamModel(SMALL, 60).eval()
    for state_dict, name in ((best["state_dict"], "best_scores"), (weights("ck"), "scores")):
        model.load_state_dict(state_dict)
        with torch.no_grad():
            np.testing.assert_allclose(model(x), found[name][0], rtol=1e-4, atol=1e-4)
    for part in ("train", "val"):
        dataset, features = part_of(data, part), arrays_of(f"features_joint_{part}")
        assert features["names"].tolist() == dataset.names and (features["labels"] == dataset.labels).all()
    expected = model.fc(torch.from_numpy(features["features"])).detach()  # with the last weights
    np.testing.assert_allclose(expected, found["scores"][0], rtol=1e-3, atol=1e-3)
    retrieve(data, "--pretrained ck/model_best.pth.tar")


def test_streams_are_their_single_runs_and_their_fusion_the_sum_of_scores(data, here):
    test, singles = part_of(data, "val"), []
    for s in STREAMS:
        stream = f"--pretrained {s}.tar --finetune-skeleton-representation {s}"
        classify(data, f"{stream} --epochs 3 --checkpoint-path {s}")
        singles.append((newest(), arrays_of()["scores"][0]))
    classify(data, f"{THREE} --epochs 3 --stream-weights 1 0.5 2")
    found, last = arrays_of(), metrics(newest())[-1]
    assert newest().name.startswith("linear_ntu60_cross_subject_joint+motion+bone_")
    assert found["names"].tolist() == test.names and found["streams"].tolist() == STREAMS
    np.testing.assert_array_equal(found["labels"], test.labels)

    def percent(scores):
        return pytest.approx(100 * (scores.argmax(1) == test.labels).mean(), abs=1e-4)

    for scores, (single, expected) in zip(found["scores"], singles, strict=True):
        np.testing.assert_array_equal(scores, expected)
        assert metrics(single)[-1]["last_acc1"] == percent(scores)
    total, best = (np.tensordot([1, 0.5, 2], found[name], 1) for name in ("scores", "best_scores"))
    np.testing.assert_array_equal(found["predictions"], total.argmax(1))
    assert last == {"last_acc1": percent(total), "best_acc1": percent(best)}

    # finished trainings are fused by --evaluate
    classify(data, f"{THREE.replace('.tar', '')} --evaluate --stream-weights 1 0.5 2")
    assert metrics(newest())[-1] == {"last_acc1": percent(total), "best_acc1": None}
    assert [row["setup"].count("--stream-weights 1.0 0.5 2.0") for row in rows_of(newest())] == [0, 0, 0, 1]


def test_retrieval_concatenates_normalised_weighted_features(data, here):
    retrieve(data, f"{TWO} --save-features --knn-neighbours 1 3 --stream-weights 1 3")
    parts = []
    for part in ("train", "val"):
        files = [arrays_of(f"features_{stream}_{part}") for stream in ("joint", "bone")]
        unit = [f["features"] / np.linalg.norm(f["features"], axis=1, keepdims=True) for f in files]
        parts.append((unit, files[0]["labels"]))
    (train, train_labels), (test, labels) = parts
    similarity = test[0] @ train[0].T + 3 * test[1] @ train[1].T
    nearest = train_labels[similarity.argmax(1)]
    acc1 = pytest.approx(100 * (nearest == labels).mean(), abs=1e-4)
    assert metrics(newest()) == [{"knn_acc1": acc1, "knn_neighbours": 1}]
    rows = {(row["stream"], row["task"]): row["acc1"] for row in rows_of(newest())}
    assert rows.keys() == {(s, f"{k}-NN retrieval") for s in ("joint", "bone", "joint+bone") for k in (1, 3)}
    assert rows["joint+bone", "1-NN retrieval"] == acc1
    assert arrays_of()["neighbours"].shape == (len(similarity), 3)
    np.testing.assert_array_equal(arrays_of()["predictions"], nearest)


def test_transfer_to_another_data_set_needs_flags_alone(data, here):
    pretrain(data, "--pre-dataset pku_part1 --protocol cross_view --checkpoint-path pre")
    classify(data, "--pretrained joint.tar --epochs 1")
    for pretrained in ("joint.tar", "pre", "ck"):  # ck is of an evaluation on 60 classes
        target = f"--finetune-dataset pku_part2 --checkpoint-path pku/{pretrained}"
        classify(data, f"--pretrained {pretrained} --epochs 1 {target}")
        assert weights(f"pku/{pretrained}")["fc.weight"].shape == (51, 32)
    retrieve(data, "--pretrained ck --finetune-dataset pku_part1 --protocol cross_view")


def test_repeats_are_the_single_runs_with_their_seeds(data, here):
    recipe = ROOT / "options" / "semi_supervised.yaml"
    flags = f"--config {recipe} --pretrained joint.tar --epochs 1 --label-fraction 0.25"
    seeds, singles = [1, repeat_seed(1, 1)], []
    for seed in seeds:
        classify(data, f"{flags} --repeats 1 --checkpoint-path seed{seed} --seed {seed}")
        singles.append(metrics(newest())[-1])
    classify(data, f"{flags} --repeats 2 --save-features")
    (row,) = rows_of(newest())
    for name, key in (("acc1", "last_acc1"), ("best_acc1", "best_acc1")):
        figures = [single[key] for single in singles]
        found = [row[name], row[f"{name}_std"]]
        assert found == pytest.approx([np.mean(figures), np.std(figures, ddof=1)])
    assert row["labels"] == 0.25 and newest().name.startswith("finetune_ntu60")
    for repeat, seed in enumerate(seeds):
        assert_same(weights(f"ck/repeat{repeat}"), weights(f"seed{seed}"))
    assert f"repeat1: 8 of 32 labels, drawn with seed {seeds[1]}\n" in (newest() / "log.txt").read_text()


def test_resumed_fine_tuning_is_as_if_never_stopped(data, here, capsys, monkeypatch):
    flags = "--label-fraction 0.5 --pretrained joint.tar --finetune"
    classify(data, f"{flags} --epochs 3 --checkpoint-path whole")
    whole = newest()
    classify(data, f"{flags} --epochs 1")
    more = f"{flags} --epochs 3 --resume auto"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # killed before the result is written
        patch.setattr(np, "savez", lambda *_, **__: sys.exit(9))
        classify(data, more)
    classify(data, more)
    one, other = saved("whole"), saved("ck")
    for name in ("epoch", "state_dict", "optimizer", "random", "best_scores"):
        assert_same(one[name], other[name])
    assert metrics(newest()) == metrics(whole) and newest() != whole
    assert [line["epoch"] for line in metrics(whole)[:-1]] == [0, 1, 2]
    capsys.readouterr()
    classify(data, more)
    assert "nothing to do: epoch 3" in capsys.readouterr().out


def test_mistakes_are_one_line_and_write_nothing(data, here, capsys, monkeypatch):
    before, joint = sorted(os.listdir()), "--pretrained joint.tar"
    both = {
        f"{joint} bone.tar --finetune-skeleton-representation joint joint": "list each stream once",
        f"{TWO} --stream-weights 1": "1 --stream-weights for 2",
    }
    classification = {
        f"{joint} --label-fraction 0.1": "is 3, which leaves some of the 4 classes empty: at least 0.1",
        f"{joint} --resume auto": "--resume continues --finetune",
        f"{joint} --finetune --repeats 2 --resume auto": "--resume continues a single training",
        f"{joint} --evaluate --hidden-size 16": "--evaluate tests the classifiers of --pretrained",
        f"{joint} --evaluate --repeats 2": "--evaluate trains nothing: omit --repeats and --label-fraction",
    }
    retrieval = {"--raw-coordinates --bodies 1": "--raw-coordinates has no encoder: omit --bodies"}
    for run, cases in ((classify, both | classification), (retrieve, both | retrieval)):
        for flags, message in cases.items():
            assert message in failure(capsys, run, data, flags)[1]
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "runs in one process: start it without torchrun" in failure(capsys, run, data, joint)[1]
        monkeypatch.delenv("WORLD_SIZE")
    assert sorted(os.listdir()) == before


def test_another_run_is_neither_continued_nor_overwritten(data, here, capsys):
    """Pre-training and fine-tuning cost hours; only a linear evaluation is replaced, by another one."""
    pretrain(data, "--checkpoint-path pre")
    for _ in range(2):
        classify(data, "--pretrained joint.tar --epochs 1 --checkpoint-path linear")
    fine, more = "--pretrained joint.tar --finetune --epochs 1", "--epochs 2 --resume auto"
    classify(data, fine)
    shutil.copytree("ck", "fine/repeat0")
    torch.save(saved("ck") | {"data": {"digest": "other"}}, "data.tar")
    log = sorted(os.listdir("log"))
    for flags, message in {
        f"{fine} {more} --label-fraction 0.5": "belongs to another run: --label-fraction 1.0, not",
        f"{fine} {more} --pretrained bone.tar": "was started with other encoders",
        f"{fine} --epochs 2 --checkpoint-path new --resume linear": "run: linear ntu60",
        f"{fine} --epochs 2 --checkpoint-path new --resume data.tar": "was started with other data",
        fine: "--resume auto continues a single one",
        f"{fine} --repeats 2 --checkpoint-path fine": "fine/repeat0/checkpoint.pth.tar exists: ",
        f"{fine} --checkpoint-path linear": "linear/checkpoint.pth.tar exists: ",
        "--pretrained joint.tar --checkpoint-path fine/repeat0": "exists: another --checkpoint-path starts",
        "--pretrained joint.tar --checkpoint-path pre": "exists: another --checkpoint-path starts a new run",
        f"{fine} --resume ck/model_best.pth.tar --checkpoint-path new": "has no state of the optimiser",
    }.items():
        code, line = failure(capsys, classify, data, flags)
        assert code == 1 and message in line, line
    assert sorted(os.listdir("log")) == log and not Path("new").exists()
    assert saved("ck")["epoch"] == 1


def test_a_number_that_is_not_finite_is_named(data, here, capsys):
    shutil.copytree(data / "NTU-RGB-D-60-AGCN" / "xsub", "data/NTU-RGB-D-60-AGCN/xsub")
    clips = np.load("data/NTU-RGB-D-60-AGCN/xsub/train_data_joint.npy", mmap_mode="r+")
    clips[5, 1, 20, 3, 0] = np.nan
    clips.flush()
    sample, joint = f"train sample 5 ({part_of(here / 'data', 'train').names[5]})", "--pretrained joint.tar"
    for run, flags in ((classify, f"{joint} --finetune"), (retrieve, joint), (pretrain, "--workers 1")):
        code, line = failure(capsys, run, here / "data", flags)
        assert code == 1 and f"{sample} is not finite" in line
    assert not list(here.rglob("checkpoint.pth.tar"))
    net = saved("joint.tar")
    net["state_dict"]["encoder_q.encoder.embed_t.3.bias"][0] = np.inf
    torch.save(net, "bad.tar")
    code, line = failure(capsys, retrieve, data, "--pretrained bad.tar")
    assert code == 1 and "features of train sample 0" in line and "the encoder's weights are damaged" in line
