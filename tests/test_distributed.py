"""Several processes (gloo, on the CPU): the same training as one, errors and signals end all; and every helper alone."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_scripts import SIZES
from torch import nn
from two_processes import ExactNet

import pretraining
from engine import distributed
from engine.checkpoint import load_checkpoint
from feeder.augmentations import PretrainingViews
from feeder.dataset import SkeletonDataset
from model import SCDNet
from model.batchnorm import BatchNorm, synchronise


def run_two(*flags, mode):
    """The finished `tests/two_processes.py` under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"SCDNET_TEST": mode, "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(ROOT / "tests" / "two_processes.py"), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def run_one(monkeypatch, *flags):
    monkeypatch.setattr(pretraining, "SCDNet", ExactNet)
    pretraining.main(list(flags))


def flags(data, name, *more):
    where = ["--data-path", str(data), "--checkpoint-path", f"{name}/ck", "--log-dir", f"{name}/log"]
    sizes = [*SIZES, "--encoder-dim", "8", "--encoder-k", "24", "--batch-size", "8"]
    return [*where, *sizes, "--workers", "0", "--device", "cpu", "--seed", "1", "--print-freq", "1", *more]


def losses(here, name):
    """The losses of the steps, to four decimals, and of the epochs."""
    (log,) = (here / name / "log").iterdir()
    steps = [float(x) for x in re.findall(r"^Epoch: .*\tLoss (\S+) ", (log / "log.txt").read_text(), re.M)]
    return steps, [json.loads(line)["loss"] for line in (log / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_does_and_stop_at_a_signal(data, here, monkeypatch):
    """Five steps of two processes, then SIGTERM to torchrun; one process goes on. The losses are those of one process."""
    result = run_two(*flags(data, "two", "--epochs", "2"), mode="signal")
    assert result.returncode != 0 and result.stdout.count("stopped by SIGTERM at epoch 1, step 1;") == 1, result.stderr
    assert "2 processes, 4 clips of a step in each" in result.stdout
    checkpoint = load_checkpoint("two/ck")
    assert checkpoint["step"] == 1 and len(checkpoint["random"]) == 2
    run_one(monkeypatch, *flags(data, "one", "--epochs", "2"))
    run_one(monkeypatch, *flags(data, "two", "--epochs", "2", "--resume", "auto"))
    (steps, epochs), (expected_steps, expected_epochs) = losses(here, "two"), losses(here, "one")
    assert len(steps) == 8 and steps == pytest.approx(expected_steps, abs=1e-3)  # of some 13: 1e-4
    assert len(epochs) == 2 and epochs == pytest.approx(expected_epochs, rel=1e-6)
    two, one = (load_checkpoint(f"{name}/ck")["state_dict"] for name in ("two", "one"))
    for name in ("queue_t", "queue_s", "queue_i", "queue_pointer", "encoder_k.encoder.backbone_t.data_bn.running_var"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6)


def test_exchanges_between_processes_and_an_error_in_one_ends_all(data, here):
    result = run_two(*flags(data, "two", "--epochs", "2"), mode="fail")
    assert result.returncode == 1 and "two_processes.py: error: no more of this" in result.stderr
    assert "lost the other processes" in result.stderr or "SIGTERM" in result.stderr
    assert not (here / "two" / "ck" / "checkpoint.pth.tar").exists()

    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    reports = {line["rank"]: line for line in lines if "rank" in line}
    assert [line["error"] for line in lines if "error" in line] == ["the processes differ in what they were told: 0, 1"] * 2
    for rank, report in sorted(reports.items()):
        assert report == {
            "rank": rank, "rows": [0, 1, 2, 3, 4, 5, 6], "labels": [0, 1, 2, 3, 4, 5, 6], "batch": [0, 1], "total": [3, 3],
            "gradients": [0.5, 5], "any": [False, True, True], "rank 0": "said by 0", "share": [4 * rank, 4 * rank + 4],
        }  # fmt: skip
    assert len(reports) == 2


def test_gathered_keys_enter_every_queue_in_order():
    net = SCDNet(dict(hidden_size=16, num_head=2, channels=4), dim=8, K=24, gather=lambda keys: torch.cat([keys, -keys]))
    net(torch.randn(4, 3, 64, 25, 2), torch.randn(4, 3, 64, 25, 2))
    assert net.queue_pointer.item() == 8
    for queue in net.queues.values():
        assert torch.equal(queue[:, :4], -queue[:, 4:8]) and queue[:, :4].norm(dim=0) == pytest.approx([1] * 4)


def test_one_process_needs_no_launcher():
    x, layer = torch.randn(3, 2, requires_grad=True), nn.Linear(2, 2)
    assert distributed.gather_batch(x) is x and distributed.gather_rows(x, 3) is x and distributed.average(x) is x
    assert distributed.total(x) is x and distributed.any_process(True, False) == [True, False]
    assert distributed.gather_objects(4) == [4] and distributed.from_rank_0(4) == 4 and distributed.share(8) == slice(0, 8)
    assert distributed.launched() == 1
    before = [p.clone() for p in layer.parameters()]
    distributed.make_alike(layer, torch.device("cpu"))
    assert all(map(torch.equal, before, layer.parameters()))
    layer(x).sum().backward()
    before = layer.weight.grad.clone()
    distributed.average_gradients(layer)
    assert torch.equal(layer.weight.grad, before)
    distributed.check_alike("anything", 3)
    with distributed.process_group(torch.device("cpu")):
        assert (distributed.rank(), distributed.world_size(), distributed.local_rank()) == (0, 1, None)


def test_the_total_batch_must_part_evenly(data, here, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SystemExit) as stop:
        pretraining.main(flags(data, "x"))
    assert stop.value.code == 2
    assert "--batch-size 8 is the total of 3 processes, and not a multiple of that" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (4, 6, 5)])
def test_synchronised_batch_norm_over_one_process_is_torchs(shape):
    """`total` that doubles, over a batch that is there twice, is what two processes with the same clips have."""
    torch.manual_seed(0)
    theirs = BatchNorm(6) if len(shape) == 4 else nn.BatchNorm1d(6)
    nn.init.normal_(theirs.weight)
    ours = synchronise(nn.Sequential(type(theirs)(6)), lambda x: 2 * x)
    ours[0].load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == [f"0.{name}" for name in theirs.state_dict()]
    for mode in (True, True, False):
        ours.train(mode), theirs.train(mode)
        a = (torch.randn(shape) * 3 + 4).requires_grad_()
        b = a.detach().clone().requires_grad_()
        ya, yb = ours(a), theirs(torch.cat([b, b]))[:4]
        torch.testing.assert_close(ya, yb, rtol=1e-4, atol=1e-4)
        for name, buffer in theirs.named_buffers():
            torch.testing.assert_close(ours[0].get_buffer(name), buffer, rtol=1e-4, atol=1e-5)


def test_views_of_a_share_are_those_of_the_whole(data):
    folder = data / "NTU-RGB-D-60-AGCN" / "xsub"
    indices, parts = [3, 1, 4, 15, 9, 2], (slice(0, 3), slice(3, 6))
    batch = SkeletonDataset(folder, "train")[indices]
    whole = PretrainingViews()(batch.x, batch.num_frames, torch.Generator().manual_seed(5))
    for rows in parts:
        batch = SkeletonDataset(folder, "train", rows)[indices]
        assert len(batch.x) == 3 and len(batch.num_frames) == 6
        views = PretrainingViews(rows=rows)(batch.x, batch.num_frames, torch.Generator().manual_seed(5))
        for mine, theirs in zip(views, whole, strict=True):
            torch.testing.assert_close(mine, theirs[rows])
