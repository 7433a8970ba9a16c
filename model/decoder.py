"""Disentangling decoders: from the features of an encoder to the embeddings that the contrast compares."""

import torch
from torch import Tensor, nn

from model.encoder import Encoder, xavier_


class Decoder(nn.Module):
    """Maps v_t and v_s to z_t, z_s and the global anchor z_i, which reads both.

    Args:
        hidden_size: d of the encoder.
        dim: size of the embeddings.
    """

    def __init__(self, hidden_size: int, dim: int):
        super().__init__()
        self.t = _projection(hidden_size, hidden_size, dim)
        self.s = _projection(hidden_size, hidden_size, dim)
        self.i = _projection(2 * hidden_size, hidden_size, dim)
        xavier_(self)

    def forward(self, v_t: Tensor, v_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z_t, z_s, z_i, each (N, dim) and not normalised, of v_t and v_s (N, d)."""
        z_i = self.i(torch.cat([v_t, v_s], dim=1))
        return self.t(v_t), self.s(v_s), z_i


class PretrainingEncoder(nn.Module):
    """An encoder with its decoders: one of the two networks (query, key) of the contrast."""

    def __init__(self, encoder: Encoder, dim: int):
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.sizes["hidden_size"], dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z_t, z_s, z_i, each (N, dim), of clips x (N, 3, T, V, M) in metres."""
        return self.decoder(*self.encoder(x))


def _projection(in_size: int, hidden_size: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_size, hidden_size), nn.ReLU(inplace=True), nn.Linear(hidden_size, dim))
