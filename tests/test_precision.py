"""bfloat16 follows float32; what must be in float32 is."""

import torch
from conftest import failure, pretrain
from torch.nn.utils import parameters_to_vector

import pretraining
from feeder.dataset import Batch
from model import SCDNet


def train(precision, steps=12):
    """Return the losses of a few steps on one seed's numbers, and the network."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_head=4, channels=8, dropout=0.0, frames=32, bodies=1)
    net, losses = SCDNet(sizes, dim=16, K=64, m=0.9), []
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), 0.005, 0.9)
    clips = torch.randn(4, 8, 3, 32, 25, 1).cumsum(dim=3) / 8

    def views(x, *_):
        return x, x + 0.05 * torch.randn_like(x)

    for step in range(steps):
        batch = Batch(clips[step % 4], None, None)
        logits, found = pretraining.train_step(net, optimizer, views, batch, None, precision)
        assert {x.dtype for x in (*logits.values(), *found.values())} == {torch.float32}
        losses.append(sum(found.values()).item())
    return torch.tensor(losses), net


def test_a_short_bf16_training_follows_the_fp32_one():
    (exact, exact_net), (rough, rough_net) = train("fp32"), train("bf16")
    assert exact.max() - exact.min() > 0.3, "nothing happened that one could follow"
    assert not torch.equal(exact, rough), "bfloat16 was not used"
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)
    nets = train("fp32", steps=0)[1], exact_net, rough_net
    start, exact_end, rough_end = (parameters_to_vector(net.encoder_q.parameters()).detach() for net in nets)
    moved = exact_end - start
    assert moved.norm() > 0.05 and torch.cosine_similarity(moved, rough_end - start, dim=0) > 0.95
    tensors = *rough_net.parameters(), *rough_net.queues.values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


def test_tf32_is_refused_on_a_cpu_and_forbidden_elsewhere(data, here, monkeypatch, capsys):
    assert "choose fp32 or bf16" in failure(capsys, pretrain, data, "--precision tf32")[1]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    pretrain(data, "--precision bf16")
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
