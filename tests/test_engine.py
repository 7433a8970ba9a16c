"""Accuracies, nearest neighbours, learning rates, meters, checkpoints, run folders."""

import json
import math
import os
import random
from argparse import Namespace
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from conftest import Golden

from engine.checkpoint import get_encoder, load_checkpoint, load_weights, restore_optimizer, save_checkpoint
from engine.device import pick_device
from engine.meters import Meter, progress_line
from engine.metrics import accuracy, knn_predict
from engine.results import table
from engine.runlog import NoLog, Run, RunLog
from engine.training import learning_rate, random_states, restore_random_states, seed_everything
from feeder.cli import UserError
from model import DownstreamModel, Encoder, SCDNet
from model.reference import to_reference

SMALL = dict(hidden_size=16, num_head=2, num_layer=1, channels=4)
RUN = Run("linear", "ntu60", "cross_subject", "joint")


def test_knn_golden():
    golden = Golden("knn")
    for k in (1, 2, 5, 20):
        ours = knn_predict(golden["gallery"], golden["gallery_labels"], golden["query"], k, chunk=50)
        assert torch.equal(ours, golden[f"pred_k{k}"])


@pytest.mark.parametrize("seed", range(5))
def test_knn_against_plain_numpy(seed):
    rng = np.random.default_rng(seed)
    gallery, query, labels = rng.normal(size=(30, 5)), rng.normal(size=(11, 5)), rng.integers(-3, 4, 30)
    for k in (1, 2, 3, 30):
        expected = []
        for q in query:
            cosine = [g @ q / np.linalg.norm(g) / np.linalg.norm(q) for g in gallery]
            votes = Counter(labels[np.argsort(cosine)[::-1][:k]].tolist())
            expected.append(min(label for label in votes if votes[label] == max(votes.values())))
        ours = knn_predict(*map(torch.from_numpy, (gallery, labels, query)), k, chunk=4)
        assert ours.tolist() == expected, f"seed {seed}, k {k}"


@pytest.mark.parametrize("k", [0, 31])
def test_knn_refuses_k_beyond_the_gallery(k):
    with pytest.raises(ValueError, match="gallery of 30"):
        knn_predict(torch.randn(30, 2), torch.zeros(30, dtype=torch.long), torch.randn(3, 2), k)


def test_accuracy_counts_the_k_best_scores():
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [2, 3, 1], [1, 2, 3]])
    labels = torch.tensor([0, 0, 0, 1])
    assert accuracy(scores, labels) == 25 and accuracy(scores, labels, 2) == 75 and accuracy(scores, labels, 5) == 100


def test_learning_rates_drop_at_milestones_or_along_a_cosine():
    assert [learning_rate(2, e, 80, [50, 70]) for e in (0, 49, 50, 69, 70)] == pytest.approx([2, 2, 0.2, 0.2, 0.02])
    assert learning_rate(1, 20, 40, [], cos=True) == pytest.approx(0.5) and learning_rate(1, 0, 40, [5], cos=True) == 1


def test_progress_line_is_in_the_references_format():
    meter = Meter("Loss", ".4e")
    meter.update(2.0, 3)
    meter.update(4.0, 1)
    assert progress_line(0, 0, 40, [meter]) == "Epoch: [0][ 0/40]\tLoss 4.0000e+00 (2.5000e+00)"


def test_seed_and_random_states():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    assert seed_everything(3) == 3
    first, states = draw(), random_states()
    second = draw()
    seed_everything(3)
    assert draw() == first
    restore_random_states(states)
    assert draw() == second
    assert seed_everything(None) != seed_everything(None)


def test_random_states_are_plain(tmp_path):
    save_checkpoint(tmp_path / "x.tar", {"state_dict": {}, "random": random_states()})
    restore_random_states(load_checkpoint(tmp_path / "x.tar")["random"])


def test_device_and_gpu_must_agree():
    with pytest.raises(UserError, match="contradict"):
        pick_device("cpu", gpu=0)


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99"])
def test_an_absent_device_is_named(name):
    with pytest.raises(UserError, match=name):
        pick_device(name)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/scdnet-was-here",)


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"state_dict": {}, "x": Malicious()}, tmp_path / "evil.tar")
    with pytest.raises(UserError, match="more than tensors and plain types"):
        load_checkpoint(tmp_path / "evil.tar")
    assert not os.path.exists("/tmp/scdnet-was-here")


def test_damaged_checkpoints_are_one_line(tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, {"state_dict": Encoder(**SMALL).state_dict()})
    whole = path.read_bytes()
    rng = random.Random(0)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(10)] + [b"", b"no checkpoint", whole[:-1]]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)
    for content in ({}, {"state_dict": 3}, {"state_dict": {1: 2}}, [1]):
        torch.save(content, path)
        with pytest.raises(UserError, match="holds no 'state_dict'"):
            load_checkpoint(path)
    save_checkpoint(path, {"state_dict": Encoder(**SMALL).state_dict(), "sizes": None})
    with pytest.raises(UserError, match="no encoder"):
        get_encoder(path, {})[0]
    with pytest.raises(UserError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "elsewhere")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, {"state_dict": {}, "epoch": 1})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(path, {"state_dict": {}, "epoch": 2})
    assert load_checkpoint(path)["epoch"] == 1 and os.listdir(tmp_path) == ["checkpoint.pth.tar"]


def test_an_encoder_is_found_in_each_kind_of_checkpoint(tmp_path):
    encoder = Encoder(**SMALL)
    net, downstream = SCDNet(encoder, dim=8, K=4), DownstreamModel(encoder, 5)
    path = tmp_path / "x.tar"
    for state_dict in (net.state_dict(), downstream.state_dict()):
        for content in (state_dict, to_reference(state_dict), {f"module.{n}": t for n, t in to_reference(state_dict).items()}):
            save_checkpoint(path, {"state_dict": content})
            loaded = get_encoder(path, {"num_head": 2})[0]
            assert all(torch.equal(t, encoder.state_dict()[name]) for name, t in loaded.state_dict().items())
            assert loaded.sizes == encoder.sizes
    save_checkpoint(path, {"state_dict": net.state_dict(), "sizes": net.sizes})
    assert get_encoder(path, {})[0].sizes["num_head"] == 2
    with pytest.raises(UserError, match="has hidden_size 16, not 32"):
        get_encoder(path, {"hidden_size": 32})[0]
    save_checkpoint(path, {"state_dict": {"fc.weight": torch.zeros(2, 2)}})
    with pytest.raises(UserError, match="no encoder"):
        get_encoder(path, {})[0]


def test_weights_load_wholly_or_not_at_all():
    own, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3).state_dict()
    before = own.weight.clone()
    for state_dict, message in [
        ({"weight": other["weight"]}, "lacks bias"),
        (other | {"extra": torch.zeros(1)}, "has extra"),
        (other | {"bias": torch.zeros(4)}, r"bias is \(4,\), this model's \(3,\)"),
    ]:
        with pytest.raises(UserError, match=message):
            load_weights(own, state_dict, "x.tar")
        assert torch.equal(own.weight, before)


def test_a_references_momentum_is_taken_over(tmp_path):
    net = SCDNet(SMALL, dim=8, K=4)
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.1, 0.9)
    sum(net.loss(net(torch.randn(4, 3, 64, 25, 2), torch.randn(4, 3, 64, 25, 2))).values()).backward()
    optimizer.step()
    buffers = {name: optimizer.state[p]["momentum_buffer"] for name, p in net.encoder_q.named_parameters()}
    theirs = to_reference(net.state_dict())
    momentum = to_reference({f"encoder_q.{name}": buffer for name, buffer in buffers.items()})
    order = [name for name in theirs if name in momentum]  # as the reference's parameters stand, queues first and left out
    state = {i: {"momentum_buffer": momentum[name]} for i, name in enumerate(order)}
    save_checkpoint(tmp_path / "x.tar", {"epoch": 7, "state_dict": theirs, "optimizer": {"state": state, "param_groups": []}})

    checkpoint = load_checkpoint(tmp_path / "x.tar")
    fresh = SCDNet(SMALL, dim=8, K=4)
    load_weights(fresh, checkpoint["state_dict"], "x.tar")
    resumed = torch.optim.SGD(fresh.encoder_q.parameters(), 0.1, 0.9)
    restore_optimizer(resumed, fresh, checkpoint, "x.tar")
    for name, p in fresh.encoder_q.named_parameters():
        assert torch.equal(resumed.state[p]["momentum_buffer"], buffers[name]), name


def test_a_resumed_optimiser_keeps_the_flags_of_the_run(tmp_path):
    layer = torch.nn.Linear(2, 1)
    before = torch.optim.SGD(layer.parameters(), 0.1, 0.9, weight_decay=0.5)
    layer(torch.ones(1, 2)).sum().backward()
    before.step()
    after = torch.optim.SGD(layer.parameters(), 0.2, 0.8, weight_decay=0.1)
    restore_optimizer(after, layer, {"optimizer": before.state_dict()}, "x.tar")
    (group,) = after.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.2, 0.8, 0.1)
    assert torch.equal(after.state[layer.weight]["momentum_buffer"], before.state[layer.weight]["momentum_buffer"])


def test_a_references_linear_layer_loads_with_its_momentum(tmp_path):
    model = DownstreamModel(SMALL, 3)
    state = {0: {"momentum_buffer": torch.ones(3, 32)}, 1: {"momentum_buffer": torch.ones(3)}}  # of fc alone
    content = {"epoch": 2, "state_dict": to_reference(model.state_dict()), "optimizer": {"state": state, "param_groups": []}}
    save_checkpoint(tmp_path / "x.tar", content)
    checkpoint = load_checkpoint(tmp_path / "x.tar")
    optimizer = torch.optim.SGD(model.fc.parameters(), 1.0, 0.9)
    restore_optimizer(optimizer, model, checkpoint, "x.tar")
    assert torch.equal(optimizer.state[model.fc.weight]["momentum_buffer"], torch.ones(3, 32))
    assert get_encoder(tmp_path / "x.tar", {"num_head": 2})[0].sizes == model.encoder.sizes


def test_foreign_folders_do_not_disturb_the_table(tmp_path):
    for i, (options, metrics) in enumerate([("", "{}"), ("a: 1", "3"), ("run: 3", '{"last_acc1": 1}'), ("[", "x")]):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "options.yaml").write_text(options)
        (tmp_path / str(i) / "metrics.jsonl").write_text(metrics)
    with pytest.raises(UserError, match="no finished evaluation"):
        table(tmp_path)


def test_a_run_folder_and_the_table_of_results(tmp_path):
    options = Namespace(seed=3, random_encoder=False, lr=2.0)
    log = RunLog(str(tmp_path), RUN, options)
    log.print("a line")
    log.metrics(0, acc1=50.0)
    log.metrics(1, acc1=60.0)
    assert "no finished evaluation" in str(pytest.raises(UserError, table, tmp_path).value)
    log.metrics(best_acc1=60.0, last_acc1=59.0)
    log.close()
    assert log.folder.name.startswith("linear_ntu60_cross_subject_joint_")
    assert (log.folder / "log.txt").read_text() == "a line\n"
    record = yaml.safe_load((log.folder / "options.yaml").read_text())
    assert record["options"]["lr"] == 2.0 and {"command", "git_commit", "torch", "python"} <= record.keys()
    assert json.loads((log.folder / "metrics.jsonl").read_text().splitlines()[0]) == {"epoch": 0, "acc1": 50.0}
    assert any(name.startswith("events.out.tfevents") for name in os.listdir(log.folder))
    assert "| linear | ntu60 | cross_subject | joint | pre-trained | 3 | 59.0 | 60.0 | 86.6 |" in table(tmp_path)

    again = RunLog(str(tmp_path), RUN, options, folder=str(log.folder), start_epoch=1)
    again.metrics(1, acc1=61.0)
    again.close()
    lines = [json.loads(line) for line in (log.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": 0, "acc1": 50.0}, {"epoch": 1, "acc1": 61.0}]
    assert RunLog(str(tmp_path), RUN, options).folder != log.folder
    assert math.isfinite(lines[-1]["acc1"])


def test_no_log_keeps_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with NoLog() as log:
        log.print("a line")
        log.metrics(0, acc1=50.0)
        log.image("a/picture", np.zeros((4, 4, 3), np.uint8))
        log.arrays("predictions", labels=np.zeros(3))
        log.close()
    assert {name for name in vars(RunLog) if name[0] != "_"} <= vars(NoLog).keys(), "whatever a log can do"
    assert not capsys.readouterr().out and not os.listdir(tmp_path)
