"""Downstream tasks on tiny data: classifiers, resuming, streams, transfer, export, mistakes, host reads."""

import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, SIZES, SMALL, assert_same, failure, metrics, newest, pretrain

import action_classification
import action_retrieval
from action_classification import finetune, linear_probe
from engine import classification, fuse, retrieval
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.evaluation import repeat_seed
from engine.features import Clips
from engine.results import RESULT, read_rows
from feeder.augmentations import centre_crop
from feeder.dataset import Batches, SkeletonDataset, make_loader
from model import DownstreamModel, SCDNet

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
        save_checkpoint(tmp_path / f"{stream}.tar", {"state_dict": net.state_dict(), "sizes": net.sizes})
    return tmp_path


def classify(data, flags):
    fixed = f"--data-path {data} --workers 0 --device cpu --seed 3 --batch-size 8 --checkpoint-path ck"
    action_classification.main(f"{fixed} {flags}".split())


def retrieve(data, flags):
    action_retrieval.main(f"--data-path {data} --workers 0 --device cpu --seed 3 {flags}".split())


def part_of(data, part):
    return SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", part)


def clips_of(dataset, ratio=0.95):
    """All clips of a part, cropped, (N, 3, 16, 25, 2)."""
    batch = dataset[range(len(dataset))]
    return centre_crop(batch.x, batch.num_frames, ratio, SMALL["frames"])


def scores_of(folder):
    """Class scores of the last and of the best epoch, each (streams, N, classes)."""
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    return found["scores"], found["best_scores"]


def weights(path):
    return load_checkpoint(path)["state_dict"]


def test_a_linear_probe_is_plain_gradient_descent_on_shuffled_features():
    torch.manual_seed(0)
    x, y, test_x = torch.randn(10, 6), torch.arange(10) % 3, torch.randn(5, 6)
    layer = torch.nn.Linear(6, 3)
    w, b = (p.detach().clone() for p in layer.parameters())
    flags = "--random-encoder --epochs 4 --start-epoch 1 --batch-size 4 --lr 0.5 --schedule 3"
    args = action_classification.get_parser().parse_args(flags.split())
    optimizer = torch.optim.SGD(layer.parameters(), 9.0, momentum=0.9, weight_decay=0.1)
    dw, db = torch.zeros_like(w), torch.zeros_like(b)
    for epoch in linear_probe(layer, optimizer, (x, y), test_x, Batches(10, 4, seed=7), args):
        lr = 0.05 if epoch.number == 3 else 0.5
        order, losses = np.random.default_rng([7, epoch.number]).permutation(10), []
        for rows in (order[:4], order[4:8], order[8:]):
            p = torch.softmax(x[rows] @ w.T + b, dim=1)
            losses += (-torch.log(p[torch.arange(len(rows)), y[rows]])).tolist()
            g = (p - F.one_hot(y[rows], 3)) / len(rows)
            dw, db = 0.9 * dw + g.T @ x[rows] + 0.1 * w, 0.9 * db + g.sum(dim=0) + 0.1 * b
            w, b = w - lr * dw, b - lr * db
        assert epoch.lr == pytest.approx(lr) and epoch.loss == pytest.approx(np.mean(losses), rel=1e-5)
        torch.testing.assert_close(epoch.scores, test_x @ w.T + b)
        torch.testing.assert_close(layer.weight.detach(), w)
    assert epoch.number == 3


def test_one_step_of_fine_tuning_is_plain_gradient_descent_in_training_mode(data, here):
    flags = "--momentum 0 --lr 0.1 --epochs 1 --batch-size 99 --crop-ratio 1 1"
    classify(data, f"--finetune --random-encoder {SIZES} {flags}")
    torch.manual_seed(3)
    model, train = DownstreamModel(SMALL, 60), part_of(data, "train")
    order = np.random.default_rng([3, 0]).permutation(len(train))
    x, labels = clips_of(train, ratio=1)[order], torch.from_numpy(train.labels)[order]
    F.cross_entropy(model.train()(x), labels).backward()
    expected = model.state_dict()
    expected |= {name: (p - 0.1 * p.grad).detach() for name, p in model.named_parameters()}
    torch.testing.assert_close(weights("ck"), dict(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", ["--lr 1", "--finetune --lr 0.1"])
def test_weights_and_features_explain_the_scores(data, here, flags):
    """At a learning rate that makes the accuracy go up and down; the best epoch is not the last one."""
    classify(data, f"--pretrained joint.tar --epochs 6 --save-features {flags}")
    accuracies, (scores, best_scores) = [line["acc1"] for line in metrics(newest())[:-1]], scores_of(newest())
    best = load_checkpoint("ck/model_best.pth.tar")
    assert best["epoch"] == 1 + np.argmax(accuracies) < 6, accuracies
    x, model = clips_of(part_of(data, "val")), DownstreamModel(SMALL, 60).eval()
    for state_dict, expected in ((best["state_dict"], best_scores), (weights("ck"), scores)):
        model.load_state_dict(state_dict)
        with torch.no_grad():
            np.testing.assert_allclose(model(x), expected[0], rtol=1e-4, atol=1e-4)
    for part in ("train", "val"):
        dataset = part_of(data, part)
        found = np.load(newest() / f"features_joint_{part}.npz", allow_pickle=False)
        assert found["names"].tolist() == dataset.names and (found["labels"] == dataset.labels).all()
    expected = model.fc(torch.from_numpy(found["features"])).detach()  # with the last weights
    np.testing.assert_allclose(expected, scores[0], rtol=1e-3, atol=1e-3)
    retrieve(data, "--pretrained ck/model_best.pth.tar")


def test_streams_are_their_single_runs_and_their_fusion_the_sum_of_scores(data, here, capsys):
    test, singles = part_of(data, "val"), []
    for s in STREAMS:
        stream = f"--pretrained {s}.tar --finetune-skeleton-representation {s}"
        classify(data, f"{stream} --epochs 3 --checkpoint-path {s}")
        singles.append(newest())
    classify(data, f"{THREE} --epochs 3 --stream-weights 1 0.5 2")
    folder, last = newest(), metrics(newest())[-1]
    assert folder.name.startswith("linear_ntu60_cross_subject_joint+motion+bone_")
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    assert found["names"].tolist() == test.names and found["streams"].tolist() == STREAMS
    np.testing.assert_array_equal(found["labels"], test.labels)

    def percent(scores):
        return pytest.approx(100 * (scores.argmax(1) == test.labels).mean(), abs=1e-4)

    for scores, single in zip(found["scores"], singles, strict=True):
        np.testing.assert_array_equal(scores, scores_of(single)[0][0])
        assert metrics(single)[-1]["last_acc1"] == percent(scores)
    total, best = (np.tensordot([1, 0.5, 2], found[name], 1) for name in ("scores", "best_scores"))
    np.testing.assert_array_equal(found["predictions"], total.argmax(1))
    assert last == {"last_acc1": percent(total), "best_acc1": percent(best)}

    capsys.readouterr()
    fuse.main([*map(str, singles), "--stream-weights", "1", "0.5", "2"])
    assert f"last epoch: fusion Acc@1 {last['last_acc1']:.3f}" in capsys.readouterr().out


def test_retrieval_concatenates_normalised_weighted_features(data, here):
    retrieve(data, f"{TWO} --save-features --knn-neighbours 1 3 --stream-weights 1 3")
    folder, parts = newest(), []
    for part in ("train", "val"):
        files = [np.load(folder / f"features_{s}_{part}.npz", allow_pickle=False) for s in ("joint", "bone")]
        unit = [f["features"] / np.linalg.norm(f["features"], axis=1, keepdims=True) for f in files]
        parts.append((unit, files[0]["labels"]))
    (train, train_labels), (test, labels) = parts
    similarity = test[0] @ train[0].T + 3 * test[1] @ train[1].T
    nearest = train_labels[similarity.argmax(1)]
    acc1 = pytest.approx(100 * (nearest == labels).mean(), abs=1e-4)
    assert metrics(folder) == [{"knn_acc1": acc1, "knn_neighbours": 1}]
    rows = {(row["stream"], row["task"]): row["acc1"] for row in read_rows(folder / RESULT)}
    assert rows.keys() == {(s, f"{k}-NN retrieval") for s in ("joint", "bone", "joint+bone") for k in (1, 3)}
    assert rows["joint+bone", "1-NN retrieval"] == acc1
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    assert found["neighbours"].shape == (len(similarity), 3)
    np.testing.assert_array_equal(found["predictions"], nearest)


def test_transfer_to_another_data_set_needs_flags_alone(data, here):
    classify(data, "--pretrained joint.tar --epochs 1")
    for pretrained in ("joint.tar", "ck"):  # of pre-training, and of an evaluation on 60 classes
        target = f"--finetune-dataset pku_part1 --checkpoint-path pku/{pretrained}"
        classify(data, f"--pretrained {pretrained} --epochs 1 {target}")
        assert weights(f"pku/{pretrained}")["fc.weight"].shape == (51, 32)
    retrieve(data, "--pretrained ck --finetune-dataset pku_part1")


def test_repeats_are_the_single_runs_with_their_seeds(data, here):
    recipe = ROOT / "options" / "semi_supervised.yaml"
    flags = f"--config {recipe} --pretrained joint.tar --epochs 1 --label-fraction 0.25"
    seeds, singles = [3, repeat_seed(3, 1)], []
    for seed in seeds:
        classify(data, f"{flags} --repeats 1 --checkpoint-path seed{seed} --seed {seed}")
        singles.append(metrics(newest())[-1])
    classify(data, f"{flags} --repeats 2")
    (row,) = read_rows(newest() / RESULT)
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
        patch.setattr(action_classification, "report", lambda *_: sys.exit(9))
        classify(data, more)
    classify(data, more)
    one, other = load_checkpoint("whole"), load_checkpoint("ck")
    for name in ("epoch", "state_dict", "optimizer", "random", "best_scores"):
        assert_same(one[name], other[name])
    assert metrics(newest()) == metrics(whole) and newest() != whole
    assert [line["epoch"] for line in metrics(whole)[:-1]] == [0, 1, 2]
    capsys.readouterr()
    classify(data, more)
    assert "nothing to do: epoch 3" in capsys.readouterr().out


def test_mistakes_are_one_line_and_write_nothing(data, here, capsys, monkeypatch):
    save_checkpoint(here / "linear.tar", {"state_dict": torch.nn.Linear(2, 2).state_dict()})
    Path("pickle.tar").write_bytes(b"\x80\x04cos\nsystem\n.")
    before, joint = sorted(os.listdir()), "--pretrained joint.tar"
    cases = {
        "--pretrained nowhere.tar": (1, "no checkpoint at nowhere.tar"),
        "--pretrained linear.tar": (1, "linear.tar is damaged or does not fit: "),
        "--pretrained pickle.tar": (1, "damaged"),
        f"{joint} --protocol cross_setup": (2, "no protocol cross_setup"),
        f"{joint} --finetune-dataset ntu120": (1, "NTU-RGB-D-120-AGCN/xsub"),
        f"{joint} --hidden-size 32": (1, "has hidden_size 16, not 32"),
        f"{joint} bone.tar": (2, "2 --pretrained for 1 --finetune-skeleton-representation"),
        f"{joint} bone.tar --finetune-skeleton-representation joint joint": (2, "list each stream once"),
        f"{TWO} --stream-weights 1": (2, "1 --stream-weights for 2"),
    }
    classification = {
        f"{joint} --label-fraction 0.1": (1, "is 3, which leaves some of the 4 classes empty: at least 0.1"),
        f"{joint} --resume auto": (2, "--resume continues --finetune"),
        f"{joint} --finetune --repeats 2 --resume auto": (2, "--resume continues a single training"),
    }
    neighbours = {f"{joint} --knn-neighbours 1 33": (1, "33 is more than the gallery's 32 samples")}
    for run, more in ((classify, classification), (retrieve, neighbours)):
        for flags, (code, message) in (cases | more).items():
            found, line = failure(capsys, run, data, flags)
            assert found == code and message in line, (flags, line)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "runs in one process: start it without torchrun" in failure(capsys, run, data, joint)[1]
        monkeypatch.delenv("WORLD_SIZE")
    assert sorted(os.listdir()) == before


def test_the_best_weights_are_saved_first(data, here, monkeypatch):
    """A run that is killed between the two files repeats the epoch, and writes both again."""
    written = []
    monkeypatch.setattr(classification, "save_checkpoint", lambda path, _: written.append(path.name))
    classify(data, "--pretrained joint.tar --finetune --epochs 1")
    assert written == ["model_best.pth.tar", "checkpoint.pth.tar"]


def test_another_run_is_neither_continued_nor_overwritten(data, here, capsys):
    """Pre-training and fine-tuning cost hours; only a linear evaluation is replaced, by another one."""
    pretrain(data, "--checkpoint-path pre")
    for _ in range(2):
        classify(data, "--pretrained joint.tar --epochs 1 --checkpoint-path linear")
    fine = "--pretrained joint.tar --finetune --epochs 1"
    classify(data, fine)
    classify(data, f"{fine} --repeats 2 --checkpoint-path fine")
    save_checkpoint(here / "data.tar", load_checkpoint("ck") | {"data": {"digest": "other"}})
    scratch = f"--finetune --random-encoder {SIZES} --checkpoint-path scratch"
    classify(data, f"{scratch} --epochs 1")
    log = sorted(os.listdir("log"))
    more, elsewhere = fine.replace("epochs 1", "epochs 2"), "--checkpoint-path new"
    for flags, message in {
        f"{more} --resume auto --label-fraction 0.5": "belongs to another run: --label-fraction 1.0, not",
        f"{more} --resume auto --pretrained bone.tar": "was started with other encoders",
        f"{more} --resume auto --seed 4": "belongs to another run: --seed 3, not 4",
        f"{more} --resume linear {elsewhere}": "another run: linear ntu60 cross_subject joint, not finetune",
        f"{more} --resume data.tar {elsewhere}": "was started with other data",
        f"{scratch} --epochs 2 --resume auto --num-head 4": "its encoder has ",
        fine: "--resume auto continues a single one",
        f"{fine} --repeats 2 --checkpoint-path fine": "fine/repeat0/checkpoint.pth.tar exists: ",
        f"{fine} --checkpoint-path linear": "linear/checkpoint.pth.tar exists: ",
        "--pretrained joint.tar --checkpoint-path fine/repeat1": "exists: another --checkpoint-path starts",
        "--pretrained joint.tar --checkpoint-path pre": "exists: another --checkpoint-path starts a new run",
    }.items():
        code, line = failure(capsys, classify, data, flags)
        assert code == 1 and message in line, line
    assert sorted(os.listdir("log")) == log and not Path("new").exists()
    assert load_checkpoint("ck")["epoch"] == 1


def test_a_number_that_is_not_finite_is_named(data, here, capsys):
    root = here / "data" / "NTU-RGB-D-60-AGCN" / "xsub"
    shutil.copytree(data / "NTU-RGB-D-60-AGCN" / "xsub", root)
    clips = np.load(root / "train_data_joint.npy", mmap_mode="r+")
    clips[5, 1, 20, 3, 0] = np.nan
    clips.flush()
    name = part_of(here / "data", "train").names[5]
    encoder = "--pretrained joint.tar"
    cases = (classify, encoder), (classify, f"{encoder} --finetune"), (retrieve, encoder)
    for run, flags in (*cases, (pretrain, ""), (pretrain, "--workers 1")):
        code, line = failure(capsys, run, here / "data", flags)
        assert code == 1 and f"train sample 5 ({name}) is not finite" in line
    assert not list(here.rglob("checkpoint.pth.tar"))
    net = load_checkpoint("joint.tar")
    net["state_dict"]["encoder_q.encoder.embed_t.3.bias"][0] = np.inf
    save_checkpoint(here / "bad.tar", net)
    code, line = failure(capsys, retrieve, data, "--pretrained bad.tar")
    assert code == 1 and "features of train sample 0" in line and "the encoder's weights are damaged" in line


def test_nothing_downstream_waits_for_the_device(data, monkeypatch):
    """On "meta" every read by the host raises: the first is that of the loss after all steps of the epoch."""
    meta, batches = torch.device("meta"), Batches(32, 8, seed=0)
    model, loader = DownstreamModel(SMALL, 60).to(meta), make_loader(part_of(data, "train"), batches, 0)
    for stream in STREAMS:
        clips = Clips(loader, stream, model.encoder.sizes, meta, (0.5, 1), torch.Generator())
        x, y = (torch.cat(parts) for parts in zip(*clips, strict=True))
    x = model.features(x).detach()
    args = action_classification.get_parser().parse_args("--random-encoder --epochs 1 --batch-size 8".split())
    optimizer, steps = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), []
    optimizer.register_step_post_hook(lambda *_: steps.append(None))
    monkeypatch.setattr(action_classification, "progress_line", lambda *_: "")
    probe = linear_probe(model.fc, optimizer, (x, y), x, batches, args)
    for epochs in (probe, finetune(model, optimizer, (clips, clips), args, Namespace(print=print))):
        steps.clear()
        with pytest.raises((RuntimeError, NotImplementedError), match="(?i)meta"):
            next(epochs)
        assert len(steps) == 4
    labels = torch.arange(32, device=meta)
    assert retrieval.knn_predict(x, labels, x, 5).shape == (32,)
    assert retrieval.mean_average_precision(x, labels, x, labels).shape == ()
