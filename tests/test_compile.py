"""One graph per encoder for torch.compile, and the collectives of a step, counted without GPU and network."""

import copy

import torch
import torch.distributed as dist
from conftest import SMALL
from torch._dynamo.utils import counters
from torch.testing._internal.distributed.fake_pg import FakeStore
from two_processes import fixed_views

import pretraining
from engine.device import autocast
from feeder.dataset import Batch
from model import SCDNet

CPU = torch.device("cpu")


def test_compiled_encoders_equal_eager_ones():
    """No graph break (fullgraph), no recompilation in the second step; the same buffers and gradients."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    eager = SCDNet(SMALL | {"dropout": 0.0}, dim=8, K=16)
    compiled = copy.deepcopy(eager)
    for encoder in (compiled.encoder_q, compiled.encoder_k):
        encoder.compile(fullgraph=True, backend="eager")
    for step in range(2):
        q, k = torch.randn(2, 4, 3, 16, 25, 2)
        for net in (eager, compiled):
            net.zero_grad()
            with autocast("bf16", CPU):
                logits = net(q, k)
            sum(SCDNet.loss(logits).values()).backward()
        torch.testing.assert_close(dict(compiled.named_buffers()), dict(eager.named_buffers()))
        gradients = [{n: p.grad for n, p in net.encoder_q.named_parameters()} for net in (compiled, eager)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
        graphs = counters["stats"]["unique_graphs"]
        assert graphs == 2, f"{graphs} graphs in step {step}"


def test_collectives_of_a_step(monkeypatch):
    """The keys in one gathering; the gradients in buckets, the first of which starts before backward ends."""
    events, gather = [], dist.all_gather

    def all_gather(parts, x):
        events.append(("keys", x.nbytes))
        return gather(parts, x)

    def reduce(_state, bucket):
        events.append(("gradients", bucket.buffer().nbytes))
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    monkeypatch.setattr(dist, "all_gather", all_gather)
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    try:
        net = SCDNet(SMALL | {"hidden_size": 1024}, dim=8, K=32).train()
        model = pretraining.prepare(net, pretraining.get_parser().parse_args([]), CPU)
        model.register_comm_hook(None, reduce)
        first = net.encoder_q.encoder.backbone_t.data_bn.weight
        first.register_hook(lambda _: events.append(("first layer", 0)))
        optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.1)
        for _ in range(2):  # the buckets take their final order after the first step
            events.clear()
            batch = Batch(torch.randn(4, 3, 16, 25, 2), None, None)
            pretraining.train_step(model, optimizer, fixed_views, batch, None)
    finally:
        dist.destroy_process_group()
    names, sizes = zip(*events, strict=True)
    assert events[0] == ("keys", 4 * 3 * 8 * 4), "keys of 4 clips in 3 domains of 8 float32 values"
    assert names.count("keys") == 1 and names.index("gradients") < names.index("first layer")
    assert sum(sizes[1:]) == sum(p.nbytes for p in net.encoder_q.parameters())
