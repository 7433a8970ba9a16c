"""Learning rates, random states, meters, checkpoints, run folders."""

import json
import os
import random
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml

import pretraining
from engine.checkpoint import (
    find_checkpoint,
    get_encoder,
    load_checkpoint,
    load_weights,
    restore_optimizer,
    save_checkpoint,
)
from engine.meters import Meter, progress_line
from engine.runlog import Run, RunLog
from engine.training import random_states, restore_random_states, seed_everything, set_learning_rate
from feeder.cli import UserError
from model import DownstreamModel, Encoder, SCDNet
from model.reference import to_reference

SMALL = dict(hidden_size=16, num_head=2, num_layer=1, channels=4)
RUN = Run("linear", "ntu60", "cross_subject", "joint")


@pytest.mark.parametrize(
    "flags, epochs, expected",
    [
        ("--lr 2 --epochs 80 --schedule 50 70", (0, 49, 50, 69, 70), [2, 2, 0.2, 0.2, 0.02]),
        ("--lr 1 --epochs 40 --cos", (0, 20), [1, 0.5]),
        (
            "--lr 5 --schedule 9 --warmup-epochs 2 6 --warmup-lr 1",
            (0, 2, 3, 5, 6, 8, 9),
            [1, 1, 2, 4, 5, 5, 0.5],
        ),
        ("--lr 4 --schedule --warmup-epochs 0 4 --warmup-lr 0", (0, 1, 4), [0, 1, 4]),
    ],
)
def test_learning_rates(flags, epochs, expected):
    optimizer, args = torch.optim.SGD([torch.zeros(1)], 1), pretraining.get_parser().parse_args(flags.split())
    assert [set_learning_rate(optimizer, args, epoch) for epoch in epochs] == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected[-1])


def test_a_meter_has_the_references_format_and_restores():
    meter, other = Meter(".4e"), Meter(".4e")
    meter.update(torch.tensor(2.0), 3)
    other.restore(meter.state())
    for m in (meter, other):
        m.update(torch.tensor(4.0), 1)
        assert progress_line(0, 0, 40, {"Loss": m}) == "Epoch: [0][ 0/40]\tLoss 4.0000e+00 (2.5000e+00)"


def test_seed_and_random_states(tmp_path):
    def draw():
        return float(torch.rand(1))

    assert seed_everything(3) == 3
    first, others = draw(), (random.random(), np.random.rand())
    save_checkpoint(tmp_path / "x.tar", {"state_dict": {}, "random": random_states()})
    second = draw()
    seed_everything(3)
    assert draw() == first and (random.random(), np.random.rand()) == others
    restore_random_states(load_checkpoint(tmp_path / "x.tar")["random"], "x.tar")
    assert draw() == second
    with pytest.raises(UserError, match="its random states cannot be restored"):
        restore_random_states({"torch": [3]}, "x.tar")
    assert seed_everything(None) != seed_everything(None)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/scdnet-was-here",)


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"state_dict": {}, "x": Malicious()}, tmp_path / "evil.tar")
    with pytest.raises(UserError, match="more than tensors and plain types"):
        load_checkpoint(tmp_path / "evil.tar")
    assert not os.path.exists("/tmp/scdnet-was-here")


def valid_checkpoint():
    """Return a checkpoint of ours in the form that pre-training writes."""
    net = SCDNet(SMALL, dim=8, K=8)
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.1)
    return dict(
        state_dict=net.state_dict(), optimizer=optimizer.state_dict(), sizes=net.sizes, epoch=1, step=0, steps=4, seed=0,
        run=["pretraining", "ntu60", "cross_subject", "joint"], options={"seed": 0}, meters={}, random=[random_states()],
        log_folder="log/x", data="0123",
    )  # fmt: skip


WRONG_ENTRIES = [
    ("state_dict", [None, 3, [], {1: 2}, {"a": 3}, torch.zeros(2)]),
    ("epoch", [None, -1, 2.5, "1", [1]]), ("step", [None, -1, "1"]), ("steps", [None, "4"]), ("seed", [None, "0", -1]),
    ("run", [None, "pretraining", [], ["pretraining"], [1, 2, 3, 4]]), ("sizes", [None, 3, [], {"encoder": 3}]),
    ("options", [None, [], "text", {"changes": "a"}, {"pairs": 3}, {"pairs": [["t"]]}]),
    ("optimizer", [None, []]), ("random", [None, 3, "x", {}]), ("log_folder", [None, 3]),
    ("data", [None, 3]), ("meters", [None, 3, {"Loss": 3}, {"Loss": ["a", 1, 2]}]),
    ("best_acc1", [None, "1"]), ("best_scores", [3]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), WRONG_ENTRIES, ids=[name for name, _ in WRONG_ENTRIES])
def test_a_checkpoint_with_a_wrong_entry_is_one_line(tmp_path, name, values):
    path, content = tmp_path / "checkpoint.pth.tar", valid_checkpoint()
    save_checkpoint(path, content)
    assert load_checkpoint(path)["epoch"] == 1
    for value in values:
        torch.save(content | {name: value}, path)
        with pytest.raises(UserError) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value) and name in str(error.value), (
            value
        )
    if name in ("run", "state_dict", "meters", "data", "step", "steps", "best_acc1", "best_scores"):
        return  # others must be there
    torch.save({key: entry for key, entry in content.items() if key != name}, path)
    with pytest.raises(UserError, match=f"missing entry '{name}'"):
        load_checkpoint(path)


def test_options_must_be_plain(tmp_path):
    """Others could not be written into the options.yaml and result.json of a run that resumes or evaluates the checkpoint."""
    cycle: list = []
    cycle.append(cycle)
    for value in ({"lr": torch.ones(2)}, {"origins": cycle}):
        torch.save(valid_checkpoint() | {"options": value}, tmp_path / "x.tar")
        with pytest.raises(UserError, match="not JSON serializable|Circular reference"):
            load_checkpoint(tmp_path / "x.tar")


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    """Truncated, empty, other files, and single flipped bits, which torch itself would load as other weights."""
    path, rng = tmp_path / "checkpoint.pth.tar", random.Random(0)
    save_checkpoint(path, {"state_dict": Encoder(**SMALL).state_dict()})
    whole, state_dict = path.read_bytes(), load_checkpoint(path)["state_dict"]
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(10)] + [b"", b"no checkpoint", whole[:-1]]
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
            assert case >= 13 and all(
                torch.equal(tensor, loaded[name]) for name, tensor in state_dict.items()
            ), case
    with pytest.raises(UserError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "elsewhere")


def test_which_checkpoint_is_resumed(tmp_path):
    folder, other = tmp_path / "ck", tmp_path / "other.tar"
    save_checkpoint(other, valid_checkpoint() | {"epoch": 7})
    assert find_checkpoint(None, folder) == find_checkpoint("auto", folder) == ({}, None)
    assert find_checkpoint(str(other), folder)[0]["epoch"] == 7
    save_checkpoint(folder / "checkpoint.pth.tar", valid_checkpoint())
    for resume in ("auto", str(folder), str(folder / "." / "checkpoint.pth.tar")):
        assert find_checkpoint(resume, folder)[0]["epoch"] == 1
    for resume in (None, str(other)):
        with pytest.raises(UserError, match="exists: .*--resume auto continues a single one"):
            find_checkpoint(resume, folder)


def test_an_encoder_is_found_in_each_kind_of_checkpoint(tmp_path):
    encoder = Encoder(**SMALL)
    net, downstream = SCDNet(encoder, dim=8, K=4), DownstreamModel(encoder, 5)
    path = tmp_path / "x.tar"
    for state_dict in (net.state_dict(), downstream.state_dict()):
        for content in (
            state_dict,
            to_reference(state_dict),
            {f"module.{n}": t for n, t in to_reference(state_dict).items()},
        ):
            save_checkpoint(path, {"state_dict": content})
            loaded = get_encoder(path, {"num_head": 2})[0]
            assert all(torch.equal(t, encoder.state_dict()[name]) for name, t in loaded.state_dict().items())
            assert loaded.sizes == encoder.sizes
    save_checkpoint(path, {"state_dict": net.state_dict(), "sizes": net.sizes})
    assert get_encoder(path, {})[0].sizes["num_head"] == 2
    with pytest.raises(UserError, match="has hidden_size 16, not 32"):
        get_encoder(path, {"hidden_size": 32})[0]
    other = SCDNet(SMALL | {"joints": 3, "links": [(0, 1), (2, 1)]}, dim=8, K=4)
    save_checkpoint(path, {"state_dict": other.state_dict(), "sizes": other.sizes})
    with pytest.raises(UserError, match="trained on 3 joints, feeder/skeleton.py has 25"):
        get_encoder(path, {})
    save_checkpoint(path, {"state_dict": {"fc.weight": torch.zeros(2, 2)}})
    with pytest.raises(UserError, match="no encoder"):
        get_encoder(path, {})[0]


def test_weights_load_wholly_or_not_at_all():
    own, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3).state_dict()
    before = own.weight.clone()
    for state_dict, message in [
        ({"weight": other["weight"]}, "has no tensor bias"),
        (other | {"extra": torch.zeros(1)}, "has tensor extra"),
        (other | {"bias": torch.zeros(4)}, r"bias is \(4,\), in this model \(3,\)"),
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
    order = [
        name for name in theirs if name in momentum
    ]  # order of the reference's parameters, without the queues
    state = {i: {"momentum_buffer": momentum[name]} for i, name in enumerate(order)}
    save_checkpoint(
        tmp_path / "x.tar",
        {"epoch": 7, "state_dict": theirs, "optimizer": {"state": state, "param_groups": []}},
    )

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
    assert torch.equal(
        after.state[layer.weight]["momentum_buffer"], before.state[layer.weight]["momentum_buffer"]
    )


def test_a_references_linear_layer_loads_with_its_momentum(tmp_path):
    model = DownstreamModel(SMALL, 3)
    state = {0: {"momentum_buffer": torch.ones(3, 32)}, 1: {"momentum_buffer": torch.ones(3)}}  # of fc alone
    content = {
        "epoch": 2,
        "state_dict": to_reference(model.state_dict()),
        "optimizer": {"state": state, "param_groups": []},
    }
    save_checkpoint(tmp_path / "x.tar", content)
    optimizer = torch.optim.SGD(model.fc.parameters(), 1.0, 0.9)
    restore_optimizer(optimizer, model, load_checkpoint(tmp_path / "x.tar"), "x.tar")
    assert torch.equal(optimizer.state[model.fc.weight]["momentum_buffer"], torch.ones(3, 32))


def test_a_run_folder(tmp_path):
    options = Namespace(seed=3, random_encoder=False, lr=2.0, checkpoint_path="ck")
    with pytest.raises(ValueError), RunLog(str(tmp_path), RUN, options) as log:
        log.print("a line")
        log.metrics(0, acc1=50.0)
        log.metrics(1, acc1=60.0)
        raise ValueError("why")
    assert log.folder.name.startswith("linear_ntu60_cross_subject_joint_")
    assert (log.folder / "log.txt").read_text() == "a line\nstopped: why\n"
    record = yaml.safe_load((log.folder / "options.yaml").read_text())
    assert record["options"]["lr"] == 2.0 and {"command", "git_commit", "torch", "python"} <= record.keys()
    assert record["run"] == RUN._asdict() and record["checkpoint_folder"] == os.path.abspath("ck")
    assert any(name.startswith("events.out.tfevents") for name in os.listdir(log.folder))

    with RunLog(str(tmp_path), RUN, options, folder=log.folder, start_epoch=1) as again:
        again.metrics(1, acc1=61.0)
    lines = [json.loads(line) for line in (log.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": 0, "acc1": 50.0}, {"epoch": 1, "acc1": 61.0}]


def test_runs_that_start_in_the_same_moment_have_their_own_folders(tmp_path):
    def start(_):
        with RunLog(str(tmp_path), RUN, Namespace(seed=0)) as log:
            return log.folder

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(16)))) == 16


def test_a_log_of_another_process_writes_nothing(here, capsys):
    with RunLog("log", RUN, Namespace(seed=0), enabled=False) as log:
        log.print("a line")
        log.metrics(0, acc1=50.0)
        log.image("a/picture", np.zeros((4, 4, 3), np.uint8))
    assert not capsys.readouterr().out and not os.listdir(here)


@pytest.mark.parametrize("module", ["torch.utils.tensorboard", "PIL"])
def test_a_missing_package_is_one_line(here, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{module} is not installed: pip install"):
        RunLog("log", RUN, Namespace(seed=0))
    assert not os.listdir(here)
