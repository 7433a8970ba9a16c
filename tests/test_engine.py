"""Learning rates, checkpoints of all kinds, damaged ones, missing packages."""

import os
import random
import sys

import pytest
import torch
from conftest import SIZES, SMALL, assert_same, classify, failure, metrics, newest, pretrain, retrieve, saved

import pretraining
from engine.checkpoint import load_checkpoint
from engine.encoders import open_encoder
from feeder.cli import UserError
from model import DownstreamModel, Encoder, SCDNet
from model.reference import to_reference


@pytest.mark.parametrize(
    "flags, expected",
    [
        ("--lr 2 --epochs 6 --schedule 2 5", [2, 2, 0.2, 0.2, 0.2, 0.02]),
        ("--lr 1 --epochs 4 --cos", [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        ("--lr 5 --epochs 7 --schedule 6 --warmup-epochs 1 5 --warmup-lr 1", [1, 1, 2, 3, 4, 5, 0.5]),
        ("--lr 4 --epochs 3 --schedule --warmup-epochs 0 2 --warmup-lr 0", [0, 2, 4]),
    ],
)
def test_learning_rates(data, here, flags, expected):
    classify(data, f"{SIZES} --random-encoder {flags}")
    assert [line["lr"] for line in metrics(newest())[:-1]] == pytest.approx(expected)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch was-here",)


def test_a_checkpoint_cannot_run_code(here):
    torch.save({"state_dict": {}, "x": Malicious()}, "evil.tar")
    with pytest.raises(UserError, match="more than tensors and plain types"):
        load_checkpoint("evil.tar")
    assert os.listdir() == ["evil.tar"]


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    """Truncated, empty, other files; single flipped bits, which torch itself would load as other weights."""
    path, rng = tmp_path / "checkpoint.pth.tar", random.Random(0)
    torch.save({"state_dict": Encoder(**SMALL).state_dict()}, path)
    whole, state_dict = path.read_bytes(), load_checkpoint(path)["state_dict"]
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(10)] + [
        b"",
        b"no checkpoint",
        b"being written",
        whole[:-1],
    ]
    for _ in range(40):
        position, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        damaged.append(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
    for case, content in enumerate(damaged):
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path)["state_dict"]
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:  # a bit between the entries of the archive
            assert case >= 13, case
            assert_same(loaded, state_dict)


def test_an_encoder_is_found_in_each_kind_of_checkpoint(tmp_path):
    """Of pre-training, of a classifier; ours, the reference's; bare, parallel, compiled."""
    encoder, path = Encoder(**SMALL), tmp_path / "x.tar"
    ours, classifier = SCDNet(encoder, dim=8, K=4).state_dict(), DownstreamModel(encoder, 5).state_dict()
    theirs = to_reference(ours)
    inside = {n.replace("encoder.", "encoder._orig_mod.module."): t for n, t in ours.items()}
    found = [ours, {"model": theirs}, inside, classifier, to_reference(classifier)]
    found += [{f"{prefix}{n}": t for n, t in theirs.items()} for prefix in ("module.", "_orig_mod.")]
    for content in found + [{"state_dict": content} for content in found if "model" not in content]:
        torch.save(content, path)
        assert_same(dict(open_encoder(path)[0].state_dict()), dict(encoder.state_dict()))


def test_a_references_momentum_is_taken_over(data, here, monkeypatch):
    """Its optimiser numbers the parameters in the order of its own state dict, without the queues."""
    pretrain(data)
    ours, net = saved("ck"), SCDNet(SMALL, dim=8, K=24)
    names = [f"encoder_q.{name}" for name, _ in net.encoder_q.named_parameters()]
    buffers = [ours["optimizer"]["state"][i]["momentum_buffer"] for i in range(len(names))]
    theirs, momentum = to_reference(ours["state_dict"]), to_reference(dict(zip(names, buffers, strict=True)))
    state = {
        i: {"momentum_buffer": momentum[name]} for i, name in enumerate(n for n in theirs if n in momentum)
    }
    content = {"epoch": 1, "state_dict": theirs, "optimizer": {"state": state, "param_groups": []}}
    torch.save(content, "reference.tar")
    retrieve(data, "--pretrained reference.tar")

    def train_step(net, optimizer, *_):
        for parameter, buffer in zip(net.encoder_q.parameters(), buffers, strict=True):
            assert torch.equal(optimizer.state[parameter]["momentum_buffer"], buffer)
        assert_same(dict(net.state_dict()), ours["state_dict"])
        sys.exit(9)

    monkeypatch.setattr(pretraining, "train_step", train_step)
    with pytest.raises(SystemExit) as stop:
        pretrain(data, "--epochs 2 --resume reference.tar --checkpoint-path new")
    assert stop.value.code == 9


@pytest.mark.parametrize("module", ["torch.utils.tensorboard", "PIL"])
def test_a_missing_package_is_one_line(data, here, monkeypatch, capsys, module):
    monkeypatch.setitem(sys.modules, module, None)
    code, line = failure(capsys, pretrain, data)
    assert code == 1 and f"{module} is not installed: pip install" in line and not os.path.exists("log")
