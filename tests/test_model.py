"""Sizes, initialisation, closed forms and invariants of the model."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, assert_same

from model import DownstreamModel, Encoder, SCDNet
from model.backbone import GraphConvolution
from model.graph import adjacency
from model.reference import from_reference, is_reference, sizes, to_reference


def small_net(**kwargs):
    torch.manual_seed(0)
    return SCDNet(SMALL | kwargs, dim=8, K=12)


def views(n):
    return torch.randn(2, n, 3, 16, 25, 2)


def test_parameter_counts_at_full_size():
    with torch.device("meta"):
        net, downstream = SCDNet(encoder={}), DownstreamModel(Encoder(), num_classes=60)
    encoder = net.encoder_q.encoder
    modules = encoder.backbone_t, encoder.backbone_s, encoder, net.encoder_q, downstream
    counts = [sum(p.numel() for p in module.parameters()) for module in modules]
    assert counts == [363_928, 363_928, 74_447_664, 92_017_840, 74_693_484]
    assert net.sizes["dim"] == 128 and net.sizes["K"] == 8192 and net.sizes["encoder"]["hidden_size"] == 2048


def test_initialisation_is_the_references():
    torch.manual_seed(0)
    net = SCDNet(dict(hidden_size=256, num_head=8), dim=128, K=64)
    state = to_reference(net.state_dict())
    for name, tensor in state.items():
        leaf = name.rsplit(".", 1)[-1]
        if tensor.dim() == 4 and tensor[..., 0].numel() > 2000:  # Kaiming-normal, fan out
            fan_out = tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
            assert tensor.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        if tensor.dim() == 2 and leaf in ("weight", "in_proj_weight"):  # Xavier-uniform
            bound = (6 / sum(tensor.shape)) ** 0.5
            assert 0.98 * bound < tensor.abs().max() <= bound, name
        if ".convs." in name and leaf == "bias" or name.endswith("alpha"):
            assert not tensor.any(), name
        if name.endswith("gcn1.bn.weight"):
            assert torch.all(tensor == 1e-6), name
    branch_norms = torch.cat([t for n, t in state.items() if ".branches." in n and n.endswith(".1.weight")])
    assert branch_norms.std().item() == pytest.approx(0.02, rel=0.15)
    for q, k in zip(net.encoder_q.parameters(), net.encoder_k.parameters(), strict=True):
        assert torch.equal(q, k) and not k.requires_grad


def test_graph_convolution_is_the_plain_loop_over_subsets_and_joints():
    torch.manual_seed(0)
    joints, links = 5, [(0, 1), (1, 2), (3, 1), (4, 3)]
    net, x = GraphConvolution(6, 4, adjacency(joints, links)).double(), torch.randn(2, 6, joints, 7).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    mixed, mean = torch.zeros(2, 4, joints, 7).double(), x.mean(dim=3)
    for k in range(3):
        a, b = net.relation_weight[:, None, k] @ mean + net.relation_bias[:, None, k, :, None]  # (N, r, V)
        value = torch.einsum("oc,ncvt->novt", net.value_weight[:, k], x) + net.value_bias[:, k, None, None]
        for u in range(joints):
            for v in range(joints):
                conv4 = torch.tanh(a[..., u] - b[..., v]) @ net.topology_weight[k].T + net.topology_bias[k]
                topology = net.alpha * conv4 + net.PA[k, u, v]  # (N, C)
                mixed[:, :, u] += topology[..., None] * value[:, :, v]
    expected = F.relu(net.bn(mixed) + net.down(x))
    assert expected.any() and net.alpha.abs() > 0.1
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)


def test_other_pairs_contrast_what_they_name():
    torch.manual_seed(0)
    net, x = SCDNet(SMALL | {"dropout": 0.0}, dim=8, K=12, pairs=("tt", "is")), views(4)[0]
    queues = {domain: queue.clone() for domain, queue in net.queues.items()}
    logits = net(x, x)  # both encoders are equal at the start: so are query and key
    assert list(net.loss(logits)) == ["tt", "is"]
    torch.testing.assert_close(logits["tt"][:, 0], torch.full((4,), 1 / net.T))
    z = F.normalize(net.encoder_k(x)[2], dim=1)
    torch.testing.assert_close(logits["is"][:, 1:], z @ queues["s"] / net.T, rtol=1e-4, atol=1e-4)
    for pairs in (("tx",), ("t",), ("ti", "ti")):
        with pytest.raises(ValueError, match="each pair once"):
            SCDNet(SMALL, dim=8, K=12, pairs=pairs)


def test_loss_against_plain_numpy_form():
    net = small_net()
    (q, k), queue = F.normalize(torch.randn(2, 5, 8), dim=2), F.normalize(torch.randn(8, 12), dim=0)
    exps = [[math.exp(float(q[n] @ key) / net.T) for key in (k[n], *queue.T)] for n in range(5)]
    expected = -sum(math.log(row[0] / sum(row)) for row in exps) / 5
    assert net.loss({"ti": net.logits(q, k, queue)})["ti"].item() == pytest.approx(expected, rel=1e-5)


def test_queue_is_a_ring_of_the_latest_keys():
    net = small_net().train()
    for step in range(4):  # 16 keys into 12 places
        keys = {d: F.normalize(torch.full((4, 8), float(step + 1)) + torch.randn(4, 8), dim=1) for d in "tsi"}
        net.enqueue(keys)
        columns = [(4 * step + i) % 12 for i in range(4)]
        for d in "tsi":
            assert torch.equal(net.queues[d][:, columns].T, keys[d])
    assert net.queue_pointer.item() == 4


def test_evaluation_changes_nothing_and_the_momentum_update_only_key_parameters():
    net = small_net().eval()
    with torch.no_grad():
        for p in net.encoder_q.parameters():
            p.add_(1.0)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net(*views(5))  # K = 12 is not a multiple of 5: only training needs that
    assert_same(dict(net.state_dict()), before)
    net.update_key_encoder()
    expected = dict(before)
    for name, _ in net.encoder_k.named_parameters():
        k, q = before[f"encoder_k.{name}"], before[f"encoder_q.{name}"]
        expected[f"encoder_k.{name}"] = net.m * k + (1 - net.m) * q
    torch.testing.assert_close(dict(net.state_dict()), expected)


def test_wrong_sizes_are_named():
    for wrong, message in [
        (dict(joints=20), "outside a skeleton of 20 joints"),
        (dict(num_layer=0), "at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Encoder(**SMALL | wrong)
    with pytest.raises(ValueError, match=r"clips are \(N, 3, 16, 25, 2\)"):
        Encoder(**SMALL)(torch.randn(2, 3, 60, 25, 2))
    with pytest.raises(ValueError, match="K = 12 is not a multiple of the batch of 5"):
        small_net().train()(*views(5))


def test_other_sizes_run_and_are_read_off_the_shapes():
    for other in (dict(num_layer=2), dict(frames=32, bodies=1), dict(joints=3, links=[(0, 1), (2, 1)])):
        encoder = Encoder(**(SMALL | other)).eval()
        s = encoder.sizes
        v_t, v_s = encoder(torch.randn(2, 3, s["frames"], s["joints"], s["bodies"]))
        assert v_t.shape == v_s.shape == (2, 16)
        assert sizes(encoder.state_dict()) == {key: value for key, value in s.items() if key != "num_head"}


def test_reference_round_trip():
    net = small_net(num_layer=2)
    for module in (net, net.encoder_k, DownstreamModel(SMALL, num_classes=5), Encoder(**SMALL)):
        ours = module.state_dict()
        theirs = to_reference(ours)
        assert is_reference(theirs) and not is_reference(ours)
        back = from_reference({f"module.{name}": tensor for name, tensor in theirs.items()})
        assert_same(back, dict(ours))


def test_bad_reference_is_named():
    theirs = to_reference(small_net().state_dict())
    bias = "encoder_q.encoder.gcn_t.l2.tcn1.branches.1.0.bias"
    for changed, message in [
        ({bias: None}, f"has no {bias}"),
        ({"x": torch.zeros(1)}, "x is not a tensor of"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_reference({name: t for name, t in (theirs | changed).items() if t is not None})
