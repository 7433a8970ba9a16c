"""One graph per encoder for torch.compile, and the collectives of a step, counted without a GPU and without a network."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.utils import counters
from torch.testing._internal.distributed.fake_pg import FakeStore
from two_processes import FixedViews

import pretraining
from engine.device import autocast
from model import SCDNet

CPU = torch.device("cpu")
SMALL = dict(hidden_size=16, num_head=2, channels=4, dropout=0.0)


@pytest.mark.parametrize(
    "precision, backend", [("fp32", "eager"), ("bf16", "aot_eager")]
)  # the latter takes twice as long
def test_compiled_encoders_equal_eager_ones(precision, backend):
    """No graph break (fullgraph), no recompilation from the second step on, the same outputs, buffers and gradients."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    eager = SCDNet(SMALL, dim=8, K=16)
    compiled = copy.deepcopy(eager)
    for encoder in (compiled.encoder_q, compiled.encoder_k):
        encoder.compile(fullgraph=True, backend=backend)
    for step in range(2):
        q, k = torch.randn(2, 4, 3, 64, 25, 2)
        for net in (eager, compiled):
            net.zero_grad()
            with autocast(precision, CPU):
                logits = net(q, k)
            sum(SCDNet.loss(logits).values()).backward()
        torch.testing.assert_close(dict(compiled.named_buffers()), dict(eager.named_buffers()))
        for (name, a), b in zip(
            compiled.encoder_q.named_parameters(), eager.encoder_q.parameters(), strict=True
        ):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)
        graphs = counters["stats"]["unique_graphs"]
        assert graphs == 2, f"{graphs} graphs in step {step}"


@pytest.mark.parametrize("world_size", [2, 8])
def test_collectives_of_a_step(world_size, monkeypatch):
    """The keys in one gathering; the gradients in buckets, the first of which starts before backward ends."""
    events, gather = [], dist.all_gather
    monkeypatch.setattr(
        dist, "all_gather", lambda parts, x: events.append(("keys", x.nbytes)) or gather(parts, x)
    )
    monkeypatch.setattr(torch.optim.SGD, "step", lambda _: events.append(("step", 0)))

    def hook(
        _state, bucket
    ):  # what DistributedDataParallel does itself; the fake group's own futures have no result
        events.append(("gradients", bucket.buffer().nbytes))
        dist.all_reduce(bucket.buffer())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    dist.init_process_group(
        "fake", rank=0, world_size=world_size, store=FakeStore()
    )  # a process group without a network
    try:
        net = SCDNet(dict(hidden_size=1024, num_head=2, channels=4), dim=8, K=64 * world_size).train()
        model = pretraining.prepare(net, pretraining.get_parser().parse_args([]), CPU)
        model.register_comm_hook(None, hook)
        net.encoder_q.encoder.backbone_t.data_bn.weight.register_hook(
            lambda _: events.append(("first layer", 0))
        )
        optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.1)
        for _ in range(2):  # the buckets take their final order after the first step
            events.clear()
            pretraining.train_step(
                model, optimizer, FixedViews(), torch.randn(4, 3, 64, 25, 2), None, None, CPU
            )
    finally:
        dist.destroy_process_group()
    names = [name for name, _ in events]
    assert events[0] == ("keys", 4 * 3 * 8 * 4), "keys of 4 clips in 3 domains of 8 float32 values"
    assert names.count("keys") == 1 and names[-1] == "step"
    assert sum(size for name, size in events if name == "gradients") == sum(
        p.nbytes for p in net.encoder_q.parameters()
    )
    assert names.index("gradients") < names.index("first layer"), "gradients travel during backward"
