"""Spatial and temporal encoders: a backbone and a transformer for each domain."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from feeder.skeleton import LINKS, NUM_BODIES, NUM_JOINTS
from model.backbone import Backbone


class Encoder(nn.Module):
    """Map a clip to a temporal and a spatial feature, v_t and v_s.

    Temporal tokens are frames, spatial tokens are joints of all bodies. The embedded tokens attend to each
    other, without positional encoding or class token; the feature is their maximum.

    Args:
        hidden_size: d, width of tokens and features, a multiple of num_head.
        num_head: attention heads.
        num_layer: transformer layers in each domain.
        channels: c of the backbone, a multiple of 4.
        frames: T.
        joints: V.
        bodies: M.
        links: (joint, parent) pairs of the skeleton.
        dropout: probability in the transformer layers.
    """

    def __init__(
        self,
        hidden_size: int = 2048,
        num_head: int = 8,
        num_layer: int = 1,
        channels: int = 64,
        frames: int = 64,
        joints: int = NUM_JOINTS,
        bodies: int = NUM_BODIES,
        links: Sequence[tuple[int, int]] = LINKS,
        dropout: float = 0.1,
    ):
        super().__init__()
        if min(hidden_size, num_head, num_layer, channels, frames, joints, bodies) < 1:
            raise ValueError("sizes of an encoder must be at least 1")
        if hidden_size % num_head:
            raise ValueError(f"hidden_size {hidden_size} is not a multiple of num_head {num_head}")
        if channels % 4:
            raise ValueError(f"channels {channels} is not a multiple of 4, the number of temporal branches")
        self.sizes = dict(hidden_size=hidden_size, num_head=num_head, num_layer=num_layer)
        self.sizes |= dict(channels=channels, frames=frames, joints=joints, bodies=bodies)
        self.backbone_t = Backbone(channels, joints, bodies, links)
        self.backbone_s = Backbone(channels, joints, bodies, links)
        self.embed_t = _embedding(bodies * joints * channels, hidden_size)
        self.embed_s = _embedding(frames * channels, hidden_size)
        self.transformer_t = _transformer(hidden_size, num_head, num_layer, dropout)
        self.transformer_s = _transformer(hidden_size, num_head, num_layer, dropout)
        xavier_(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return v_t and v_s, each (N, d), of clips x (N, 3, T, V, M) in metres."""
        expected = (3, self.sizes["frames"], self.sizes["joints"], self.sizes["bodies"])
        if x.shape[1:] != expected:
            raise ValueError(f"clips are (N, {', '.join(map(str, expected))}), not {tuple(x.shape)}")
        tokens_t = self.backbone_t(x).permute(0, 4, 1, 3, 2).flatten(2)  # (N, T, M * V * c)
        tokens_s = self.backbone_s(x).permute(0, 1, 3, 4, 2).flatten(3).flatten(1, 2)  # (N, M * V, T * c)
        v_t = self.transformer_t(self.embed_t(tokens_t)).amax(dim=1)  # (N, d)
        v_s = self.transformer_s(self.embed_s(tokens_s)).amax(dim=1)  # (N, d)
        return v_t, v_s

    def features(self, x: Tensor) -> Tensor:
        """Return [v_t, v_s], (N, 2 d), of clips x (N, 3, T, V, M) in metres."""
        return torch.cat(self(x), dim=1)


def xavier_(module: nn.Module) -> None:
    """Initialise the weights of linear and attention layers Xavier-uniformly, as the reference does."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.MultiheadAttention):
            nn.init.xavier_uniform_(layer.in_proj_weight)


def _embedding(token_size: int, d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(token_size, d), nn.LayerNorm(d), nn.ReLU(inplace=True), nn.Linear(d, d))


def _transformer(hidden_size: int, num_head: int, num_layer: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        hidden_size, num_head, dim_feedforward=hidden_size, dropout=dropout, batch_first=True
    )
    layer.self_attn.register_forward_pre_hook(_tokens_outermost)
    return nn.TransformerEncoder(layer, num_layer, enable_nested_tensor=False)


def _tokens_outermost(_attention: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return query, key and value: one tensor (N, tokens, d), stored as (tokens, N, d)."""
    # otherwise torch projects the tokens one by one and, in bfloat16, copies the weights for each
    x = args[0].transpose(0, 1).contiguous().transpose(0, 1)
    return x, x, x
