"""What people look at: statistics of the contrast, class names, stick figures, TensorBoard, report of the classes."""

import math
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.meters import contrast_statistics
from engine.runlog import Run, RunLog
from engine.visualisation import (
    CELL,
    CLIPS,
    COLOURS,
    TEXT,
    describe_classes,
    describe_view,
    draw_strip,
    report_classes,
    show_views,
)
from feeder.augmentations import PretrainingViews, ViewParameters
from feeder.class_names import FILES, class_names
from feeder.dataset import SkeletonDataset
from model import SCDNet
from options.datasets import DATA_SETS

RUN = Run("linear", "ui_prmd", "cross_subject", "joint")


def events(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_statistics_against_plain_numpy():
    torch.manual_seed(0)
    net = SCDNet(dict(hidden_size=16, num_head=2, channels=4), dim=8, K=12, T=0.5)
    with torch.no_grad():
        q, k = torch.randn(2, 4, 3, 64, 25, 2)
        queues = {domain: keys.clone() for domain, keys in net.queues.items()}
        logits = net.eval()(q, k)
    figures = contrast_statistics(logits, net.loss(logits), queues, net.T)
    for pair, x in logits.items():
        cosine = x.numpy() * 0.5
        rank_first = [row[0] > max(row[1:]) for row in cosine]
        assert figures[f"accuracy/{pair}"] == pytest.approx(100 * sum(rank_first) / 4)
        assert figures[f"similarity/positive_{pair}"] == pytest.approx(
            np.mean([row[0] for row in cosine]), abs=1e-6
        )
        assert figures[f"similarity/negative_{pair}"] == pytest.approx(
            np.mean([row[1:] for row in cosine]), abs=1e-6
        )
        assert figures[f"similarity/hardest_{pair}"] == pytest.approx(
            np.mean([max(row[1:]) for row in cosine]), abs=1e-6
        )
    for domain, keys in queues.items():
        keys = keys.numpy().astype(float)
        mean = keys.mean(axis=1)
        variances = np.linalg.svd(keys - mean[:, None], compute_uv=False) ** 2 / 12
        assert figures[f"queue/mean_norm_{domain}"] == pytest.approx(np.linalg.norm(mean), abs=1e-5)
        assert figures[f"queue/spread_{domain}"] == pytest.approx(math.sqrt(1 - mean @ mean), abs=1e-5)
        assert figures[f"queue/dimensions_{domain}"] == pytest.approx(
            variances.sum() ** 2 / (variances**2).sum(), rel=1e-4
        )


def test_every_data_set_has_a_name_for_each_class():
    for name in FILES:
        names = class_names(name, DATA_SETS[name].num_classes)
        assert len(names) == len(set(names)) == DATA_SETS[name].num_classes, name
        assert not any(text.startswith("class ") or text != text.strip() or not text for text in names), name
    assert class_names("ntu60", 60) == class_names("ntu120", 120)[:60]
    assert class_names("ntu60", 60)[8] == "standing up (from sitting position)"
    assert class_names("ui_prmd", 10)[6] == "shoulder abduction"
    assert class_names("pku_part1", 51)[0] == "bow" and class_names("demo", 10)[3] == "squat"
    assert class_names("my own", 3) == ("class 0", "class 1", "class 2"), "other classes are numbered"
    assert class_names("ui_prmd", 12)[9:] == ("shoulder scaption", "class 10", "class 11")


def test_description_of_few_classes_and_of_many():
    matrix = np.array([[4, 0, 0], [1, 1, 2], [0, 0, 0]])
    assert describe_classes(matrix, ("a", "b", "class 2")) == [
        "Acc@1 of each class, mean 62.5:",
        "   25.0  1/4  1 b",
        "  100.0  4/4  0 a",
        "most confused (clips, class -> predicted as):",
        "  2/4  1 b -> class 2",
        "  1/4  1 b -> 0 a",
    ]
    many = np.eye(60, dtype=int)
    many[7] = 0
    many[7, 8] = 3
    lines = describe_classes(many, class_names("ntu60", 60))
    assert lines[0] == "Acc@1 of each class, mean 98.3; the worst 20:" and len(lines) == 23
    assert lines[1] == "    0.0  0/3  7 sitting down"
    assert lines[-1] == "  3/3  7 sitting down -> 8 standing up (from sitting position)"


def count(image, colour):
    return int((image == np.array(colour)).all(axis=-1).sum())


def person(bodies=2):
    """A clip (3, 16, 25, 2) of random joints above 1 in every direction; the second body may be absent."""
    clip = 1 + np.random.default_rng(0).random((3, 16, 25, 2)).astype(np.float32)
    clip[..., bodies:] = 0
    return clip


def test_masked_and_absent_joints_frames_and_bodies_are_not_drawn():
    whole = draw_strip(person(), "")
    assert whole.shape == (CELL[1], TEXT + 16 * CELL[0], 3) and (whole[:, :TEXT] == 255).all()
    drawn = [(whole[:, TEXT + b * CELL[0] : TEXT + (b + 1) * CELL[0]] != 255).any() for b in range(16)]
    assert all(drawn) and all(count(whole, colour) > 100 for colour in COLOURS.values())
    frames, left = person(), person()
    frames[:, [3, 4]] = 0
    masked = draw_strip(frames, "")
    assert [
        b for b in range(16) if (masked[:, TEXT + b * CELL[0] : TEXT + (b + 1) * CELL[0]] == 255).all()
    ] == [3, 4]
    left[:, :, [4, 5, 6, 7, 12, 13, 14, 15, 21, 22]] = 0
    one_sided = draw_strip(left, "")
    assert count(one_sided, COLOURS["left"]) == 0 and count(one_sided, COLOURS["right"]) > 100
    assert count(draw_strip(person(bodies=1), ""), COLOURS["left"]) < count(whole, COLOURS["left"])
    assert (draw_strip(person(bodies=0), "") == 255).all()


def test_a_bone_has_its_place_and_length_in_pixels():
    for end, along, across, size in (
        ([1.0, 0, 4], 0, 1, CELL[1]),
        ([4.0, 0, 1], 1, 0, CELL[0]),
    ):  # 3 m up, 3 m to the right
        clip = np.zeros((3, 16, 25, 1), np.float32)
        clip[:, :, 5, 0] = np.array(end)[:, None]  # left elbow
        clip[:, :, [1, 4], 0] = np.array([1.0, 0, 1])[:, None, None]  # spine, left shoulder
        pixels = np.nonzero((draw_strip(clip, "")[:, TEXT : TEXT + CELL[0]] == COLOURS["left"]).all(axis=-1))
        assert pixels[along].min() <= 8 and pixels[along].max() >= size - 9 and np.ptp(pixels[across]) <= 2


def test_the_augmentations_of_a_sample_are_described():
    p = ViewParameters(torch.tensor([3]), torch.tensor([64]), torch.tensor([[0.5, 21.4, 0.2]]), torch.tensor([True]),
                       torch.ones(1, 6), torch.ones(1, 25, dtype=torch.bool), torch.ones(1, 16, dtype=torch.bool))  # fmt: skip
    turned = "rotated 21\N{DEGREE SIGN} about y"
    assert (
        describe_view(p, 0)
        == f"frames 3 .. 67\n{turned}\nleft and right swapped\nsheared\nmasked joints\nmasked frames"
    )
    none = ViewParameters(p.start, p.length, *(torch.zeros_like(x) for x in p[2:]))
    assert describe_view(none, 0) == "frames 3 .. 67"


def test_views_are_shown_and_training_draws_as_before(data, tmp_path):
    dataset = SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", "train")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        show_views(log, dataset, PretrainingViews("motion"), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    (image,) = events(log.folder).Images("views/pretraining")
    assert (image.width, image.height) == (TEXT + 16 * CELL[0], CLIPS * 3 * CELL[1])


def test_scalars_are_grouped(tmp_path):
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        log.metrics(
            0, **{"loss": 2.5, "loss/ti": 1.0, "acc1": 50.0, "lr": 0.1, "similarity/positive_ti": 0.5}
        )
        log.metrics(1, **{"loss": 2.0, "bone/repeat1/acc1": 1.0})
        log.metrics(best_acc1=3.0)
    found = events(log.folder)
    groups = {
        "loss/total",
        "loss/ti",
        "accuracy/acc1",
        "accuracy/bone/repeat1/acc1",
        "training/lr",
        "similarity/positive_ti",
    }
    assert set(found.Tags()["scalars"]) == groups
    assert [(event.step, event.value) for event in found.Scalars("loss/total")] == [(0, 2.5), (1, 2.0)]


def test_a_report_leaves_text_heat_map_and_embeddings(tmp_path):
    labels, predictions = torch.arange(1200) % 10, torch.arange(1200) % 7
    x = torch.randn(1200, 70, generator=torch.Generator().manual_seed(0)) + 3
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        test = SimpleNamespace(names=[f"clip\t{i}" for i in range(1200)], labels=labels.numpy())
        report_classes(log, SimpleNamespace(run=RUN, num_classes=10, test=test), predictions, x)
    text = (log.folder / "log.txt").read_text()
    assert "Acc@1 of each class, mean 10.5:" in text and "0/120  9 shoulder scaption" in text
    (image,) = events(log.folder).Images("confusion/test")
    assert image.width == image.height == 110

    points = np.loadtxt(next(log.folder.rglob("tensors.tsv")), delimiter="\t")
    heading, *rows = next(log.folder.rglob("metadata.tsv")).read_text().splitlines()
    assert heading == "class\tpredicted as\tsample" and points.shape == (1000, 64) and len(rows) == 1000
    chosen = [int(row.split()[-1]) for row in rows]
    assert len(set(chosen)) == 1000 and (log.folder / "projector_config.pbtxt").is_file()
    unit = F.normalize(x[chosen[:50]], dim=1).numpy()
    np.testing.assert_allclose(
        points[:50] @ points[:50].T, unit @ unit.T, atol=0.1
    )  # 70 dimensions rotated to 64
