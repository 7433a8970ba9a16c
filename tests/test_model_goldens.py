"""The model equals the reference: forwards, gradients, three training steps with queues and momentum."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model import DownstreamModel, SCDNet
from model.reference import from_reference, to_reference


def golden_state(golden):
    """Return the reference checkpoint of the golden network before the first step."""
    meta, state = golden.meta, {}
    for name, shape in golden.meta["state_dict"]:
        if name.endswith("_queue"):
            state[name] = F.normalize(golden.uniform(name, (meta["dim"], meta["K"])).float(), dim=0)
        elif name.endswith("_ptr"):
            state[name] = torch.zeros(shape, dtype=torch.long)
        else:
            state[name] = golden.weight(name, tuple(shape))
    return state


def golden_net(golden):
    meta = golden.meta
    sizes = dict(hidden_size=meta["hidden_size"], num_head=meta["num_head"], num_layer=meta["num_layer"])
    net = SCDNet(encoder=sizes, dim=meta["dim"], K=meta["K"], m=meta["m"], T=meta["T"])
    net.load_state_dict(from_reference(golden_state(golden)))  # strict: names and shapes are the reference's
    for module in net.modules():  # the goldens were measured without dropout
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return net


def clip(golden, tag):
    return golden.uniform(tag, (golden.meta["batch"], 3, 64, 25, 2)).float()


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_forward(model_golden):
    net = golden_net(model_golden).eval()
    x = clip(model_golden, "x")
    with torch.no_grad():
        v_t, v_s = net.encoder_q.encoder(x)
        z_t, z_s, z_i = net.encoder_q(x)
        backbone = net.encoder_q.encoder.backbone_t(x).mean(dim=(3, 4)).flatten(0, 1)
    for key, ours in dict(vt=v_t, vs=v_s, zt=z_t, zs=z_s, zi=z_i, gcn_t_mean=backbone).items():
        assert relative(ours, model_golden[f"eval_{key}"]) < 2e-4, key


def test_downstream(model_golden):
    state = golden_state(model_golden)
    prefix = "encoder_q."
    encoder = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(f"{prefix}encoder.")}
    for leaf, shape in (("weight", (60, 64)), ("bias", (60,))):
        encoder[f"fc.{leaf}"] = model_golden.weight(f"encoder_q.fc.{leaf}", shape)
    model = DownstreamModel(dict(hidden_size=32, num_head=4), num_classes=60).eval()
    model.load_state_dict(from_reference(encoder))
    with torch.no_grad():
        x = clip(model_golden, "x")
        assert relative(model.features(x), model_golden["eval_features"]) < 2e-4
        assert relative(model(x), model_golden["eval_logits"]) < 2e-4


def test_three_training_steps(model_golden):
    meta, net = model_golden.meta, golden_net(model_golden).train()
    names = {id(p): name for name, p in net.named_parameters()}
    recipe = meta["lr"], meta["momentum"], 0, meta["weight_decay"]
    optimizer = torch.optim.SGD(net.encoder_q.parameters(), *recipe)
    for step in range(meta["steps"]):
        logits = net(clip(model_golden, f"q{step}"), clip(model_golden, f"k{step}"))
        losses = net.loss(logits)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        if step == 0:
            for pair, ours in logits.items():
                assert relative(ours, model_golden[f"logits_{pair}_step0"]) < 2e-4, pair
            grads = to_reference({names[id(p)]: p.grad for p in net.encoder_q.parameters()})
            for name, norm in meta["grad_norms_step0"].items():
                ours = grads[f"encoder_q.{name}"].norm().item()
                assert ours == pytest.approx(norm, rel=1e-3, abs=1e-4), name
        optimizer.step()
        ours = torch.stack([*losses.values()]).detach()
        torch.testing.assert_close(ours, model_golden["losses_per_pair"][step].float(), rtol=1e-3, atol=0)
        torch.testing.assert_close(ours.sum(), model_golden["losses"][step].float(), rtol=1e-3, atol=0)
    for domain in "tsi":
        assert relative(net.queues[domain], model_golden[f"{domain}_queue"]) < 1e-3
    assert net.queue_pointer.item() == meta["queue_ptr"][0]
    state = to_reference(net.state_dict())
    for name, norm in meta["final_norms"].items():
        # 1e-3 absolute: the first unit's relation biases carry the reference's rounding (6e-4 from float64)
        assert state[name].float().norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-3), name
