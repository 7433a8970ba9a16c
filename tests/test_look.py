"""What people look at: statistics of the contrast, class names, stick figures, TensorBoard, accuracies."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.draw import CELL, COLOURS, TEXT, describe_view, draw_strip
from engine.meters import contrast_statistics
from engine.runlog import Run, RunLog
from engine.visualisation import describe_classes, report_classes
from feeder.augmentations import ViewParameters
from feeder.data_sets import DATA_SETS, class_names
from model import SCDNet

RUN = Run("linear", "ui_prmd", "cross_subject", "joint")


def open_log(folder):
    return RunLog(RUN, SimpleNamespace(log_dir=str(folder)), {})


def events(log):
    return EventAccumulator(str(log.folder)).Reload()


def test_statistics_against_plain_numpy():
    torch.manual_seed(0)
    net = SCDNet(SMALL, dim=8, K=12, T=0.5)
    queues = {domain: keys.clone() for domain, keys in net.queues.items()}
    with torch.no_grad():
        logits = net.eval()(*torch.randn(2, 4, 3, 16, 25, 2))
    found = contrast_statistics(logits, net.loss(logits), queues, net.T)
    for pair, x in logits.items():
        cosine = x.numpy() * 0.5
        first, rest = cosine[:, 0], cosine[:, 1:]
        names = ("accuracy", "similarity/positive", "similarity/negative", "similarity/hardest")
        means = 100 * (first > rest.max(1)).mean(), first.mean(), rest.mean(), rest.max(1).mean()
        for name, mean in zip(names, means, strict=True):
            assert found[f"{name}{'/' if name == 'accuracy' else '_'}{pair}"] == pytest.approx(mean, abs=1e-6)
    for domain, keys in queues.items():
        keys = keys.numpy().astype(float)
        mean = keys.mean(axis=1)
        variances = np.linalg.svd(keys - mean[:, None], compute_uv=False) ** 2 / 12
        dimensions = variances.sum() ** 2 / (variances**2).sum()
        assert found[f"queue/mean_norm_{domain}"] == pytest.approx(np.linalg.norm(mean), abs=1e-5)
        assert found[f"queue/spread_{domain}"] == pytest.approx(math.sqrt(1 - mean @ mean), abs=1e-5)
        assert found[f"queue/dimensions_{domain}"] == pytest.approx(dimensions, rel=1e-4)


def test_every_data_set_has_a_name_for_each_class():
    for name in DATA_SETS:
        names = class_names(name, DATA_SETS[name].num_classes)
        assert len(names) == len(set(names)) == DATA_SETS[name].num_classes, name
        assert not any(text.startswith("class ") or text != text.strip() or not text for text in names), name
    assert class_names("ntu60", 60) == class_names("ntu120", 120)[:60]
    assert class_names("ntu60", 60)[8] == "standing up (from sitting position)"
    assert class_names("ui_prmd", 10)[6] == "shoulder abduction" and class_names("pku_part1", 51)[0] == "bow"
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


def frames(clip):
    """The images of the 16 frames of a clip."""
    strip = draw_strip(clip, "")
    assert strip.shape == (CELL[1], TEXT + 16 * CELL[0], 3) and (strip[:, :TEXT] == 255).all()
    return np.split(strip[:, TEXT:], 16, axis=1)


def count(clip, side):
    return sum((frame == COLOURS[side]).all(axis=-1).sum() for frame in frames(clip))


def test_masked_and_absent_joints_frames_and_bodies_are_not_drawn():
    whole = np.random.default_rng(0).standard_normal((3, 16, 25, 2)).astype(np.float32)
    assert all((frame != 255).any() for frame in frames(whole))
    assert all(count(whole, side) > 100 for side in COLOURS)
    masked, one_sided, one_body = whole.copy(), whole.copy(), whole.copy()
    masked[:, [3, 4]] = 0
    assert [i for i, frame in enumerate(frames(masked)) if (frame == 255).all()] == [3, 4]
    one_sided[:, :, [4, 5, 6, 7, 12, 13, 14, 15, 21, 22]] = 0
    assert count(one_sided, "left") == 0 and count(one_sided, "right") > 100
    one_body[..., 1] = 0
    assert count(one_body, "left") < count(whole, "left")
    assert all((frame == 255).all() for frame in frames(0 * whole))


def test_the_augmentations_of_a_sample_are_described():
    turned = torch.tensor([[0.5, 21.4, 0.2]])
    masks = [torch.ones(1, n, dtype=torch.bool) for n in (25, 16)]
    p = ViewParameters(
        torch.tensor([3]), torch.tensor([64]), turned, torch.tensor([True]), torch.ones(1, 6), *masks
    )
    words = ["frames 3 .. 66", "rotated 21\N{DEGREE SIGN} about y", "left and right swapped", "sheared"]
    assert describe_view(p, 0).splitlines() == [*words, "masked joints", "masked frames"]
    none = ViewParameters(p.start, p.length, *(torch.zeros_like(x) for x in p[2:]))
    assert describe_view(none, 0) == "frames 3 .. 66"


def test_a_report_leaves_text_scalars_heat_map_and_embeddings(tmp_path):
    labels, predictions = torch.arange(1200) % 10, torch.arange(1200) % 7
    x = torch.randn(1200, 70, generator=torch.Generator().manual_seed(0)) + 3
    with open_log(tmp_path) as log:
        test = SimpleNamespace(names=[f"clip\t{i}" for i in range(1200)], labels=labels.numpy())
        report_classes(log, test, predictions, x)
        for epoch in range(2):
            log.metrics(epoch, **{"loss": 2.5 - epoch, "loss/ti": 1.0, "bone/repeat1/acc1": 50.0})
        log.metrics(best_acc1=3.0)
    text = (log.folder / "log.txt").read_text()
    assert "Acc@1 of each class, mean 10.5:" in text and "0/120  9 shoulder scaption" in text
    (image,) = events(log).Images("confusion/test")
    assert image.width == image.height == 110
    assert {"epoch/loss", "loss/ti", "bone/repeat1/acc1"} <= set(events(log).Tags()["scalars"])
    assert [(event.step, event.value) for event in events(log).Scalars("epoch/loss")] == [(0, 2.5), (1, 1.5)]

    points = np.loadtxt(next(log.folder.rglob("tensors.tsv")), delimiter="\t")
    heading, *rows = next(log.folder.rglob("metadata.tsv")).read_text().splitlines()
    assert heading == "class\tpredicted as\tsample" and points.shape == (1000, 64) and len(rows) == 1000
    chosen = [int(row.split()[-1]) for row in rows]
    assert len(set(chosen)) == 1000 and (log.folder / "projector_config.pbtxt").is_file()
    unit = F.normalize(x[chosen[:50]], dim=1).numpy()  # 70 dimensions rotated to 64
    np.testing.assert_allclose(points[:50] @ points[:50].T, unit @ unit.T, atol=0.1)
