"""The GPU path without a GPU: driver calls replaced; steps on "meta", where each host read is an error."""

from argparse import Namespace

import pytest
import torch
from benchmarks.bench_step_cost import META, Count
from conftest import SIZES, SMALL

import action_classification
import action_retrieval
import pretraining
from engine.device import pick_device
from engine.training import Training
from feeder.augmentations import STREAMS, PretrainingViews
from feeder.cli import UserError
from feeder.dataset import Batch, Batches
from model import SCDNet

reason = "replaces the driver of a machine without a GPU"
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason=reason)


def batch_of(n):
    return Batch(torch.randn(n, 3, 70, 25, 2), torch.full((n,), 70), torch.zeros(n, dtype=torch.long))


@pytest.fixture
def gpus(monkeypatch):
    """Eight GPUs for torch's own Python code; returns the indices that were made current."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", current.append, raising=False)
    return current


@needs_no_gpu
def test_a_device_has_an_index_and_is_current(gpus, monkeypatch):
    choices = {("auto", None): 0, ("cuda", None): 0, ("cuda:5", None): 5, ("auto", 3): 3, ("cuda:3", 3): 3}
    for (name, gpu), index in choices.items():
        assert pick_device(name, gpu) == torch.device("cuda", index)
        assert gpus.pop() == index and not gpus
    launcher = dict(RANK=2, LOCAL_RANK=2, WORLD_SIZE=8, MASTER_ADDR="localhost", MASTER_PORT=29500)
    for name, value in launcher.items():
        monkeypatch.setenv(name, str(value))
    for name in ("auto", "cuda"):
        assert pick_device(name) == torch.device("cuda", 2)
    with pytest.raises(UserError, match="each process uses its own GPU"):
        pick_device("cuda:0")
    assert pick_device("cpu") == torch.device("cpu") and gpus == [2, 2]


@needs_no_gpu
def test_an_absent_device_is_named(gpus, monkeypatch):
    for name in ("cuda:8", "cuda:99", "gpu", "mps", ""):
        with pytest.raises(UserError, match=f"device '?{name}'?"):
            pick_device(name)
    with pytest.raises(UserError, match="contradict"):
        pick_device("cpu", gpu=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device() == torch.device("cpu")
    with pytest.raises(UserError, match="torch sees 0 GPUs"):
        pick_device("cuda")
    assert not gpus


@needs_no_gpu
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:6"])
@pytest.mark.parametrize("script", [pretraining, action_classification, action_retrieval])
def test_each_script_starts_on_a_gpu(gpus, data, here, script, device):
    """The first tensor that goes to the GPU ends the run: there is no driver to allocate it."""
    more = "--batch-size 8 --encoder-k 24" if script is pretraining else "--random-encoder"
    with pytest.raises((AssertionError, RuntimeError), match="(?i)cuda|nvidia"):
        script.main(f"--data-path {data} {SIZES} --workers 0 --device {device} {more}".split())
    assert gpus == [6 if device == "cuda:6" else 0]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_step_never_waits_for_the_device(stream):
    """Two copies from the host, the clips and what was drawn for both views; "meta" has no autocast."""
    with META:
        net = SCDNet(encoder={})
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.01, 0.9, weight_decay=1e-4)
    inputs = PretrainingViews(stream), batch_of(64), torch.Generator().manual_seed(0)
    pretraining.train_step(net, optimizer, *inputs)  # moves constants
    with Count() as count:
        logits, losses = pretraining.train_step(net, optimizer, *inputs)
    assert count.copies == 2
    assert logits["it"].shape == (64, 1 + net.K) and losses["it"].shape == ()


def test_the_loop_reads_the_device_only_to_print_a_line():
    """Steps 1 and 2 print nothing. Step 3 is the last of its epoch: its line is the first to read a loss."""
    with META:
        net = SCDNet(SMALL, dim=8, K=24)
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.01)
    training = Training(net, optimizer, PretrainingViews(size=16), torch.Generator())
    training.step = 1

    class Loader(list):
        sampler = Batches(32, 8)

        def __len__(self):
            return 4

    flags = "--epochs 1 --batch-size 8 --print-freq 100 --save-minutes 1e9"
    options, log = pretraining.get_parser().parse_args(flags.split()), Namespace(print=print)
    with pytest.raises((RuntimeError, NotImplementedError), match="(?i)meta"):
        pretraining.train(training, Loader([batch_of(8)] * 3), options, log, None)
    assert training.step == 3 and training.meters["Loss"].count == 3 * 8
