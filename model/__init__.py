"""SCD-Net: encoders, disentangling decoders, cross-domain contrast, downstream model."""

from model.contrast import SCDNet
from model.downstream import DownstreamModel
from model.encoder import Encoder

__all__ = ["DownstreamModel", "Encoder", "SCDNet"]
