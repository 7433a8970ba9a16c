"""Downstream model: encoder features for retrieval, a linear layer for classification."""

from torch import Tensor, nn

from model.encoder import Encoder


class DownstreamModel(nn.Module):
    """An encoder with a linear layer `fc` on [v_t, v_s].

    Args:
        encoder: an `Encoder` or its arguments.
        num_classes: outputs of the linear layer; its weights are initialised N(0, 0.01), its bias 0.
    """

    def __init__(self, encoder: Encoder | dict, num_classes: int):
        super().__init__()
        self.encoder = Encoder(**encoder) if isinstance(encoder, dict) else encoder
        self.fc = nn.Linear(2 * self.encoder.sizes["hidden_size"], num_classes)
        nn.init.normal_(self.fc.weight, 0.0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return [v_t, v_s], (N, 2 d), of clips x (N, 3, T, V, M) in metres."""
        return self.encoder.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores (N, num_classes) of clips x (N, 3, T, V, M) in metres."""
        return self.fc(self.features(x))
