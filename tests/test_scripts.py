"""The scripts on tiny data: arrays to accuracies, ablations, PKU-MMD, reference checkpoints, mistakes."""

import builtins
import re
import runpy
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, classify, metrics, newest, pretrain, retrieve, saved
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from feeder.augmentations import centre_crop
from feeder.dataset import SkeletonDataset


def test_from_arrays_to_accuracies(data, whole, here):
    (pretraining,) = (whole / "log").iterdir()
    classify(data, f"--pretrained {whole}/ck/checkpoint.pth.tar --epochs 3")
    linear = newest()
    retrieve(data, f"--pretrained {whole}/ck --knn-neighbours 3")
    folders = pretraining, linear, newest()

    # figures
    steps, (*epochs, last) = metrics(pretraining), metrics(linear)
    assert [line["epoch"] for line in steps] == [line["epoch"] for line in epochs] == [0, 1, 2]
    assert last == {"best_acc1": max(line["acc1"] for line in epochs), "last_acc1": epochs[-1]["acc1"]}
    assert saved("ck")["epoch"] == 3

    # lines; TensorBoard's scalars and images
    texts = [(folder / "log.txt").read_text() for folder in folders]
    time_and_data = r"Time +\d+\.\d{3} \( *\d+\.\d{3}\)\tData +\d+\.\d{3} \( *\d+\.\d{3}\)"
    loss_and_accuracy = r"Loss (\d\.\d{4}e.\d\d) \(\1\)\tAcc@1 +(\d+\.\d\d) \( *\2\)"
    assert re.search(rf"^Epoch: \[1\]\[0/4\]\t{time_and_data}\t{loss_and_accuracy}$", texts[0], re.M)
    assert re.search(r"^ \* epoch 2 loss \d\.\d{4}e.\d\d Acc@1 \d+\.\d{3} Acc@5 \d+\.\d{3}$", texts[1], re.M)
    events = [EventAccumulator(str(folder)).Reload() for folder in folders]
    images = ["views/pretraining", "confusion/test", "confusion/test"]
    assert [read.Tags()["images"] for read in events] == [[image] for image in images]
    assert {"similarity/positive_it", "queue/mean_norm_s", "epoch/lr"} <= set(events[0].Tags()["scalars"])

    # predictions and embeddings
    accuracies = epochs[-1]["acc1"], metrics(newest())[-1]["knn_acc1"]
    for folder, text, acc1 in zip(folders[1:], texts[1:], accuracies, strict=True):
        found = np.load(folder / "predictions.npz", allow_pickle=False)
        assert (found["labels"] == found["predictions"]).mean() * 100 == pytest.approx(acc1, abs=1e-4)
        assert len(found["names"]) == len(next(folder.rglob("tensors.tsv")).read_text().splitlines())
        assert "brushing hair" in text


def test_an_ablation_has_the_losses_of_its_pairs(data, here):
    pretrain(data, "--skeleton-representation bone --pairs tt ss ii --no-masks")
    (epoch,) = metrics(newest())
    assert {"loss/tt", "loss/ss", "loss/ii"} <= epoch.keys() and "loss/ti" not in epoch


def test_raw_coordinates_are_a_nearest_neighbour_baseline(data, here):
    retrieve(data, "--raw-coordinates")
    clips = []
    train, test = (SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", part) for part in ("train", "val"))
    for dataset in (train, test):
        x = centre_crop(*dataset[range(len(dataset))][:2]).flatten(1).numpy()
        clips.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    nearest = (clips[1] @ clips[0].T).argmax(axis=1)
    expected = (train.labels[nearest] == test.labels).mean() * 100
    assert metrics(newest())[-1]["knn_acc1"] == pytest.approx(expected, abs=1e-4)


def test_the_time_of_a_step_includes_what_follows_it(data, here, monkeypatch):
    """Such as the wait for the device when a line is printed, here of 0.1 s."""
    inside, began = builtins.print, []

    def slow_print(*args, **how):
        if str(args[0]).startswith("Epoch: ") and not began.append(time.perf_counter()):
            time.sleep(0.1)
        inside(*args, **how)

    monkeypatch.setattr(builtins, "print", slow_print)
    pretrain(data, "--print-freq 1")
    (line,), text = metrics(newest()), (newest() / "log.txt").read_text()
    times = [float(x) for x in re.findall(r"\tTime +(\S+) \(", text)]
    assert len(times) == 4 and min(times[1:]) >= 0.1
    assert sum(times[1:]) == pytest.approx(began[-1] - began[0], abs=0.09)
    assert 0.09 < line["seconds"] - sum(times) < 0.25, "the epoch includes the wait for its last line"
    assert line["samples_per_second"] == pytest.approx(32 / line["seconds"])


def test_scripts_start_from_any_folder(here, monkeypatch, capsys):
    for script in ROOT.glob("*.py"):
        monkeypatch.setattr(sys, "argv", [str(script), "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: {script.name}")
