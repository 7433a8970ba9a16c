"""Learning rates, random states, meters, checkpoints, run folders."""

import os
import random
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, assert_same, metrics

import pretraining
from engine.checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from engine.encoders import open_encoder
from engine.meters import Meter, progress_line
from engine.runlog import Previous, Run, RunLog
from engine.training import random_states, restore_random_states, seed_everything, set_learning_rate
from feeder.cli import UserError
from model import DownstreamModel, Encoder, SCDNet
from model.reference import to_reference

RUN = Run("linear", "ntu60", "cross_subject", "joint")
LOG = Namespace(log_dir="log")


@pytest.mark.parametrize(
    "flags, epochs, expected",
    [
        ("--lr 2 --epochs 80 --schedule 50 70", (0, 49, 50, 69, 70), [2, 2, 0.2, 0.2, 0.02]),
        ("--lr 1 --epochs 40 --cos", (0, 20), [1, 0.5]),
        ("--lr 5 --schedule 9 --warmup-epochs 2 6 --warmup-lr 1", (0, 2, 3, 6, 8, 9), [1, 1, 2, 5, 5, 0.5]),
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


def test_a_seed_and_restored_states_repeat_all_random_numbers(tmp_path):
    generator = torch.Generator().manual_seed(5)

    def draw():
        return torch.rand(3).tolist() + torch.rand(3, generator=generator).tolist()

    assert seed_everything(3) == 3
    first = random.random(), np.random.rand(), draw()
    save_checkpoint(
        tmp_path / "x.tar", {"state_dict": {"x": torch.ones(1)}, "random": random_states(generator)}
    )
    second = draw()
    restore_random_states(load_checkpoint(tmp_path / "x.tar")["random"], generator)
    assert draw() == second
    seed_everything(3)
    generator.manual_seed(5)
    assert (random.random(), np.random.rand(), draw()) == first
    assert seed_everything(None) != seed_everything(None)


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
            assert case >= 13, case
            assert_same(loaded, state_dict)
    with pytest.raises(UserError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "elsewhere")


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.tar"
    save_checkpoint(path, {"state_dict": {"x": torch.zeros(9)}})
    old = path.read_bytes()
    with open(path, "rb") as reader:
        save_checkpoint(path, {"state_dict": {"x": torch.ones(9)}})
        assert reader.read() == old != path.read_bytes()
    assert os.listdir(tmp_path) == ["x.tar"]


def test_an_encoder_is_found_in_each_kind_of_checkpoint(tmp_path):
    encoder, path = Encoder(**SMALL), tmp_path / "x.tar"
    for net in (SCDNet(encoder, dim=8, K=4), DownstreamModel(encoder, 5)):
        for plain in (net.state_dict(), to_reference(net.state_dict())):
            parallel, compiled = ({f"{x}{n}": t for n, t in plain.items()} for x in ("module.", "_orig_mod."))
            inner = {n.replace("encoder.", "encoder._orig_mod.module."): t for n, t in plain.items()}
            contents = [{"state_dict": weights} for weights in (plain, parallel, compiled, inner)]
            for content in (plain, {"model": plain}, *contents):
                save_checkpoint(path, content)
                found, _ = open_encoder(path, {"num_head": 2})
                assert_same(dict(found.state_dict()), dict(encoder.state_dict()))
                assert found.sizes == encoder.sizes


def test_weights_of_another_network_are_one_line(tmp_path):
    net = DownstreamModel(SMALL, 3)
    whole, sizes, path = net.state_dict(), {"encoder": net.encoder.sizes}, tmp_path / "x.tar"
    other = DownstreamModel(SMALL | {"joints": 3, "links": [(0, 1), (2, 1)]}, 3)
    without = {name: tensor for name, tensor in whole.items() if "embed_t.0.bias" not in name}
    for state_dict, given, message in [
        (whole, {"hidden_size": 32}, "it has hidden_size 16, not 32"),
        (other.state_dict(), {}, "trained on 3 joints, .* has 25"),
        ({"fc.weight": torch.zeros(2, 2)}, {}, "no encoder"),
        (without, {}, "embed_t.0.bias"),
        (whole | {"encoder.embed_t.0.bias": torch.zeros(3)}, {}, "size mismatch for embed_t.0.bias"),
    ]:
        save_checkpoint(path, {"state_dict": state_dict} | ({"sizes": sizes} if "embed" in message else {}))
        with pytest.raises(UserError, match=f"^{path} is damaged or does not fit: .*{message}") as error:
            open_encoder(path, given)
        assert "\n" not in str(error.value)


def test_a_references_momentum_is_taken_over(tmp_path):
    net = SCDNet(SMALL, dim=8, K=4)
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.1, 0.9)
    sum(net.loss(net(*torch.randn(2, 4, 3, 16, 25, 2))).values()).backward()
    optimizer.step()
    buffers = {name: optimizer.state[p]["momentum_buffer"] for name, p in net.encoder_q.named_parameters()}
    theirs = to_reference(net.state_dict())
    momentum = to_reference({f"encoder_q.{name}": buffer for name, buffer in buffers.items()})
    # in the order of the reference's parameters, without the queues
    order = [name for name in theirs if name in momentum]
    state = {i: {"momentum_buffer": momentum[name]} for i, name in enumerate(order)}
    content = {"epoch": 7, "state_dict": theirs, "optimizer": {"state": state, "param_groups": []}}
    save_checkpoint(tmp_path / "x.tar", content)

    checkpoint, fresh = load_checkpoint(tmp_path / "x.tar"), SCDNet(SMALL, dim=8, K=4)
    fresh.load_state_dict(checkpoint["state_dict"])
    resumed = torch.optim.SGD(fresh.encoder_q.parameters(), 0.1, 0.9)
    restore_optimizer(resumed, fresh, checkpoint)
    for name, p in fresh.encoder_q.named_parameters():
        assert torch.equal(resumed.state[p]["momentum_buffer"], buffers[name]), name


def test_a_run_folder(here):
    args = Namespace(log_dir="log", lr=2.0, pretrained=["x.tar"])
    with pytest.raises(ValueError), RunLog(RUN, args, {"seed": 3}) as log:
        log.print("a line", "another")
        log.metrics(0, acc1=50.0)
        log.metrics(1, acc1=60.0)
        raise ValueError("why")
    assert log.folder.name.startswith("linear_ntu60_cross_subject_joint_")
    assert (log.folder / "log.txt").read_text() == "a line\nanother\nstopped: why\n"
    assert list(log.folder.glob("events.out.tfevents*"))

    with RunLog(RUN, args, {"seed": 4}, Previous({"epoch": 1}, log_folder=log.folder)) as again:
        again.metrics(1, acc1=61.0)
    assert metrics(log.folder) == [{"epoch": 0, "acc1": 50.0}, {"epoch": 1, "acc1": 61.0}]
    starts = list(yaml.safe_load_all((log.folder / "options.yaml").read_text()))
    assert [start["seed"] for start in starts] == [3, 4] and starts[0]["options"] == vars(args)
    assert starts[0]["run"] == list(RUN) and {"command", "git_commit", "torch", "python"} <= starts[0].keys()


def test_runs_that_start_in_the_same_moment_have_their_own_folders(here):
    def start(_):
        with RunLog(RUN, LOG, {}) as log:
            return log.folder

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(start, range(2)))) == 2


@pytest.mark.parametrize("module", ["torch.utils.tensorboard", "PIL"])
def test_a_missing_package_is_one_line(here, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{module} is not installed: pip install"):
        RunLog(RUN, LOG, {})
    assert not os.listdir()
