"""Downstream tasks on tiny data: subsets, fine-tuning, resuming, streams, transfer, export, mistakes, and no host reads."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, failure

import action_classification
import action_retrieval
import pku_gendata
from engine import evaluation, features, fuse, retrieval
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.results import RESULT, read_rows
from feeder.arrays import open_split
from feeder.augmentations import centre_crop
from feeder.dataset import Batches, SkeletonDataset, make_loader
from feeder.synthetic import write_pku
from model import DownstreamModel, Encoder, SCDNet
from options.parser import listed

SMALL = dict(hidden_size=16, num_head=2, num_layer=1, channels=4)
SIZES = "--hidden-size 16 --num-head 2 --channels 4".split()
COMMON = "--workers 0 --device cpu".split()
STREAMS = ["joint", "motion", "bone"]


@pytest.fixture(scope="session")
def arrays(data, tmp_path_factory):
    """The root of array folders: NTU-60 with 4 classes, PKU-MMD I with 3."""
    raw = tmp_path_factory.mktemp("downstream")
    write_pku(raw, part=1, classes=3, subjects=4, cameras=3)
    pku_gendata.main(
        ["--data-path", str(raw), "--out-folder", str(data / "pku_v1"), "--part", "1", "--workers", "1"]
    )
    return data


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a checkpoint of pre-training for each stream."""
    monkeypatch.chdir(tmp_path)
    for i, stream in enumerate(STREAMS):
        torch.manual_seed(i)
        net = SCDNet(SMALL, dim=8, K=4)
        save_checkpoint(tmp_path / f"{stream}.tar", {"state_dict": net.state_dict(), "sizes": net.sizes})
    return tmp_path


def classify(arrays, *flags, seed="3"):
    seeded = [] if seed is None else ["--seed", seed]
    action_classification.main(["--data-path", str(arrays), *COMMON, *seeded, "--batch-size", "8", *flags])


def retrieve(arrays, *flags):
    action_retrieval.main(["--data-path", str(arrays), *COMMON, "--seed", "3", *flags])


def newest(here):
    return max((here / "log").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return load_checkpoint(folder)["state_dict"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


def test_fine_tuning_trains_the_encoder_in_training_mode(arrays, here):
    classify(arrays, "--pretrained", "joint.tar", "--finetune", "--epochs", "2", "--checkpoint-path", "ck")
    before, after = weights("joint.tar"), weights("ck")
    moved = {
        name
        for name, t in after.items()
        if name[:7] == "encoder" and not torch.equal(t, before[f"encoder_q.{name}"])
    }
    assert {"encoder.embed_t.0.weight", "encoder.transformer_s.layers.0.linear1.weight"} <= moved
    assert any(name.endswith("running_mean") for name in moved), (
        "BatchNorm took the statistics of its batches"
    )
    assert (
        newest(here).name.startswith("finetune_ntu60_cross_subject_joint_")
        and metrics(newest(here))[0]["lr"] == 0.01
    )


def test_one_step_of_fine_tuning_is_plain_gradient_descent(arrays, here):
    flags = [
        "--momentum",
        "0",
        "--lr",
        "0.1",
        "--epochs",
        "1",
        "--batch-size",
        "99",
        "--checkpoint-path",
        "ck",
    ]
    classify(arrays, "--finetune", "--random-encoder", *SIZES, *flags, "--crop-ratio", "1", "1")
    torch.manual_seed(3)
    model = DownstreamModel(Encoder(**SMALL), 60)
    split = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", "train")
    clips = torch.from_numpy(np.array(split.data))
    order = np.random.default_rng([3, 0]).permutation(len(clips))
    x = centre_crop(clips[order], torch.from_numpy(split.num_frame[order]), ratio=1)
    torch.nn.functional.cross_entropy(model.train()(x), torch.tensor(split.labels)[order]).backward()
    trained = weights("ck")
    for name, p in model.named_parameters():
        torch.testing.assert_close(trained[name], (p - 0.1 * p.grad).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags, lr", [([], "1"), (["--finetune"], "0.1")], ids=["linear", "finetune"])
def test_the_weights_of_the_best_epoch_are_saved(arrays, here, flags, lr):
    """At a learning rate that makes the accuracy go up and down; the best epoch is not the last one."""
    classify(
        arrays, "--pretrained", "joint.tar", *flags, "--epochs", "6", "--lr", lr, "--checkpoint-path", "ck"
    )
    accuracies = [line["acc1"] for line in metrics(newest(here))[:-1]]
    best = load_checkpoint("ck/model_best.pth.tar")
    assert best["epoch"] == 1 + np.argmax(accuracies) < 6, accuracies
    found = np.load(newest(here) / "predictions.npz")
    model = DownstreamModel(Encoder(**SMALL), 60)
    model.load_state_dict(best["state_dict"])
    split = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", "val")
    with torch.no_grad():
        scores = model.eval()(
            centre_crop(torch.from_numpy(np.array(split.data)), torch.from_numpy(split.num_frame))
        )
    np.testing.assert_allclose(scores, found["best_scores"][0], rtol=1e-4, atol=1e-4)
    retrieve(arrays, "--pretrained", "ck/model_best.pth.tar")


def test_streams_are_their_single_runs_and_their_fusion_the_sum_of_scores(arrays, here, capsys):
    split, singles = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", "val"), []
    for stream in STREAMS:
        classify(
            arrays,
            "--pretrained",
            f"{stream}.tar",
            "--finetune-skeleton-representation",
            stream,
            "--epochs",
            "3",
        )
        singles.append(newest(here))
    several = ["--pretrained", *[f"{s}.tar" for s in STREAMS], "--finetune-skeleton-representation", *STREAMS]
    classify(arrays, *several, "--epochs", "3", "--stream-weights", "1", "0.5", "2")
    folder = newest(here)
    assert folder.name.startswith("linear_ntu60_cross_subject_joint+motion+bone_")
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    assert found["names"].tolist() == split.names and found["labels"].tolist() == split.labels
    assert found["streams"].tolist() == STREAMS

    def percent(scores):
        return pytest.approx(100 * (scores.argmax(1) == split.labels).mean(), abs=1e-4)

    for scores, single in zip(found["scores"], singles, strict=True):
        np.testing.assert_array_equal(
            scores, np.load(single / "predictions.npz", allow_pickle=False)["scores"][0]
        )
        assert metrics(single)[-1]["last_acc1"] == percent(scores)
    total, best = (np.tensordot([1, 0.5, 2], found[name], 1) for name in ("scores", "best_scores"))
    np.testing.assert_array_equal(found["predictions"], total.argmax(1))
    assert metrics(folder)[-1] == {"last_acc1": percent(total), "best_acc1": percent(best)}

    capsys.readouterr()
    fuse.main([*map(str, singles), "--stream-weights", "1", "0.5", "2"])
    assert f"last epoch: fusion Acc@1 {metrics(folder)[-1]['last_acc1']:.3f}" in capsys.readouterr().out


def test_retrieval_of_streams_joins_their_normalised_features(arrays, here):
    flags = [
        "--pretrained",
        "joint.tar",
        "bone.tar",
        "--finetune-skeleton-representation",
        "joint",
        "bone",
        "--save-features",
    ]
    retrieve(arrays, *flags, "--knn-neighbours", "1", "3", "--stream-weights", "1", "3")
    folder = newest(here)
    files = [
        [folder / f"features_{stream}_{part}.npz" for stream in ("joint", "bone")]
        for part in ("train", "val")
    ]
    parts = [[np.load(path, allow_pickle=False) for path in pair] for pair in files]
    unit = [
        [f["features"] / np.linalg.norm(f["features"], axis=1, keepdims=True) for f in part] for part in parts
    ]
    similarity = unit[1][0] @ unit[0][0].T + 3 * unit[1][1] @ unit[0][1].T
    nearest = parts[0][0]["labels"][similarity.argmax(1)]
    expected = 100 * (nearest == parts[1][0]["labels"]).mean()
    assert metrics(folder) == [{"knn_acc1": pytest.approx(expected, abs=1e-4), "knn_neighbours": 1}]
    rows = {(row["stream"], row["task"]): row["acc1"] for row in read_rows(folder / RESULT)}
    assert rows.keys() == {(s, f"{k}-NN retrieval") for s in ("joint", "bone", "joint+bone") for k in (1, 3)}
    assert rows["joint+bone", "1-NN retrieval"] == pytest.approx(expected, abs=1e-4)
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    assert found["neighbours"].shape == (len(similarity), 3)
    np.testing.assert_array_equal(found["predictions"], nearest)


@pytest.mark.parametrize("flags", [[], ["--finetune"]], ids=["linear", "finetune"])
def test_exported_features_explain_the_predictions(arrays, here, flags):
    classify(
        arrays,
        "--pretrained",
        "bone.tar",
        "--epochs",
        "2",
        "--save-features",
        "--checkpoint-path",
        "ck",
        *flags,
    )
    folder, state = newest(here), weights("ck")
    for part in ("train", "val"):
        split = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", part)
        found = np.load(folder / f"features_joint_{part}.npz", allow_pickle=False)
        assert found["names"].tolist() == split.names and found["labels"].tolist() == split.labels
        scores = found["features"] @ state["fc.weight"].numpy().T + state["fc.bias"].numpy()
    np.testing.assert_allclose(np.load(folder / "predictions.npz")["scores"][0], scores, atol=1e-3)


def test_transfer_to_another_data_set_needs_flags_alone(arrays, here):
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1", "--checkpoint-path", "ntu")
    target = ["--finetune-dataset", "pku_part1", "--epochs", "1", "--checkpoint-path"]
    for pretrained in ("joint.tar", "ntu"):  # of pre-training, and of an evaluation on 60 classes
        classify(arrays, "--pretrained", pretrained, *target, f"pku/{pretrained}")
        assert weights(f"pku/{pretrained}")["fc.weight"].shape == (51, 32)
    retrieve(arrays, "--pretrained", "ntu", "--finetune-dataset", "pku_part1")


def test_finetune_brings_its_recipe(tmp_path):
    def parse(*flags, config=""):
        (tmp_path / "mine.yaml").write_text(config)
        return action_classification.get_parser().parse_args(
            ["--config", str(tmp_path / "mine.yaml"), *flags]
        )

    assert (parse().lr, parse().batch_size, parse().save_freq) == (2, 1024, 20)
    args = parse("--finetune")
    assert (args.lr, args.batch_size, args.epochs, args.schedule, args.momentum) == (
        0.01,
        64,
        80,
        [50, 70],
        0.9,
    )
    args = parse("--epochs", "3", config="finetune: true\nlr: 0.5\n")
    assert args.finetune and (args.lr, args.batch_size, args.epochs) == (0.5, 64, 3)
    args = parse(config="pretrained: [a, b]\nfinetune-skeleton-representation: [joint, bone]\n")
    assert listed(args.pretrained) == ["a", "b"] and listed(args.finetune_skeleton_representation) == [
        "joint",
        "bone",
    ]


def test_repeats_are_the_single_runs_with_their_seeds(arrays, here):
    flags = [
        "--config",
        str(ROOT / "options" / "semi_supervised.yaml"),
        "--pretrained",
        "joint.tar",
        "--epochs",
        "2",
    ]
    flags += ["--label-fraction", "0.25"]
    seeds = ["3", str(evaluation.repeat_seed(3, 1))]
    singles = []
    for seed in seeds:
        classify(arrays, *flags, "--repeats", "1", "--checkpoint-path", f"seed{seed}", seed=seed)
        singles.append(metrics(newest(here))[-1])
    classify(arrays, *flags, "--repeats", "2", "--checkpoint-path", "both")
    folder = newest(here)
    (row,) = read_rows(folder / RESULT)
    for name, key in (("acc1", "last_acc1"), ("best_acc1", "best_acc1")):
        figures = [single[key] for single in singles]
        assert row[name] == pytest.approx(np.mean(figures)) and row[f"{name}_std"] == pytest.approx(
            np.std(figures, ddof=1)
        )
    assert row["labels"] == 0.25 and folder.name.startswith("finetune_ntu60")
    for repeat, seed in enumerate(seeds):
        assert same(weights(f"both/repeat{repeat}"), weights(f"seed{seed}"))
    assert f"repeat1: 8 of 32 labels, drawn with seed {seeds[1]}\n" in (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    "flags",
    [["--random-encoder", *SIZES], ["--pretrained", "joint.tar", "--finetune"]],
    ids=["linear", "finetune"],
)
def test_resuming_is_as_if_never_stopped(arrays, here, flags, capsys, monkeypatch):
    flags = ["--label-fraction", "0.5", *flags]
    classify(arrays, *flags, "--epochs", "3", "--checkpoint-path", "whole")
    whole = newest(here)
    classify(arrays, *flags, "--epochs", "1", "--checkpoint-path", "part")
    more = [*flags, "--epochs", "3", "--checkpoint-path", "part", "--resume", "auto"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # killed before the result is written
        patch.setattr(action_classification, "report", lambda *_: sys.exit(9))
        classify(arrays, *more, seed=None)
    classify(arrays, *more, seed=None)
    part, one, other = newest(here), load_checkpoint("whole"), load_checkpoint("part")
    assert same(one["state_dict"], other["state_dict"]) and one["epoch"] == other["epoch"] == 3
    for number, state in one["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], other["optimizer"]["state"][number]["momentum_buffer"])
    assert metrics(part)[-1] == metrics(whole)[-1]
    assert [line["epoch"] for line in metrics(part)[:-1]] == [0, 1, 2], "in the log folder of the first part"
    one, other = (read_rows(folder / RESULT)[0] for folder in (whole, part))
    assert one["acc1"] == other["acc1"] and one["group"] != other["group"], (
        "the second was begun with other --epochs"
    )
    capsys.readouterr()
    classify(arrays, *more, seed=None)
    assert "nothing to do: epoch 3" in capsys.readouterr().out


def test_mistakes_are_one_line_and_write_nothing(arrays, here, capsys, monkeypatch):
    save_checkpoint(here / "linear.tar", {"state_dict": torch.nn.Linear(2, 2).state_dict()})
    (here / "pickle.tar").write_bytes(b"\x80\x04cos\nsystem\n.")
    for key in ("pretrained", "finetune-skeleton-representation", "stream-weights", "knn-neighbours"):
        (here / f"{key}.yaml").write_text(f"{key}: []\n")
    joint, two = ["--pretrained", "joint.tar"], ["--finetune-skeleton-representation", "joint", "bone"]
    both = ["--pretrained", "joint.tar", "bone.tar", *two]
    np.save(here / "array.npy", np.zeros(3))
    before = sorted(os.listdir(here))
    random = ["--random-encoder", *SIZES]
    cases = [
        (["--pretrained", "nowhere.tar"], 1, "no checkpoint at nowhere.tar"),
        (["--pretrained", ""], 1, "no checkpoint at"),
        (["--pretrained", "array.npy"], 1, "damaged"),
        (["--random-encoder", "--hidden-size", "9", "--num-head", "2"], 1, "9 is not a multiple of num_head 2"),
        ([*random, "--protocol", "cross_setup"], 2, "no protocol cross_setup"),
        ([*random, "--finetune-dataset", "pku_part2"], 1, "pku_v2/xsub"),
        ([*joint, "--hidden-size", "32"], 1, "has hidden_size 16, not 32"),
        (["--pretrained", "linear.tar"], 1, "linear.tar: "),
        (["--pretrained", "pickle.tar"], 1, "damaged"),
        ([*joint, *two], 2, "1 --pretrained for 2 --finetune-skeleton-representation"),
        ([*joint, "bone.tar"], 2, "2 --pretrained for 1"),
        ([*joint, "bone.tar", "--finetune-skeleton-representation", "joint", "joint"], 2, "list each stream once"),
        ([*both, "--stream-weights", "1"], 2, "1 --stream-weights for 2"),
        *(([*both, "--stream-weights", "1", bad], 2, bad) for bad in ("0", "-1", "nan", "inf")),
        ([*joint, "absent.tar", *two], 1, "no checkpoint at absent.tar"),
        *(([*joint[i:], "--config", f"{key}.yaml"], 2, f"argument --{key}")
          for i, key in ((2, "pretrained"), (0, "finetune-skeleton-representation"), (0, "stream-weights"))),
    ]  # fmt: skip
    only = {
        classify: [
            (
                [*joint, "--label-fraction", "0.1"],
                1,
                "is 3, which leaves some of the 4 classes empty: at least 0.125",
            ),
            ([*joint, "--label-fraction", "0"], 2, "0 is not above 0"),
            ([*joint, "--repeats", "0"], 2, "0 is not at least 1"),
            ([*joint, "--repeats", "2", "--resume", "auto"], 2, "--resume continues a single training"),
            ([*both, "--resume", "x.tar"], 2, "--resume continues a single training"),
        ],
        retrieve: [
            (
                [*joint, "--knn-neighbours", "1", "33"],
                1,
                "--knn-neighbours 33 is more than the gallery's 32 samples",
            ),
            ([*joint, "--config", "knn-neighbours.yaml"], 2, "expected at least one argument"),
        ],
    }
    for run, more in only.items():
        for flags, code, message in cases + more:
            found, line = failure(capsys, run, arrays, *flags)
            assert found == code and message in line, line
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "runs in one process: start it without torchrun" in failure(capsys, run, arrays, *joint)[1]
        monkeypatch.delenv("WORLD_SIZE")
    assert sorted(os.listdir(here)) == before


def test_a_checkpoint_of_another_run_is_not_continued(arrays, here, capsys):
    joint = ["--pretrained", "joint.tar", "--epochs", "2", "--checkpoint-path", "ck"]
    classify(arrays, *joint, "--epochs", "1", "--finetune")
    content = load_checkpoint("ck")
    other = {"run": ["pretraining", *content["run"][1:]], "options": {}, "random": [content["random"]]}
    save_checkpoint(here / "pretraining.tar", content | other)
    options = content["options"] | {"data": content["options"]["data"] | {"digest": "other"}}
    save_checkpoint(here / "data.tar", {**content, "options": options})
    log = sorted(os.listdir(here / "log"))
    for flags, message in [
        (["--resume", "auto"], "belongs to another run: finetune ntu60 cross_subject joint, not linear"),
        (["--finetune"], "--resume auto continues a single one"),
        (
            ["--finetune", "--resume", "auto", "--label-fraction", "0.5"],
            "another run: --label-fraction 1.0, not",
        ),
        (["--finetune", "--resume", "auto", "--pretrained", "bone.tar"], "was started with other origins"),
        (["--finetune", "--resume", "auto", "--seed", "4"], "belongs to another run: --seed 3, not 4"),
        (
            ["--finetune", "--resume", "pretraining.tar", "--checkpoint-path", "new"],
            "another run: pretraining ntu60",
        ),
        (["--finetune", "--resume", "data.tar", "--checkpoint-path", "new"], "was started with other data"),
    ]:
        code, line = failure(capsys, classify, arrays, *joint, *flags)
        assert code == 1 and message in line, line
    assert sorted(os.listdir(here / "log")) == log and not (here / "new").exists()
    assert load_checkpoint("ck")["epoch"] == 1


def test_a_sample_that_is_not_finite_is_named(arrays, here, capsys):
    root = here / "data" / "NTU-RGB-D-60-AGCN" / "xsub"
    shutil.copytree(arrays / "NTU-RGB-D-60-AGCN" / "xsub", root)
    clips = np.load(root / "train_data_joint.npy", mmap_mode="r+")
    clips[5, 1, 20, 3, 0] = np.nan
    clips.flush()
    name = open_split(root, "train").names[5]
    for run, *flags in ((classify,), (classify, "--finetune"), (retrieve,)):
        code, line = failure(capsys, run, here / "data", "--pretrained", "joint.tar", *flags)
        assert code == 1 and f"train sample 5 ({name}) is not finite" in line
    assert not list(here.rglob("checkpoint.pth.tar"))
    net = load_checkpoint("joint.tar")
    net["state_dict"]["encoder_q.encoder.embed_t.3.bias"][0] = np.inf
    save_checkpoint(here / "bad.tar", net)
    code, line = failure(capsys, retrieve, arrays, "--pretrained", "bad.tar")
    assert code == 1 and "features of train sample 0" in line and "the encoder's weights are damaged" in line


def test_nothing_downstream_waits_for_the_device(arrays):
    """On "meta" every read by the host raises."""
    train, device = SkeletonDataset(arrays / "NTU-RGB-D-60-AGCN" / "xsub", "train"), torch.device("meta")
    model, batches = DownstreamModel(Encoder(**SMALL), 60).to(device), Batches(32, 8, seed=0)
    for stream in STREAMS:
        clips = [*features.clip_batches(make_loader(train, batches, 0), stream, model.encoder.sizes, device)]
        x = torch.cat([model.features(clip) for clip, _ in clips]).detach()
    assert x.device.type == "meta" and x.shape == (32, 32)
    labels, query, query_labels = (
        torch.from_numpy(train.labels).to(device),
        x[:16],
        torch.arange(16, device=device),
    )
    for classifier, samples in ((model.fc, features.feature_batches(x, labels, batches)), (model, clips)):
        optimizer = torch.optim.SGD(classifier.parameters(), 0.1, momentum=0.9)
        for batch in samples:
            loss, acc1 = action_classification.train_step(classifier.train(), *batch, optimizer)
        assert loss.shape == acc1.shape == ()

    assert retrieval.knn_predict(x, labels, query, 5).shape == (16,)
    assert retrieval.mean_average_precision(x, labels, query, query_labels).shape == ()
    with pytest.raises(Exception, match="meta"):
        x.sum().item()


def test_only_a_linear_evaluation_is_replaced(data, here, capsys):
    """Not pre-training, nor fine-tuning, nor one of its repeats: they cost hours."""
    flags = [
        "--data-path",
        str(data),
        "--random-encoder",
        *SIZES,
        "--workers",
        "0",
        "--device",
        "cpu",
        "--seed",
        "1",
        "--epochs",
        "1",
    ]
    for _ in range(2):
        action_classification.main([*flags, "--checkpoint-path", "linear"])
    fine = [*flags, "--finetune", "--repeats", "2"]
    action_classification.main([*fine, "--checkpoint-path", "fine"])
    for command, folder in ((fine, "fine"), (flags, "fine/repeat1"), ([*flags, "--finetune"], "linear")):
        code, line = failure(capsys, action_classification.main, [*command, "--checkpoint-path", folder])
        assert code == 1 and "exists: another --checkpoint-path starts a new run" in line
