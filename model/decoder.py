"""Disentangling decoders: map the features of an encoder to the embeddings of the contrast."""

import torch
from torch import Tensor, nn

from model.encoder import xavier_


class Decoder(nn.Module):
    """Map v_t and v_s to z_t, z_s and the global anchor z_i, which depends on both.

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
        return self.t(v_t), self.s(v_s), self.i(torch.cat([v_t, v_s], dim=1))


def _projection(in_size: int, hidden_size: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_size, hidden_size), nn.ReLU(inplace=True), nn.Linear(hidden_size, dim))
