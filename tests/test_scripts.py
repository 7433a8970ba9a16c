"""The three scripts on tiny data: from raw files to accuracies, resuming, a reference checkpoint, and what goes wrong."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, failure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import action_classification
import action_retrieval
import pku_gendata
import pretraining
from engine.checkpoint import load_checkpoint
from engine.results import table
from feeder.augmentations import centre_crop
from feeder.dataset import SkeletonDataset
from feeder.synthetic import write_pku
from model import SCDNet
from model.reference import to_reference
from options.datasets import DATA_SETS

SIZES = "--hidden-size 16 --num-head 2 --channels 4".split()
COMMON = "--workers 0 --device cpu --seed 1".split()


@pytest.fixture(scope="session")
def pku_data(tmp_path_factory):
    """The same in the layout of PKU-MMD, both parts."""
    root = tmp_path_factory.mktemp("pku")
    for part in (1, 2):
        write_pku(root / f"raw{part}", part=part, classes=3, subjects=4, cameras=3)
        flags = ["--data-path", str(root / f"raw{part}"), "--part", str(part), "--workers", "1"]
        pku_gendata.main([*flags, "--out-folder", str(root / "data" / f"pku_v{part}")])
    return root / "data"


def pretrain(data, *flags):
    sizes = [*SIZES, "--encoder-dim", "8", "--encoder-k", "24", "--batch-size", "8"]
    pretraining.main(["--data-path", str(data), *sizes, *COMMON, "--checkpoint-path", "ck", *flags])


def records(here, task):
    (path,) = (here / "log").glob(f"{task}_*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
def test_from_arrays_to_accuracies(data, here, stream):
    pretrain(data, "--epochs", "2", "--skeleton-representation", stream)
    flags = [
        "--data-path",
        str(data),
        "--pretrained",
        "ck/checkpoint.pth.tar",
        "--skeleton-representation",
        stream,
        *COMMON,
    ]
    action_classification.main([*flags, "--epochs", "3"])
    action_retrieval.main([*flags, "--knn-neighbours", "3"])

    # figures
    steps = records(here, "pretraining")
    *epochs, last = records(here, "linear")
    assert [r["epoch"] for r in steps] == [0, 1] and [r["epoch"] for r in epochs] == [0, 1, 2]
    assert last == {"best_acc1": max(r["acc1"] for r in epochs), "last_acc1": epochs[-1]["acc1"]}
    assert torch.load("checkpoints/linear/checkpoint.pth.tar", weights_only=True)["epoch"] == 3

    # what is in the folders: lines, predictions, TensorBoard's scalars, images and embeddings
    folders = [next((here / "log").glob(f"{task}_*")) for task in ("pretraining", "linear", "retrieval")]
    texts = [(folder / "log.txt").read_text() for folder in folders]
    assert re.search(r"^Epoch: \[1\]\[0/\d\]\tTime .*\tData .*\tLoss \S+ \(\S+\)\tAcc@1 ", texts[0], re.M)
    assert re.search(r"^ \* Acc@1 \d+\.\d{3} Acc@5 \d+\.\d{3}$", texts[1], re.M)
    events = [EventAccumulator(str(folder)).Reload() for folder in folders]
    assert [found.Tags()["images"] for found in events] == [
        ["views/pretraining"],
        ["confusion/test"],
        ["confusion/test"],
    ]
    assert {"similarity/positive_it", "queue/mean_norm_s", "training/lr"} <= set(events[0].Tags()["scalars"])
    first = [events[0].Scalars(f"loss/{pair}")[0].value for pair in ("ti", "si", "it", "is")]
    assert 0.5 < sum(first) / steps[0]["loss"] < 2
    accuracies = epochs[-1]["acc1"], records(here, "retrieval")[-1]["knn_acc1"]
    for folder, text, acc1 in zip(folders[1:], texts[1:], accuracies, strict=True):
        saved = np.load(folder / "predictions.npz", allow_pickle=False)
        assert (saved["labels"] == saved["predictions"]).mean() * 100 == pytest.approx(acc1, abs=1e-4)
        assert len(saved["names"]) == len(next(folder.rglob("tensors.tsv")).read_text().splitlines())
        assert "brushing hair" in text


def test_an_ablation_is_known_downstream(data, here, capsys):
    pretrain(
        data, "--epochs", "1", "--skeleton-representation", "bone", "--pairs", "tt", "ss", "ii", "--no-masks"
    )
    (epoch,) = records(here, "pretraining")
    assert {"loss/tt", "loss/ss", "loss/ii"} <= epoch.keys() and "loss/ti" not in epoch
    action_retrieval.main(["--data-path", str(data), "--pretrained", "ck", *COMMON])
    encoder = "pre-trained on ntu60, bone stream, without masks, pairs tt ss ii"
    assert f"encoder: {encoder}\n" in capsys.readouterr().out and f"| {encoder} |" in table(here / "log")
    (here / "data" / "NTU-RGB-D-60-AGCN").mkdir(parents=True)
    (here / "data" / "NTU-RGB-D-60-AGCN" / "xview").symlink_to(data / "NTU-RGB-D-60-AGCN" / "xsub")
    action_retrieval.main(["--data-path", "data", "--pretrained", "ck", "--protocol", "cross_view", *COMMON])
    assert (
        "encoder: pre-trained on ntu60, cross_subject: may have seen test clips, bone stream"
        in capsys.readouterr().out
    )
    status, line = failure(capsys, pretrain, data, "--epochs", "2", "--resume", "auto")
    assert status == 1 and "another run: pretraining ntu60 cross_subject bone, not pretraining" in line
    status, line = failure(capsys, pretrain, data, "--pairs", "ti", "tu", "--checkpoint-path", "new")
    assert status == 2 and "pairs ti tu" in line


@pytest.mark.parametrize(
    ("data_set", "protocol"), [("pku_part1", "cross_view"), ("pku_part2", "cross_subject")]
)
def test_pku_works_in_all_scripts(pku_data, here, data_set, protocol):
    pretrain(pku_data, "--epochs", "1", "--pre-dataset", data_set, "--protocol", protocol)
    flags = [
        "--data-path",
        str(pku_data),
        "--finetune-dataset",
        data_set,
        "--protocol",
        protocol,
        "--pretrained",
        "ck",
        *COMMON,
    ]
    action_classification.main([*flags, "--epochs", "1"])
    action_retrieval.main(flags)
    assert records(here, "retrieval")[-1].keys() == {"knn_acc1", "knn_neighbours"}


def test_a_reference_checkpoint_needs_no_flag(data, here):
    net = SCDNet(dict(hidden_size=16, num_head=8, channels=4), dim=8, K=24)
    torch.save({"epoch": 1, "state_dict": to_reference(net.state_dict()), "arch": "scd"}, "reference.pth.tar")
    action_retrieval.main(["--data-path", str(data), "--pretrained", "reference.pth.tar", *COMMON])
    pretrain(data, "--epochs", "2", "--num-head", "8", "--resume", "reference.pth.tar")
    assert load_checkpoint(here / "ck")["epoch"] == 2


def test_raw_coordinates_are_a_nearest_neighbour_baseline(data, here):
    action_retrieval.main(["--data-path", str(data), "--raw-coordinates", *COMMON])
    train, test = (SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", part) for part in ("train", "val"))
    clips = [
        np.stack([centre_crop(*d[[i]][:2])[0].numpy().ravel() for i in range(len(d))]) for d in (train, test)
    ]
    clips = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in clips]
    nearest = (clips[1] @ clips[0].T).argmax(axis=1)
    expected = (train.labels[nearest] == test.labels).mean() * 100
    assert records(here, "retrieval")[-1]["knn_acc1"] == pytest.approx(expected, abs=1e-4)


def test_mistakes_in_pretraining_are_one_line(data, here, capsys):
    for flags, code, message in [
        (["--encoder-k", "20"], 2, "--encoder-k 20 is not a multiple of --batch-size 8"),
        (["--protocol", "cross_setup"], 2, "ntu60 has no protocol cross_setup"),
        (["--num-head", "3"], 2, "hidden_size 16 is not a multiple of num_head 3"),
        (["--data-path", "nowhere"], 1, "nowhere/NTU-RGB-D-60-AGCN/xsub/train_data_joint.npy"),
        (["--protocol", "cross_view"], 1, "xview"),
        (["--batch-size", "512", "--encoder-k", "512"], 1, "fewer than one --batch-size of 512"),
        (["--resume", "nowhere.tar"], 1, "no checkpoint at nowhere.tar"),
        (["--device", "cuda:77"], 1, "cuda:77"),
    ]:
        found, line = failure(capsys, pretrain, data, "--epochs", "1", *flags)
        assert found == code and message in line, line
    assert not (here / "ck").exists()


def test_a_label_beyond_the_table_is_named(data, here, capsys, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "ntu60", dataclasses.replace(DATA_SETS["ntu60"], num_classes=3))
    code, line = failure(
        capsys, action_retrieval.main, ["--data-path", str(data), "--random-encoder", *SIZES, *COMMON]
    )
    assert code == 1 and "has label 3, but options/datasets.py has 3 classes" in line


SCRIPTS = [
    f"{name}.py"
    for name in ("pretraining", "action_classification", "action_retrieval", "ntu_gendata", "pku_gendata")
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_start_from_any_folder(tmp_path, script):
    result = subprocess.run(
        [sys.executable, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0 and result.stdout.startswith("usage:")
