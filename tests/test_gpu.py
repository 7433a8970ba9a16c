"""The GPU path: on a GPU if there is one; without, driver calls are replaced and host reads counted."""

import os
import signal

import pytest
import torch
from benchmarks.bench_step_cost import META, Count
from conftest import FIXED, SIZES, SMALL, at_step, metrics, newest, pretrain, saved
from torch.utils._python_dispatch import TorchDispatchMode

import action_classification
import action_retrieval
import pretraining
from engine.device import pick_device
from feeder.augmentations import STREAMS, PretrainingViews
from feeder.cli import UserError
from feeder.dataset import Batch
from model import SCDNet

reason = "replaces the driver of a machine without a GPU"
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason=reason)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


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
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 2)
    assert pick_device("cpu") == torch.device("cpu") and gpus == [2, 2]
    with pytest.raises(UserError, match="each process uses its own GPU"):
        pick_device("cuda:0")


@needs_no_gpu
def test_an_absent_device_is_named(gpus):
    for name in ("cuda:8", "mps", ""):
        with pytest.raises(UserError, match=f"device '?{name}'?"):
            pick_device(name)
    with pytest.raises(UserError, match="contradict"):
        pick_device("cpu", gpu=0)


def inputs(device, stream="joint"):
    """Network, optimiser (which changes nothing), views, batch and generator of a training step."""
    with torch.device(device):
        net = SCDNet(SMALL, dim=8, K=24)
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.0, 0.9, weight_decay=1e-4)
    batch = Batch(torch.randn(8, 3, 70, 25, 2), torch.full((8,), 70), torch.zeros(8, dtype=torch.long))
    return net, optimizer, PretrainingViews(stream, size=16), batch, torch.Generator().manual_seed(0)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_step_never_waits_for_the_device(stream):
    """Two copies from the host, the clips and what was drawn for both views; a read is an error on "meta"."""
    step = inputs(META, stream)
    pretraining.train_step(*step)  # moves constants
    with Count() as count:
        logits, losses = pretraining.train_step(*step)
    assert count.copies == 2
    assert logits["it"].shape == (8, 1 + 24) and losses["it"].shape == ()


class Reads(TorchDispatchMode):
    """Count the losses, scores etc. that Python reads from tensors; each one would wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += args[0].is_floating_point()  # lengths of clips, which are ints, are on the CPU
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "script, flags",
    [
        (pretraining, f"{SIZES} --encoder-k 16 --epochs 1 --print-freq 100"),
        (action_classification, f"{SIZES} --random-encoder --epochs 1"),
        (action_classification, f"{SIZES} --random-encoder --epochs 1 --finetune --print-freq 100"),
        (action_retrieval, f"{SIZES} --random-encoder"),
    ],
)
def test_reads_do_not_depend_on_the_number_of_steps(data, here, script, flags):
    found = []
    for size in (4, 16):
        path = "" if script is action_retrieval else f"--checkpoint-path ck{size}"
        with Reads() as reads:
            script.main(f"--data-path {data} {FIXED} --batch-size {size} {flags} {path}".split())
        found.append(reads.count)
    assert found[0] == found[1] > 0


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_a_gpu_is_that_on_the_cpu(monkeypatch, precision):
    """And it does not wait for the GPU, which torch says by itself."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    losses = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        net, *rest = inputs("cpu")
        step = net.to(device).eval(), *rest, "fp32" if device == "cpu" else precision
        pretraining.train_step(*step)  # moves constants
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = pretraining.train_step(*step)[1]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        losses[device] = torch.stack([*found.values()]).cpu()
    tolerance = 1e-4 if precision == "fp32" else 0.03
    torch.testing.assert_close(losses["cuda"], losses["cpu"], rtol=tolerance, atol=tolerance)


@needs_gpu
@pytest.mark.parametrize("flags", ["", "--precision bf16", "--precision bf16 --compile"])
def test_a_run_on_a_gpu_resumes_as_if_never_stopped(data, here, monkeypatch, flags):
    """With its generator, which draws dropout; kernels that add in any order differ in rounding."""
    flags += " --device cuda --epochs 3 --resume auto"
    pretrain(data, f"{flags} --checkpoint-path whole")
    at_step(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        pretrain(data, flags)
    assert saved("ck")["step"] == 2
    pretrain(data, flags)
    one, other = saved("whole"), saved("ck")
    for state in ("torch", "cuda", "generator"):
        assert torch.equal(one["random"][0][state], other["random"][0][state]), state
    torch.testing.assert_close(other["state_dict"], one["state_dict"], rtol=1e-2, atol=1e-3)
    assert [line["epoch"] for line in metrics(newest())] == [0, 1, 2]
