"""What people look at: statistics of the contrast, class names, confusion, pictures, projector, report."""

import math
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.confusion import class_accuracies, confused_pairs, confusion_matrix, describe
from engine.confusion_image import cell_size, draw_confusion, shade, shorten
from engine.contrast_statistics import ContrastStatistics, step_statistics
from engine.projector import main_axes, write_projector
from engine.report import report_classes
from engine.runlog import Run, RunLog
from engine.stick_figures import (
    CELL,
    CLIPS,
    COLOURS,
    LABEL,
    PALE,
    WHITE,
    draw_strip,
    neutral,
    place,
    show_views,
    told,
    unmasked,
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
    figures = step_statistics(logits, net.loss(logits), queues, net.T)
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


def test_statistics_tell_collapse_from_an_even_queue():
    even = torch.cat([torch.eye(5), -torch.eye(5)], dim=1)  # the keys point along every axis, both ways
    collapsed = F.normalize(torch.ones(5, 1), dim=0).expand(5, 10)
    queues = {"t": even, "s": collapsed}
    figures = {name: float(value) for name, value in step_statistics({}, {}, queues, 0.2).items()}
    assert figures["queue/mean_norm_t"] == 0 and figures["queue/spread_t"] == pytest.approx(1)
    assert figures["queue/dimensions_t"] == pytest.approx(5)
    assert figures["queue/mean_norm_s"] == pytest.approx(1) and figures["queue/spread_s"] == pytest.approx(0, abs=1e-6)


def test_statistics_are_means_over_the_logged_steps():
    statistics = ContrastStatistics(T=0.2)
    assert statistics.means() == {}
    for loss in (1.0, 3.0):
        statistics.update({"ti": torch.zeros(2, 3)}, {"ti": torch.tensor(loss, requires_grad=True)}, {})
    assert statistics.means()["loss/ti"] == 2
    assert statistics.means() == {}, "an epoch starts afresh"


# class names


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
    accuracies = class_accuracies(matrix)
    for i in range(6):
        mine = [p for label, p in pairs if label == i]
        assert accuracies[i] == pytest.approx(100 * mine.count(i) / len(mine))
    assert np.isnan(accuracies[6]), "no clip has class 6"
    errors = {(pairs.count(pair), *pair) for pair in pairs if pair[0] != pair[1]}
    assert confused_pairs(matrix, 5) == sorted(errors, key=lambda e: (-e[0], e[1], e[2]))[:5]


def test_description_of_few_classes_and_of_many():
    matrix = np.array([[4, 0, 0], [1, 1, 2], [0, 0, 0]])
    assert describe(matrix, ("a", "b", "class 2")) == [
        "Acc@1 of each class, mean 62.5:",
        "   25.0  1/4  1 b",
        "  100.0  4/4  0 a",
        "most confused (clips, class -> taken for):",
        "  2/4  1 b -> class 2",
        "  1/4  1 b -> 0 a",
    ]
    many = np.eye(60, dtype=int)
    many[7] = 0
    many[7, 8] = 3
    lines = describe(many, class_names("ntu60", 60))
    assert lines[0] == "Acc@1 of each class, mean 98.3; the worst 10 of 60:" and len(lines) == 13
    assert lines[1] == "    0.0  0/3  7 sitting down"
    assert lines[-1] == "  3/3  7 sitting down -> 8 standing up (from sitting position)"


@pytest.mark.parametrize("classes", [2, 10, 51, 120])
def test_the_confusion_image_shows_each_cell(classes):
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 3, (classes, classes))
    matrix[1] = 0
    matrix[1, 0] = 5
    size = cell_size(classes)
    image = draw_confusion(matrix, tuple(f"name {i}" for i in range(classes)))
    assert image.dtype == np.uint8 and max(image.shape[:2]) < 2000
    side = size * classes
    top, left = image.shape[0] - 10 - side, image.shape[1] - 10 - side  # the margin is 10
    corners = image[top + 2 : top + side : size, left + 2 : left + side : size]  # beside the numbers in the cells
    for i in range(classes):
        for j in range(classes):
            assert tuple(corners[i, j]) == shade(matrix[i, j] / matrix[i].sum())
    assert tuple(corners[1, 0]) == (8, 81, 156) and tuple(corners[1, 1]) == WHITE


def test_long_names_are_cut_in_the_middle():
    assert shorten("short") == "short"
    cut = shorten("finger-guessing game (playing rock-paper-scissors)")
    assert len(cut) <= 38 and cut.startswith("finger-guessing") and cut.endswith("scissors)")


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
        points = place(frames, border=6)
        there = points[frames.any(axis=(2, 3))]
        assert ((there >= 6 - 1e-6) & (there <= np.array(CELL) - 7 + 1e-6)).all()
    upright = np.zeros((1, 1, 25, 3))
    upright[0, 0, :2] = [[-1, 0, 0], [1, 0, 3]]  # the second joint is to the right and above
    first, second = place(upright)[0, 0, :2]
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


def test_what_fell_on_a_sample_is_told():
    p = neutral(torch.tensor([70]))
    assert told(p, 0) == "frames 0 .. 70"
    p = ViewParameters(torch.tensor([3]), torch.tensor([64]), torch.tensor([[0.5, 21.4, 0.2]]), torch.tensor([True]),
                       torch.ones(1, 6), torch.ones(1, 25, dtype=torch.bool), torch.ones(1, 16, dtype=torch.bool))  # fmt: skip
    turned = "rotated 21\N{DEGREE SIGN} about y"
    assert told(p, 0) == f"frames 3 .. 67\n{turned}\nleft and right swapped\nsheared\nmasked: joints, frames"
    assert not unmasked(p).joints.any() and not unmasked(p).blocks.any() and p.joints.all()


def test_views_are_shown_and_training_draws_as_before(data, tmp_path):
    dataset = SkeletonDataset(data / "NTU-RGB-D-60-AGCN" / "xsub", "train", slice(0, 2))  # one process's share of each batch
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        show_views(log, dataset, PretrainingViews("motion"), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    (image,) = events(log.folder).Images("views/pretraining")
    assert (image.width, image.height) == (LABEL + 16 * CELL[0], CLIPS * (3 * CELL[1] + 8))


# TensorBoard, projector, report


def test_scalars_are_grouped(tmp_path):
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        log.metrics(0, **{"loss": 2.5, "loss/ti": 1.0, "acc1": 50.0, "lr": 0.1, "similarity/positive_ti": 0.5})
        log.metrics(1, **{"loss": 2.0, "bone/repeat1/acc1": 1.0})
        log.metrics(best_acc1=3.0)
    found = events(log.folder)
    groups = {"loss/total", "loss/ti", "accuracy/acc1", "accuracy/bone/repeat1/acc1", "training/lr", "similarity/positive_ti"}
    assert set(found.Tags()["scalars"]) == groups
    assert [(event.step, event.value) for event in found.Scalars("loss/total")] == [(0, 2.5), (1, 2.0)]


def test_main_axes_keep_the_cosines():
    x = torch.randn(30, 50, generator=torch.Generator().manual_seed(0)) + 3
    axes, cosines = main_axes(x), F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    assert axes.shape == (30, 30) and torch.allclose(axes @ axes.T, cosines, atol=1e-5)
    values = np.linalg.svd(F.normalize(x, dim=1).numpy(), compute_uv=False)
    assert np.allclose(axes.norm(dim=0), values, atol=1e-4)
    assert main_axes(x, 4).shape == (30, 4) and torch.allclose(main_axes(x, 4), axes[:, :4])


def test_the_projector_finds_features_and_labels(tmp_path):
    n = 1200
    x = torch.randn(n, 70, generator=torch.Generator().manual_seed(0))
    write_projector(tmp_path, x, {"class": [f"class\t{i % 7}" for i in range(n)], "sample": list(range(n))})
    config = (tmp_path / "projector_config.pbtxt").read_text()
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    (embedding,) = text_format.Parse(config, ProjectorConfig()).embeddings
    points = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    heading, *labels = (tmp_path / embedding.metadata_path).read_text().splitlines()
    assert points.shape == (1000, 64) and len(labels) == 1000 and heading == "class\tsample"
    chosen = [int(line.split("\t")[1]) for line in labels]
    assert all(line.split("\t")[0] == f"class {i % 7}" for line, i in zip(labels, chosen, strict=True))
    assert len(set(chosen)) == 1000
    cosine = F.normalize(x[chosen[:2]], dim=1).prod(dim=0).sum().item()
    assert points[0] @ points[1] == pytest.approx(cosine, abs=0.1), "70 dimensions turned to 64"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_report_leaves_text_image_and_features(tmp_path):
    labels, predictions = torch.tensor([0, 1, 1, 9]), torch.tensor([0, 1, 2, 9])
    names = ["a", "b\N{LATIN SMALL LETTER E WITH ACUTE}", "c", "d"]
    with RunLog(str(tmp_path), RUN, Namespace()) as log:
        report_classes(log, "ui_prmd", 10, names, labels, predictions, torch.randn(4, 5))
    text = (log.folder / "log.txt").read_text()
    assert "1/2  1 hurdle step" in text and "  1/2  1 hurdle step -> 2 inline lunge" in text
    assert [event.step for event in events(log.folder).Images("confusion/test")] == [0]
    assert (log.folder / "projector_labels.tsv").read_text().splitlines()[0] == "class\ttaken for\tright\tlabel\tsample"
