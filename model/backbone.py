"""Graph-convolution backbone: channel-wise topologies over joints, multi-scale convolutions over frames.

The arithmetic is the reference's, the layout is not. Tensors are (N * M, C, V, T), which makes 1x1
convolutions and the mixing of joints matrix products; N * M is written N below. Layers of the reference that
read the same input (the three subsets, the four temporal branches) are one parameter here; `model.reference`
joins and splits them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.graph import NUM_SUBSETS, adjacency


class GraphConvolution(nn.Module):
    """Mix joints by topologies that depend on the channel and the sample.

    For each subset k (self, inward, outward), with 1x1 convolutions a = conv1(x) and b = conv2(x), both
    averaged over frames: topology_k[c, u, v] = alpha * conv4(tanh(a[u] - b[v])) + PA_k[u, v]; the output is
    relu(BN(sum_k topology_k conv3(x)) + down(x)). Here conv1 and conv2 of all subsets are `relation_weight`,
    conv3 `value_weight`, conv4 `topology_weight`.
    """

    def __init__(self, in_channels: int, out_channels: int, graph: Tensor):
        super().__init__()
        r = 8 if in_channels == 3 else max(in_channels // 8, 1)
        self.PA = nn.Parameter(graph.clone())  # (3, V, V)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.relation_weight = nn.Parameter(_kaiming(2, NUM_SUBSETS, r, in_channels, fan_out=r))
        self.relation_bias = nn.Parameter(torch.zeros(2, NUM_SUBSETS, r))
        self.topology_weight = nn.Parameter(_kaiming(NUM_SUBSETS, out_channels, r, fan_out=out_channels))
        self.topology_bias = nn.Parameter(torch.zeros(NUM_SUBSETS, out_channels))
        # subset innermost: then (subset, joint) is one contiguous axis of the mixing
        self.value_weight = nn.Parameter(
            _kaiming(out_channels, NUM_SUBSETS, in_channels, fan_out=out_channels)
        )
        self.value_bias = nn.Parameter(torch.zeros(out_channels, NUM_SUBSETS))
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, 1e-6)
        self.down = Projection(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, V, T) -> (N, C_out, V, T)
        n, _, v, t = x.shape
        value = pointwise(x, self.value_weight.flatten(0, 1), self.value_bias.flatten())  # (N, C * 3, V, T)
        value = value.view(-1, NUM_SUBSETS * v, t)  # (N * C, 3 * V, T)
        y = torch.bmm(self.topology(x).mT, value).view(n, -1, v, t)  # (N, C, V, T)
        return F.relu(self.bn(y) + self.down(x))

    def topology(self, x: Tensor) -> Tensor:
        """Return the mixing matrices (N * C_out, 3 * V, V) of x, transposed for a faster product."""
        n, _, v, _ = x.shape
        # a 1x1 convolution commutes with the mean over frames: average first, convolve V columns, not V T
        weight, bias = self.relation_weight.flatten(0, 2), self.relation_bias.flatten()[:, None]
        ab = torch.einsum("oc,ncv->nov", weight, x.mean(dim=-1))  # (N, 2 * 3 * r, V)
        a, b = (ab + bias).unflatten(1, self.relation_bias.shape).unbind(dim=1)  # (N, 3, r, V) each
        relation = torch.tanh(a.unsqueeze(-2) - b.unsqueeze(-1)).flatten(3)  # (N, 3, r, V * V), from v to u
        relation = relation.to(ab.dtype)  # under autocast the bias promoted it to float32
        # bias and PA as two more channels, of ones and of PA: then one product computes the complete matrices
        constant = torch.stack([torch.ones_like(self.PA), self.PA.mT], dim=1).flatten(2)  # (3, 2, V * V)
        constant = constant.to(relation.dtype).expand(n, -1, -1, -1)
        relation = torch.cat([relation, constant], dim=2)  # (N, 3, r + 2, V * V)
        one = torch.ones_like(self.topology_bias)[..., None]
        weight = torch.cat(
            [self.topology_weight * self.alpha, self.topology_bias[..., None] * self.alpha, one], dim=2
        )
        # block-diagonal over the subsets, which are then adjacent in the result without a copy
        eye = torch.eye(NUM_SUBSETS, dtype=relation.dtype, device=x.device)
        blocks = eye[:, None, :, None]  # (3, 1, 3, 1)
        relation = (relation.unsqueeze(3) * blocks).flatten(3).flatten(1, 2)  # (N, 3 * (r + 2), 3 * V * V)
        mix = torch.bmm(weight.transpose(0, 1).flatten(1).expand(n, -1, -1), relation)  # (N, C, 3 * V * V)
        return mix.view(-1, NUM_SUBSETS * v, v)


class TemporalConvolution(nn.Module):
    """Apply four branches over frames, each to a quarter of the channels.

    Kernel 5, kernel 5 dilated by 2, max-pool 3, identity.
    """

    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // 4
        self.stem = Projection(channels, channels, fan_out=quarter)
        self.conv1 = _temporal_conv(quarter, dilation=1)
        self.conv2 = _temporal_conv(quarter, dilation=2)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(quarter) for _ in range(3))
        for bn in (self.stem.bn, self.bn1, self.bn2, self.bn3):
            nn.init.normal_(bn.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, V, T) -> the same shape
        narrow, wide, pooled, identity = self.stem(x).chunk(4, dim=1)
        narrow = self.bn1(self.conv1(F.relu(narrow)))
        wide = self.bn2(self.conv2(F.relu(wide)))
        pooled = self.bn3(F.max_pool2d(F.relu(pooled), (1, 3), stride=1, padding=(0, 1)))
        return torch.cat([narrow, wide, pooled, identity], dim=1)


class Projection(nn.Module):
    """1x1 convolution and BatchNorm.

    If this joins several layers of the reference, `fan_out` is that of one of them.
    """

    def __init__(self, in_channels: int, out_channels: int, fan_out: int | None = None):
        super().__init__()
        self.weight = nn.Parameter(_kaiming(out_channels, in_channels, fan_out=fan_out or out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, V, T) -> (N, C_out, V, T)
        return self.bn(pointwise(x, self.weight, self.bias))


class Unit(nn.Module):
    """Graph convolution, temporal convolution, outer residual, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, graph: Tensor, residual: bool = True):
        super().__init__()
        self.gcn = GraphConvolution(in_channels, out_channels, graph)
        self.tcn = TemporalConvolution(out_channels)
        self.residual = Projection(in_channels, out_channels) if residual else None

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, V, T) -> (N, C_out, V, T)
        y = self.tcn(self.gcn(x))
        return F.relu(y if self.residual is None else y + self.residual(x))


class Backbone(nn.Module):
    """BatchNorm of each (body, joint, coordinate), then units 3 -> c, c -> 4 c, 4 c -> c; c is `channels`."""

    def __init__(self, channels: int, joints: int, bodies: int, links: Sequence[tuple[int, int]]):
        super().__init__()
        graph = adjacency(joints, links)
        self.data_bn = nn.BatchNorm1d(bodies * joints * 3)
        self.l1 = Unit(3, channels, graph, residual=False)
        self.l2 = Unit(channels, 4 * channels, graph)
        self.l3 = Unit(4 * channels, channels, graph)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, M, c, V, T) of skeletons x (N, 3, T, V, M) in metres."""
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)  # (N, M * V * C, T)
        x = self.data_bn(x).view(n * m, v, c, t).transpose(1, 2).contiguous()  # (N * M, C, V, T)
        x = self.l3(self.l2(self.l1(x)))
        return x.view(n, m, -1, v, t)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the 1x1 convolution (N, C_out, V, T) of x (N, C_in, V, T); weight (C_out, C_in), bias (C_out,).

    This is one batched product; a convolution may reorder its input. The full-size step in bfloat16 on a CPU
    takes 4.0 instead of 5.3 s of CPU time (float32: 8.8 instead of 9.0 s; batch 16, one thread, AMX).
    """
    n, _, v, t = x.shape
    y = torch.baddbmm(bias[:, None].expand(n, -1, 1), weight.expand(n, -1, -1), x.flatten(2))
    return y.view(n, -1, v, t)


def _temporal_conv(channels: int, dilation: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2 * dilation), dilation=(1, dilation))
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


def _kaiming(*shape: int, fan_out: int) -> Tensor:
    return torch.randn(shape) * (2 / fan_out) ** 0.5
