"""What people look at: statistics of the contrast, class names, stick figures, TensorBoard, accuracies."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SIZES, metrics, newest, pretrain, retrieve
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pretraining
from engine.draw import draw_frames
from feeder.data_sets import DATA_SETS, class_names


def test_statistics_against_plain_numpy(data, here, monkeypatch):
    """Of an epoch of one step, at a temperature of 0.5."""
    found, inside = [], pretraining.train_step

    def train_step(net, *rest):
        found.append((net, inside(net, *rest)))
        return found[0][1]

    monkeypatch.setattr(pretraining, "train_step", train_step)
    pretrain(data, "--batch-size 32 --encoder-k 32 --encoder-t 0.5")
    ((net, (logits, losses)),), (line,) = found, metrics(newest())
    for pair, x in logits.items():
        cosine = x.detach().numpy() * 0.5
        first, rest = cosine[:, 0], cosine[:, 1:]
        assert line[f"loss/{pair}"] == pytest.approx(losses[pair].item(), rel=1e-5)
        assert line[f"accuracy/{pair}"] == pytest.approx(100 * (first > rest.max(1)).mean(), abs=1e-4)
        for name, values in dict(positive=first, negative=rest, hardest=rest.max(1)).items():
            assert line[f"similarity/{name}_{pair}"] == pytest.approx(values.mean(), abs=1e-5)
    for domain, keys in net.queues.items():
        keys = keys.numpy().astype(float)
        mean = keys.mean(axis=1)
        variances = np.linalg.svd(keys - mean[:, None], compute_uv=False) ** 2 / 32
        dimensions = variances.sum() ** 2 / (variances**2).sum()
        assert line[f"queue/mean_norm_{domain}"] == pytest.approx(np.linalg.norm(mean), abs=1e-5)
        assert line[f"queue/spread_{domain}"] == pytest.approx(np.sqrt(1 - mean @ mean), abs=1e-5)
        assert line[f"queue/dimensions_{domain}"] == pytest.approx(dimensions, rel=1e-4)


def test_every_data_set_has_a_name_for_each_class():
    for name in DATA_SETS:
        names = class_names(name, DATA_SETS[name].num_classes)
        assert len(names) == len(set(names)) == DATA_SETS[name].num_classes, name
        assert not any(text.startswith("class ") or text != text.strip() or not text for text in names), name
    assert class_names("ntu60", 60) == class_names("ntu120", 120)[:60]
    assert class_names("ntu60", 60)[8] == "standing up (from sitting position)"
    assert class_names("ui_prmd", 12)[9:] == ("shoulder scaption", "class 10", "class 11")


def test_a_report_has_accuracies_confusions_heat_map_and_embeddings(data, here):
    retrieve(data, f"{SIZES} --random-encoder --save-features")
    found = np.load(newest() / "predictions.npz")
    labels, predicted, names = found["labels"], found["predictions"], class_names("ntu60", 60)

    # text: worst classes first, then most frequent errors, ties by label
    text = (newest() / "log.txt").read_text()
    correct = [int(((labels == i) & (predicted == i)).sum()) for i in range(4)]
    order = sorted(range(4), key=lambda i: correct[i])
    lines = [f"Acc@1 of each class, mean {25 * np.mean(correct):.1f}:"]
    lines += [f"  {25 * correct[i]:5.1f}  {correct[i]}/4  {i} {names[i]}" for i in order]
    wrong = [(i, j) for i, j in zip(labels.tolist(), predicted.tolist(), strict=True) if i != j]
    pairs = sorted(set(wrong), key=lambda pair: (-wrong.count(pair), pair))
    lines += ["most confused (clips, class -> predicted as):"]
    lines += [f"  {wrong.count((i, j))}/4  {i} {names[i]} -> {j} {names[j]}" for i, j in pairs[:10]]
    assert "\n".join(lines) + "\n" in text and len(pairs) > 1

    # TensorBoard: the heat map of 60 classes; the directions of the features, to scale
    (image,) = EventAccumulator(str(newest())).Reload().Images("confusion/test")
    assert image.width == image.height == 11 * 60
    points = np.loadtxt(next(newest().rglob("tensors.tsv")), delimiter="\t")
    heading, *rows = next(newest().rglob("metadata.tsv")).read_text().splitlines()
    assert heading == "class\tpredicted as\tsample" and (newest() / "projector_config.pbtxt").is_file()
    chosen = [found["names"].tolist().index(row.split("\t")[2]) for row in rows]
    assert sorted(chosen) == list(range(16))
    features = torch.from_numpy(np.load(newest() / "features_joint_val.npz")["features"])
    unit = F.normalize(features[chosen], dim=1).numpy()
    np.testing.assert_allclose(points @ points.T, unit @ unit.T, atol=1e-4)
    for i, row in zip(chosen, rows, strict=True):
        assert row.split("\t")[:2] == [names[labels[i]], names[predicted[i]]]


def test_a_bone_has_its_place_and_length():
    """One bone, from the spine to the neck, one metre up and along x: a diagonal of the picture."""
    clip = np.zeros((3, 1, 25, 1), np.float32)
    clip[:, 0, 20, 0], clip[:, 0, 2, 0] = (0.5, 1, 0.5), (1.5, 1, 1.5)
    (image,) = draw_frames(clip, (100, 100))
    rows, columns = np.nonzero((image < 200).any(axis=2))
    assert abs(rows + columns - 99).max() <= 3 and np.ptp(rows) > 40


def test_masked_and_absent_joints_frames_and_bodies_are_not_drawn():
    def drawn(clip):
        """Pixels of the left and of the right side, blue and orange, in each frame."""
        red, _, blue = np.moveaxis(np.stack(draw_frames(clip, (76, 96))).astype(int), -1, 0)
        return (blue - red > 100).sum(axis=(1, 2)), (red - blue > 100).sum(axis=(1, 2))

    whole = np.random.default_rng(0).standard_normal((3, 4, 25, 2)).astype(np.float32)
    masked, one_sided, one_body = whole.copy(), whole.copy(), whole.copy()
    masked[:, [1, 2]] = 0
    one_sided[:, :, [4, 5, 6, 7, 12, 13, 14, 15, 21, 22]] = 0
    one_body[..., 1] = 0
    left, right = drawn(whole)
    assert (left > 50).all() and (right > 50).all() and not np.any(drawn(0 * whole))
    for pixels in drawn(masked):
        assert (pixels > 0).tolist() == [True, False, False, True]
    assert not drawn(one_sided)[0].any() and (drawn(one_sided)[1] > 50).all()
    assert drawn(one_body)[0].sum() < left.sum()
