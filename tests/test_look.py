"""What people look at: statistics of the contrast, class names, confusion, pictures, projector, report."""

import math
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from engine.evaluation import confusion_matrix, describe_classes
from engine.meters import contrast_statistics
from engine.runlog import Run, RunLog
from engine.visualisation import (
    BLUE,
    CELL,
    CLIPS,
    COLOURS,
    LABEL,
    PALE,
    WHITE,
    describe_view,
    draw_confusion,
    draw_strip,
    no_augmentation,
    report_classes,
    show_views,
    to_pixels,
    without_masks,
)
from feeder.augmentations import PretrainingViews, ViewParameters
from feeder.class_names import class_names
from feeder.dataset import SkeletonDataset
from feeder.skeleton import LINKS
from model import SCDNet
from options.datasets import DATA_SETS

RUN = Run("linear", "ui_prmd", "cross_subject", "joint")


def events(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


# statistics of the contrast


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
        assert figures[f"similarity/positive_{pair}"] == pytest.approx(np.mean([row[0] for row in cosine]), abs=1e-6)
        assert figures[f"similarity/negative_{pair}"] == pytest.approx(np.mean([row[1:] for row in cosine]), abs=1e-6)
        assert figures[f"similarity/hardest_{pair}"] == pytest.approx(np.mean([max(row[1:]) for row in cosine]), abs=1e-6)
    for domain, keys in queues.items():
        keys = keys.numpy().astype(float)
        mean = keys.mean(axis=1)
        variances = np.linalg.svd(keys - mean[:, None], compute_uv=False) ** 2 / 12
        assert figures[f"queue/mean_norm_{domain}"] == pytest.approx(np.linalg.norm(mean), abs=1e-5)
        assert figures[f"queue/spread_{domain}"] == pytest.approx(math.sqrt(1 - mean @ mean), abs=1e-5)
        assert figures[f"queue/dimensions_{domain}"] == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-4)


def test_every_data_set_has_a_name_for_each_class():
    for name, data_set in DATA_SETS.items():
        names = class_names(name, data_set.num_classes)
        assert len(names) == len(set(names)) == data_set.num_classes, name
        assert not any(text.startswith("class ") or text != text.strip() or not text for text in names), name
    assert class_names("ntu60", 60) == class_names("ntu120", 120)[:60]
    assert class_names("ntu60", 60)[8] == "standing up (from sitting position)"
    assert class_names("ui_prmd", 10)[6] == "shoulder abduction"
    assert class_names("pku_part1", 51)[0] == "bow" and class_names("demo", 10)[3] == "squat"


def test_other_classes_are_numbered():
    assert class_names("my own", 3) == ("class 0", "class 1", "class 2")
    assert class_names("ui_prmd", 12)[9:] == ("shoulder scaption", "class 10", "class 11")


# confusion


@pytest.mark.parametrize("seed", range(3))
def test_confusion_against_slow_python(seed):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 6, 80), rng.integers(0, 7, 80)
    matrix = confusion_matrix(labels, predictions, 7)
    pairs = list(zip(labels.tolist(), predictions.tolist(), strict=True))
    assert matrix.tolist() == [[pairs.count((i, j)) for j in range(7)] for i in range(7)]
    lines = describe_classes(matrix, "abcdefg")
    recognised = {i: (pairs.count((i, i)), sum(label == i for label, _ in pairs)) for i in range(6)}
    expected = {f"{100 * right / n:5.1f}  {right}/{n}  {i} {'abcdefg'[i]}" for i, (right, n) in recognised.items()}
    assert {line.strip().rjust(5) for line in lines[1:7]} == {line.strip().rjust(5) for line in expected}, (
        "no sample has class 6"
    )
    errors = {(pairs.count(pair), *pair) for pair in pairs if pair[0] != pair[1]}
    errors = sorted(errors, key=lambda e: (-e[0], e[1], e[2]))[:10]
    assert lines[8:] == [f"  {n}/{recognised[i][1]}  {i} {'abcdefg'[i]} -> {j} {'abcdefg'[j]}" for n, i, j in errors]


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
    assert lines[0] == "Acc@1 of each class, mean 98.3; the worst 10 of 60:" and len(lines) == 13
    assert lines[1] == "    0.0  0/3  7 sitting down"
    assert lines[-1] == "  3/3  7 sitting down -> 8 standing up (from sitting position)"


# stick figures


def count(image, colour):
    return int((image == np.array(colour)).all(axis=-1).sum())


def person(frames=16, bodies=2):
    """A clip (3, T, V, M) of one person; the second body is not there."""
    clip = np.zeros((3, frames, 25, bodies), np.float32)
    clip[..., 0] = np.random.default_rng(0).normal(size=(3, 1, 25))
    return clip


def test_a_joint_is_never_outside_its_cell():
    rng = np.random.default_rng(1)
    for frames in (rng.normal(size=(4, 2, 25, 3)) * 100, np.full((1, 1, 25, 3), 7.0), np.zeros((2, 2, 25, 3))):
        points = to_pixels(frames, border=6)
        there = points[frames.any(axis=(2, 3))]
        assert ((there >= 6 - 1e-6) & (there <= np.array(CELL) - 7 + 1e-6)).all()
    upright = np.zeros((1, 1, 25, 3))
    upright[0, 0, :2] = [[-1, 0, 0], [1, 0, 3]]  # the second joint is to the right and above
    first, second = to_pixels(upright)[0, 0, :2]
    assert second[0] > first[0] and second[1] < first[1]


def test_masked_frames_and_joints_are_absent():
    clip, nothing = person(), np.zeros(25, bool)
    frames = np.zeros(16, bool)
    whole = draw_strip(clip, nothing, frames)
    assert whole.shape == (CELL[1], LABEL + 16 * CELL[0], 3)
    frames[[3, 4]] = True
    masked = draw_strip(clip, nothing, frames)
    cells = [masked[:, LABEL + b * CELL[0] : LABEL + (b + 1) * CELL[0]] for b in range(16)]
    for b, cell in enumerate(cells):
        alone = count(cell, PALE) == CELL[0] * CELL[1]
        assert alone == (b in (3, 4)), f"frame {b}"
    assert np.array_equal(cells[0], whole[:, LABEL : LABEL + CELL[0]])
    left = np.array([i in (4, 5, 6, 7, 12, 13, 14, 15, 21, 22) for i in range(25)])
    one_sided = draw_strip(clip, left, np.zeros(16, bool))
    assert count(whole, COLOURS["left"]) > 100 and count(one_sided, COLOURS["left"]) == 0
    assert count(one_sided, COLOURS["right"]) > 100
    assert count(draw_strip(clip, ~nothing, np.zeros(16, bool))[:, LABEL:], (30, 30, 30)) == 0


def test_an_absent_body_is_not_drawn():
    none = np.zeros(25, bool), np.zeros(16, bool)
    assert np.array_equal(draw_strip(person(bodies=2), *none), draw_strip(person(bodies=1), *none))
    empty = draw_strip(np.zeros((3, 16, 25, 2), np.float32), *none)
    assert count(empty, WHITE) + count(empty, PALE) == empty.shape[0] * empty.shape[1]


def test_a_bone_has_its_length_in_pixels():
    clip = np.zeros((3, 16, 25, 1), np.float32)
    clip[:, :, :, 0] = np.array([1.0, 0, 1])[:, None, None]  # all joints in one place but one
    joint, _ = next(link for link in LINKS if link == (5, 4))
    clip[2, :, joint] = 3
    strip = draw_strip(clip, np.arange(25) == 6, np.zeros(16, bool))
    column = (strip[:, LABEL : LABEL + CELL[0]] == np.array(COLOURS["left"])).all(axis=-1).any(axis=1)
    assert np.flatnonzero(column).min() <= 10 and np.flatnonzero(column).max() >= CELL[1] - 12


def test_the_augmentations_of_a_sample_are_described():
    p = no_augmentation(torch.tensor([70]))
    assert describe_view(p, 0) == "frames 0 .. 70"
    p = ViewParameters(torch.tensor([3]), torch.tensor([64]), torch.tensor([[0.5, 21.4, 0.2]]), torch.tensor([True]),
                       torch.ones(1, 6), torch.ones(1, 25, dtype=torch.bool), torch.ones(1, 16, dtype=torch.bool))  # fmt: skip
    turned = "rotated 21\N{DEGREE SIGN} about y"
    assert describe_view(p, 0) == f"frames 3 .. 67\n{turned}\nleft and right swapped\nsheared\nmasked: joints, frames"
    assert not without_masks(p).joints.any() and not without_masks(p).blocks.any() and p.joints.all()


def test_views_are_shown_and_training_draws_as_before(data, tmp_path):
    dataset = SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", "train", slice(0, 2))  # one process's share of each batch
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        show_views(log, dataset, PretrainingViews("motion"), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    (image,) = events(log.folder).Images("views/pretraining")
    assert (image.width, image.height) == (LABEL + 16 * CELL[0], CLIPS * (3 * CELL[1] + 8))


# TensorBoard, report


def test_scalars_are_grouped(tmp_path):
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        log.metrics(0, **{"loss": 2.5, "loss/ti": 1.0, "acc1": 50.0, "lr": 0.1, "similarity/positive_ti": 0.5})
        log.metrics(1, **{"loss": 2.0, "bone/repeat1/acc1": 1.0})
        log.metrics(best_acc1=3.0)
    found = events(log.folder)
    groups = {"loss/total", "loss/ti", "accuracy/acc1", "accuracy/bone/repeat1/acc1", "training/lr", "similarity/positive_ti"}
    assert set(found.Tags()["scalars"]) == groups
    assert [(event.step, event.value) for event in found.Scalars("loss/total")] == [(0, 2.5), (1, 2.0)]


def test_a_report_leaves_text_heat_map_and_embeddings(tmp_path):
    labels, predictions = torch.arange(1200) % 10, torch.arange(1200) % 7
    x = torch.randn(1200, 70, generator=torch.Generator().manual_seed(0)) + 3
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        report_classes(log, "ui_prmd", 10, [f"clip\t{i}" for i in range(1200)], labels, predictions, x)
    text = (log.folder / "log.txt").read_text()
    assert "Acc@1 of each class, mean 10.5:" in text and "0/120  9 shoulder scaption" in text
    assert [event.step for event in events(log.folder).Images("confusion/test")] == [0]

    config = (log.folder / "projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(config, ProjectorConfig()).embeddings
    points = np.loadtxt(log.folder / embedding.tensor_path, delimiter="\t")
    heading, *rows = (log.folder / embedding.metadata_path).read_text().splitlines()
    assert heading == "class\tpredicted as\tcorrect\tlabel\tsample" and points.shape == (1000, 64) and len(rows) == 1000
    chosen = [int(row.split()[-1]) for row in rows]
    assert len(set(chosen)) == 1000 and all(row.split("\t")[3] == str(i % 10) for row, i in zip(rows, chosen, strict=True))
    unit = F.normalize(x[chosen[:50]], dim=1).numpy()
    np.testing.assert_allclose(points[:50] @ points[:50].T, unit @ unit.T, atol=0.1)  # 70 dimensions rotated to 64


@pytest.mark.parametrize("classes", [2, 120])
def test_the_heat_map_shows_each_cell(classes):
    matrix = np.diag(np.full(classes, 4))
    matrix[1] = 0
    matrix[0, 1] = 4
    image = draw_confusion(matrix)
    size = len(image) // classes
    cells = image[size // 2 :: size, size // 2 :: size]
    assert image.dtype == np.uint8 and image.shape == (size * classes, size * classes, 3) and len(image) <= 1320
    assert (cells[1] == WHITE).all() and tuple(cells[0, 0]) == tuple(cells[0, 1]) != BLUE
    assert classes == 2 or (tuple(cells[2, 2]) == BLUE and tuple(cells[2, 3]) == WHITE)
