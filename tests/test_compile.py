"""One graph per encoder for torch.compile, without a GPU."""

import copy

import torch
from conftest import SMALL
from torch._dynamo.utils import counters

from engine.device import autocast
from model import SCDNet


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
            with autocast("bf16", torch.device("cpu")):
                logits = net(q, k)
            sum(SCDNet.loss(logits).values()).backward()
        torch.testing.assert_close(dict(compiled.named_buffers()), dict(eager.named_buffers()))
        gradients = [{n: p.grad for n, p in net.encoder_q.named_parameters()} for net in (compiled, eager)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
        graphs = counters["stats"]["unique_graphs"]
        assert graphs == 2, f"{graphs} graphs in step {step}"
