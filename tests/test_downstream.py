"""Downstream tasks on tiny data: the long way, the cache, subsets, fine-tuning, streams, transfer, export, and mistakes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, failure

import action_classification
import action_retrieval
import engine.feature_cache as cache
import ntu_gendata
import pku_gendata
from engine import downstream, fuse
from engine.checkpoint import load_checkpoint, save_checkpoint
from feeder.arrays import open_split
from feeder.augmentations import centre_crop
from feeder.synthetic import write_ntu, write_pku
from model import DownstreamModel, Encoder, SCDNet
from options.parser import listed

SMALL = dict(hidden_size=16, num_head=2, num_layer=1, channels=4)
SIZES = "--hidden-size 16 --num-head 2 --channels 4".split()
COMMON = "--workers 0 --device cpu".split()
STREAMS = ["joint", "motion", "bone"]


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    """A root of array folders: NTU-60 with 4 classes, PKU-MMD I with 3."""
    root = tmp_path_factory.mktemp("downstream")
    write_ntu(root / "ntu", classes=4, subjects=6, repetitions=2)
    write_pku(root / "pku", part=1, classes=3, subjects=4, cameras=3)
    ntu, pku = root / "data" / "NTU-RGB-D-60-AGCN", root / "data" / "pku_v1"
    ntu_gendata.main(["--data-path", str(root / "ntu"), "--out-folder", str(ntu), "--benchmark", "xsub", "--workers", "1"])
    pku_gendata.main(["--data-path", str(root / "pku"), "--out-folder", str(pku), "--part", "1", "--workers", "1"])
    return root / "data"


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


def test_the_long_way_gives_the_same_weights(arrays, here):
    flags = ["--pretrained", "joint.tar", "--epochs", "4", "--lr", "0.5", "--label-fraction", "0.5"]
    classify(arrays, *flags, "--checkpoint-path", "short")
    classify(arrays, *flags, "--checkpoint-path", "long", "--no-feature-cache")
    short, long = weights("short"), weights("long")
    fresh = torch.zeros(60, 32)
    assert not torch.allclose(short["fc.weight"], fresh, atol=0.1), "it has learnt"
    for name, tensor in short.items():
        torch.testing.assert_close(tensor, long[name], rtol=0, atol=1e-4)


def test_features_on_disk_are_used_and_never_stale(arrays, here, capsys, monkeypatch):
    computed = []
    extract = cache.extract_features
    monkeypatch.setattr(cache, "extract_features", lambda *args: computed.append(args[1].part) or extract(*args))

    def run(*flags, pretrained="joint.tar"):
        computed.clear()
        flags = ["--pretrained", pretrained, "--feature-cache", "cache", "--checkpoint-path", "ck", *flags]
        classify(arrays, "--epochs", "2", *flags)
        return weights("ck"), list(computed)

    first, parts = run()
    assert parts == ["train", "val"] and len(os.listdir("cache")) == 2
    again, parts = run()
    assert parts == [] and same(first, again)
    assert run("--finetune-skeleton-representation", "bone")[1] == ["train", "val"]
    assert run(pretrained="bone.tar")[1] == ["train", "val"]

    # a copy under the same name with other weights, and the same clips in another file
    checkpoint = load_checkpoint("joint.tar")
    save_checkpoint(here / "moved.tar", checkpoint)
    assert run(pretrained="moved.tar")[1] == []
    checkpoint["state_dict"]["encoder_q.encoder.embed_t.3.bias"][0] += 1e-6
    save_checkpoint(here / "moved.tar", checkpoint)
    assert run(pretrained="moved.tar")[1] == ["train", "val"]
    path = arrays / "NTU-RGB-D-60-AGCN" / "xsub" / "val_data_joint.npy"
    stat, content = path.stat(), path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times leaves it
    assert run()[1] == ["val"]

    # damaged in its middle and cut short: both are computed again, and said
    for damage in (lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :], lambda b: b[:-100]):
        for file in (here / "cache").iterdir():
            file.write_bytes(damage(file.read_bytes()))
        capsys.readouterr()
        mended, parts = run()
        assert parts == ["train", "val"] and same(first, mended)
        assert capsys.readouterr().out.count("computed again") == 2
        assert run()[1] == []
    assert not list((here / "cache").glob("*.tmp"))


def test_features_of_data_that_changed_meanwhile_are_not_kept(arrays, here, capsys, monkeypatch):
    path = arrays / "NTU-RGB-D-60-AGCN" / "xsub" / "val_data_joint.npy"
    load = downstream.get_encoder

    def replace_the_clips(*args):
        (here / "new.npy").write_bytes(path.read_bytes())
        os.replace(here / "new.npy", path)
        return load(*args)

    monkeypatch.setattr(downstream, "get_encoder", replace_the_clips)
    retrieve(arrays, "--pretrained", "joint.tar", "--feature-cache", "cache")
    assert "the data changed" in capsys.readouterr().out
    assert [name.split("_")[0] for name in os.listdir("cache")] == ["train"]


def test_a_cache_that_cannot_be_written_is_said(arrays, here, capsys):
    (here / "file").write_text("")
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1", "--feature-cache", "file")
    assert capsys.readouterr().out.count("features are not kept: file") == 2


def test_repeats_are_the_single_runs_with_the_next_seeds(arrays, here):
    flags = ["--pretrained", "joint.tar", "--epochs", "3", "--label-fraction", "0.25"]
    singles = []
    for seed in ("3", "4"):
        classify(arrays, *flags, "--checkpoint-path", f"seed{seed}", seed=seed)
        singles.append(metrics(newest(here))[-1])
    classify(arrays, *flags, "--repeats", "2", "--checkpoint-path", "both")
    folder = newest(here)
    last = metrics(folder)[-1]
    for key in ("best_acc1", "last_acc1"):
        figures = [single[key] for single in singles]
        assert last[key] == pytest.approx(np.mean(figures)) and last[f"{key}_std"] == pytest.approx(np.std(figures, ddof=1))
    assert last["repeats"] == 2 and (folder / "predictions_repeat1.npz").is_file()
    for repeat, seed in enumerate((3, 4)):
        assert same(weights(f"both/repeat{repeat}"), weights(f"seed{seed}"))
    assert not same(weights("seed3"), weights("seed4"))
    text = (folder / "log.txt").read_text()
    assert "8 of 32 labels, drawn with seed 3; samples of each class: 0:2 1:2 2:2 3:2\n" in text and "drawn with seed 4" in text
    assert "mean and standard deviation of 2 repeats" in text


def test_fine_tuning_trains_the_encoder_in_training_mode(arrays, here):
    classify(arrays, "--pretrained", "joint.tar", "--finetune", "--epochs", "2", "--checkpoint-path", "ck")
    before, after = weights("joint.tar"), weights("ck")
    moved = {name for name, t in after.items() if name[:7] == "encoder" and not torch.equal(t, before[f"encoder_q.{name}"])}
    assert {"encoder.embed_t.0.weight", "encoder.transformer_s.layers.0.linear1.weight"} <= moved
    assert any(name.endswith("running_mean") for name in moved), "BatchNorm took the statistics of its batches"
    folder = newest(here)
    assert folder.name.startswith("finetune_ntu60_cross_subject_joint_")
    assert metrics(folder)[-1].keys() == {"best_acc1", "last_acc1"} and metrics(folder)[0]["lr"] == 0.01


def test_one_step_of_fine_tuning_is_plain_gradient_descent(arrays, here):
    flags = ["--momentum", "0", "--lr", "0.1", "--epochs", "1", "--batch-size", "99", "--checkpoint-path", "ck"]
    classify(arrays, "--finetune", "--random-encoder", *SIZES, *flags)
    torch.manual_seed(3)
    model = DownstreamModel(Encoder(**SMALL), 60)
    split = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", "train")
    clips = torch.from_numpy(np.array(split.data))
    order = np.random.default_rng([3, 0]).permutation(len(clips))
    x = centre_crop(clips[order], torch.from_numpy(split.num_frame[order]))
    torch.nn.functional.cross_entropy(model.train()(x), torch.tensor(split.labels)[order]).backward()
    trained = weights("ck")
    for name, p in model.named_parameters():
        torch.testing.assert_close(trained[name], (p - 0.1 * p.grad).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", [["--finetune"], ["--finetune", "--repeats", "2"], ["--repeats", "2"]], ids=" ".join)
def test_resuming_is_as_if_never_stopped(arrays, here, flags):
    flags = ["--pretrained", "joint.tar", "--label-fraction", "0.5", *flags]
    classify(arrays, *flags, "--epochs", "3", "--checkpoint-path", "whole")
    whole = newest(here)
    classify(arrays, *flags, "--epochs", "1", "--checkpoint-path", "part")
    classify(arrays, *flags, "--epochs", "3", "--checkpoint-path", "part", "--resume", "auto", seed=None)
    for folder in ["repeat0", "repeat1"] if "--repeats" in flags else ["."]:
        one, other = load_checkpoint(here / "whole" / folder), load_checkpoint(here / "part" / folder)
        assert same(one["state_dict"], other["state_dict"]) and one["epoch"] == other["epoch"] == 3
        for number, state in one["optimizer"]["state"].items():
            assert torch.equal(state["momentum_buffer"], other["optimizer"]["state"][number]["momentum_buffer"])
    assert metrics(newest(here))[-1] == metrics(whole)[-1]
    if "--repeats" not in flags:
        assert [line["epoch"] for line in metrics(newest(here))[:-1]] == [0, 1, 2], "in the log folder of the first half"


def test_a_finished_repeat_is_not_trained_again(arrays, here, capsys):
    flags = ["--pretrained", "joint.tar", "--epochs", "2", "--checkpoint-path", "ck"]
    classify(arrays, *flags, "--repeats", "2")
    os.remove("ck/repeat1/checkpoint.pth.tar")
    before, whole = (here / "ck/repeat0/checkpoint.pth.tar").stat().st_mtime_ns, metrics(newest(here))[-1]
    classify(arrays, *flags, "--repeats", "2", "--resume", "auto")
    assert (here / "ck/repeat0/checkpoint.pth.tar").stat().st_mtime_ns == before
    assert metrics(newest(here))[-1] == whole
    capsys.readouterr()
    classify(arrays, *flags, "--repeats", "2", "--resume", "auto")
    assert "nothing left to do" in capsys.readouterr().out


def test_streams_are_their_single_runs_and_their_fusion_the_sum_of_scores(arrays, here, capsys):
    singles, files = [], []
    for stream in STREAMS:
        classify(arrays, "--pretrained", f"{stream}.tar", "--finetune-skeleton-representation", stream, "--epochs", "3")
        files.append(np.load(newest(here) / "predictions.npz", allow_pickle=False))
        singles.append(newest(here))
    several = ["--pretrained", *[f"{s}.tar" for s in STREAMS], "--finetune-skeleton-representation", *STREAMS]
    classify(arrays, *several, "--epochs", "3", "--stream-weights", "1", "0.5", "2")
    folder = newest(here)
    assert folder.name.startswith("linear_ntu60_cross_subject_joint+motion+bone_")
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    split = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", "val")
    assert found["names"].tolist() == split.names and found["labels"].tolist() == split.labels
    assert found["streams"].tolist() == STREAMS
    for i, file in enumerate(files):
        np.testing.assert_array_equal(found["scores"][i], file["scores"][0])
        assert metrics(singles[i])[-1]["last_acc1"] == pytest.approx(
            100 * (file["scores"][0].argmax(1) == split.labels).mean(), abs=1e-4
        )
    total = found["scores"][0] + 0.5 * found["scores"][1] + 2 * found["scores"][2]
    np.testing.assert_array_equal(found["predictions"], total.argmax(1))
    expected = 100 * (total.argmax(1) == split.labels).mean()
    assert metrics(folder)[-1]["last_acc1"] == pytest.approx(expected, abs=1e-4)
    best = found["best_scores"][0] + 0.5 * found["best_scores"][1] + 2 * found["best_scores"][2]
    assert metrics(folder)[-1]["best_acc1"] == pytest.approx(100 * (best.argmax(1) == split.labels).mean(), abs=1e-4)

    capsys.readouterr()
    fuse.main([*map(str, singles), "--stream-weights", "1", "0.5", "2"])
    assert f"last epoch: fusion Acc@1 {expected:.3f}" in capsys.readouterr().out


def test_retrieval_of_streams_joins_their_normalised_features(arrays, here):
    flags = ["--pretrained", "joint.tar", "bone.tar", "--finetune-skeleton-representation", "joint", "bone", "--save-features"]
    retrieve(arrays, *flags, "--knn-neighbours", "1", "3", "--stream-weights", "1", "3", "--knn-memory", "1")
    folder = newest(here)
    files = [[folder / f"features_{stream}_{part}.npz" for stream in ("joint", "bone")] for part in ("train", "val")]
    parts = [[np.load(path, allow_pickle=False) for path in pair] for pair in files]
    unit = [[f["features"] / np.linalg.norm(f["features"], axis=1, keepdims=True) for f in part] for part in parts]
    similarity = unit[1][0] @ unit[0][0].T + 3 * unit[1][1] @ unit[0][1].T
    nearest = parts[0][0]["labels"][similarity.argmax(1)]
    expected = 100 * (nearest == parts[1][0]["labels"]).mean()
    lines = metrics(folder)
    assert lines[-1] == {"knn_acc1": pytest.approx(expected, abs=1e-4), "knn_neighbours": 1}
    assert {(line["stream"], line.get("knn_neighbours")) for line in lines[:-1]} == {
        (stream, k) for stream in ("joint", "bone", "fusion") for k in (1, 3, None)
    }
    found = np.load(folder / "predictions.npz", allow_pickle=False)
    assert found["neighbours"].shape == (len(similarity), 3)
    np.testing.assert_array_equal(found["predictions"], nearest)


@pytest.mark.parametrize("flags", [[], ["--finetune"]], ids=["linear", "finetune"])
def test_exported_features_explain_the_predictions(arrays, here, flags):
    classify(arrays, "--pretrained", "bone.tar", "--epochs", "2", "--save-features", "--checkpoint-path", "ck", *flags)
    folder, state = newest(here), weights("ck")
    for part in ("train", "val"):
        split = open_split(arrays / "NTU-RGB-D-60-AGCN" / "xsub", part)
        found = np.load(folder / f"features_joint_{part}.npz", allow_pickle=False)
        assert found["names"].tolist() == split.names and found["labels"].tolist() == split.labels
        scores = found["features"] @ state["fc.weight"].numpy().T + state["fc.bias"].numpy()
        np.testing.assert_array_equal(found["predictions"], scores.argmax(1))
    np.testing.assert_allclose(np.load(folder / "predictions.npz")["scores"][0], scores, atol=1e-3)


@pytest.mark.parametrize("flags", [[], ["--finetune"]], ids=["linear", "finetune"])
def test_transfer_to_another_data_set_needs_flags_alone(arrays, here, flags):
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1", "--checkpoint-path", "ntu")
    target = ["--finetune-dataset", "pku_part1", "--epochs", "1", "--checkpoint-path", "pku"]
    for pretrained in ("joint.tar", "ntu"):  # of pre-training, and of an evaluation on 60 classes
        classify(arrays, "--pretrained", pretrained, *target, *flags)
        assert weights("pku")["fc.weight"].shape == (51, 32)
    retrieve(arrays, "--pretrained", "ntu", "--finetune-dataset", "pku_part1")


def test_semi_supervised_recipe(arrays, here):
    config = ["--config", str(ROOT / "options" / "semi_supervised.yaml"), "--label-fraction", "0.25", "--repeats", "2"]
    classify(arrays, *config, "--pretrained", "joint.tar", "--epochs", "1")
    assert newest(here).name.startswith("finetune_ntu60") and metrics(newest(here))[-1]["repeats"] == 2


def test_finetune_brings_its_recipe(tmp_path):
    def parse(*flags):
        return action_classification.get_parser().parse_args(list(flags))

    assert (parse().lr, parse().batch_size, parse().save_freq) == (2, 1024, 20)
    args = parse("--finetune")
    assert (args.lr, args.batch_size, args.epochs, args.schedule, args.momentum) == (0.01, 64, 80, [50, 70], 0.9)
    (tmp_path / "mine.yaml").write_text("finetune: true\nlr: 0.5\n")
    args = parse("--config", str(tmp_path / "mine.yaml"), "--epochs", "3")
    assert args.finetune and (args.lr, args.batch_size, args.epochs) == (0.5, 64, 3)
    (tmp_path / "mine.yaml").write_text("pretrained: [a, b]\nfinetune-skeleton-representation: [joint, bone]\n")
    args = parse("--config", str(tmp_path / "mine.yaml"))
    assert listed(args.pretrained) == ["a", "b"] and listed(args.finetune_skeleton_representation) == ["joint", "bone"]


def test_mistakes_are_one_line_and_write_nothing(arrays, here, capsys):
    save_checkpoint(here / "linear.tar", {"state_dict": torch.nn.Linear(2, 2).state_dict()})
    (here / "broken.tar").write_bytes((here / "joint.tar").read_bytes()[:-1000])
    (here / "text.tar").write_text("no checkpoint")
    (here / "pickle.tar").write_bytes(b"\x80\x04cos\nsystem\n.")
    joint, two = ["--pretrained", "joint.tar"], ["--finetune-skeleton-representation", "joint", "bone"]
    before = sorted(os.listdir(here))
    for run in (classify, retrieve):
        for flags, code, message in [
            ([*joint, "--hidden-size", "32"], 1, "has hidden_size 16, not 32"),
            (["--pretrained", "linear.tar"], 1, "no encoder"),
            (["--pretrained", "broken.tar"], 1, "damaged"),
            (["--pretrained", "text.tar"], 1, "damaged"),
            (["--pretrained", "pickle.tar"], 1, "damaged"),
            ([*joint, *two], 2, "1 --pretrained for 2 --finetune-skeleton-representation"),
            ([*joint, "bone.tar"], 2, "2 --pretrained for 1"),
            ([*joint, "bone.tar", "--finetune-skeleton-representation", "joint", "joint"], 2, "give each stream once"),
            ([*joint, "bone.tar", *two, "--stream-weights", "1"], 2, "1 --stream-weights for 2"),
            ([*joint, "bone.tar", *two, "--stream-weights", "0", "0"], 2, "are all 0"),
            ([*joint, "bone.tar", *two, "--stream-weights", "1", "-1"], 2, "-1"),
            ([*joint, "absent.tar", *two], 1, "no checkpoint at absent.tar"),
        ]:
            found, line = failure(capsys, run, arrays, *flags)
            assert found == code and message in line, line
    for flags, code, message in [
        (["--label-fraction", "0.1"], 1, "is 3, which leaves some of the 4 classes empty: at least 0.125 is needed"),
        (["--label-fraction", "0"], 2, "0 is not above 0"),
        (["--label-fraction", "1.5"], 2, "1.5 is not between 0 and 1"),
        (["--repeats", "0"], 2, "0 is not at least 1"),
        (["--finetune", "--no-feature-cache"], 2, "leave --feature-cache and --no-feature-cache out"),
        (["--feature-cache", "x", "--no-feature-cache"], 2, "contradict"),
        (["--repeats", "2", "--resume", "x.tar"], 2, "give --resume auto"),
    ]:
        found, line = failure(capsys, classify, arrays, *joint, *flags)
        assert found == code and message in line, line
    for ks in (["33"], ["1", "33"]):
        code, line = failure(capsys, retrieve, arrays, *joint, "--knn-neighbours", *ks)
        assert code == 1 and "--knn-neighbours 33 is more than the gallery's 32 samples" in line
    assert sorted(os.listdir(here)) == before


def test_a_checkpoint_of_another_run_is_not_gone_on_with(arrays, here, capsys):
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1", "--checkpoint-path", "ck")
    before = sorted(os.listdir(here / "log"))
    for flags in (["--finetune"], ["--label-fraction", "0.5"], ["--finetune-skeleton-representation", "bone"]):
        more = ["--pretrained", "joint.tar", "--epochs", "2", "--checkpoint-path", "ck", "--resume", "auto", *flags]
        code, line = failure(capsys, classify, arrays, *more)
        what = "--label-fraction 1" if flags[0] == "--label-fraction" else "linear ntu60 cross_subject joint"
        assert code == 1 and f"is of another run: {what}" in line
    content = load_checkpoint("ck")
    save_checkpoint(here / "pretraining.tar", {**content, "run": ["pretraining", *content["run"][1:]], "options": {}})
    save_checkpoint(here / "short.tar", {**content, "best_scores": content["best_scores"][1:]})
    for name, message in [("pretraining.tar", "is of another run: pretraining ntu60"), ("short.tar", "test samples, not")]:
        more = ["--pretrained", "joint.tar", "--epochs", "2", "--checkpoint-path", "new", "--resume", name]
        code, line = failure(capsys, classify, arrays, *more)
        assert code == 1 and message in line, line
    assert sorted(os.listdir(here / "log")) == before and not (here / "new").exists()


def test_fusing_runs_refuses_what_does_not_fit(arrays, here, capsys):
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1")
    ntu = str(newest(here))
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1", "--finetune-dataset", "pku_part1")
    pku = str(newest(here))
    (here / "damaged.npz").write_bytes((newest(here) / "predictions.npz").read_bytes()[:-200])
    for words, code, message in [
        ([ntu, pku], 1, "has other names than"),
        ([ntu, "nowhere.npz"], 1, "no file nowhere.npz"),
        (["damaged.npz"], 1, "damaged.npz is damaged"),
    ]:
        found, line = failure(capsys, fuse.main, words)
        assert found == code and message in line, line
    with pytest.raises(SystemExit) as stop:
        fuse.main([ntu, "--stream-weights", "1", "2"])
    assert stop.value.code == 2 and "2 --stream-weights for 1 streams" in capsys.readouterr().err


def test_another_encoder_is_not_gone_on_with(arrays, here, capsys):
    classify(arrays, "--pretrained", "joint.tar", "--epochs", "1", "--checkpoint-path", "ck")
    more = ["--epochs", "2", "--checkpoint-path", "ck", "--resume", "auto"]
    code, line = failure(capsys, classify, arrays, "--pretrained", "bone.tar", *more)
    assert code == 1 and "began from another encoder" in line
    with pytest.raises(SystemExit):
        classify(arrays, "--pretrained", "joint.tar", *more, seed="4")
    assert "is of another run: --seed 3, not 4" in capsys.readouterr().err
    classify(arrays, "--pretrained", "joint.tar", *more)
    assert load_checkpoint("ck")["epoch"] == 2


def test_repeats_of_an_earlier_run_are_set_aside(arrays, here, capsys, monkeypatch):
    flags = ["--epochs", "1", "--repeats", "2", "--checkpoint-path", "ck"]
    classify(arrays, "--pretrained", "joint.tar", *flags)
    train = action_classification.train_one

    def killed(args, run, task, trial, *rest):
        if trial.repeat:
            raise SystemExit(9)
        return train(args, run, task, trial, *rest)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(action_classification, "train_one", killed)
        classify(arrays, "--pretrained", "bone.tar", *flags)
    capsys.readouterr()
    classify(arrays, "--pretrained", "bone.tar", *flags, "--resume", "auto")
    assert "nothing left to do" not in capsys.readouterr().out
    started = [load_checkpoint(f"ck/repeat{i}/checkpoint.pth.tar")["start"] for i in range(2)]
    assert started[0] == started[1] != load_checkpoint("ck/repeat0/earlier_checkpoint.pth.tar")["start"]


def test_a_result_that_was_not_written_is_made_up_for(arrays, here, capsys, monkeypatch):
    flags = ["--pretrained", "joint.tar", "--epochs", "1", "--checkpoint-path", "ck"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(action_classification, "report_accuracies", lambda *_: sys.exit(9))
        classify(arrays, *flags)
    for again in range(2):
        capsys.readouterr()
        classify(arrays, *flags, "--resume", "auto")
        assert ("nothing left to do" in capsys.readouterr().out) == bool(again)
    (folder,) = (here / "log").iterdir()
    assert metrics(folder)[-1].keys() == {"best_acc1", "last_acc1"}


def test_two_classifications_do_not_share_a_folder(arrays, here, capsys):
    hold = "from engine.checkpoint_folder import CheckpointFolder as F\nx = F('ck'); x.claim(); print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    other.stdout.readline()
    code, line = failure(capsys, classify, arrays, "--pretrained", "joint.tar", "--epochs", "1", "--checkpoint-path", "ck")
    other.communicate(b"\n")
    assert code == 1 and f"ck is another run's (process {other.pid}" in line
