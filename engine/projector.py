"""Features for TensorBoard's embedding projector, with labels and class names."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.files import write_text

CLIPS, DIMENSIONS = 1000, 64  # a browser draws them smoothly; half a MB, under a second


def write_projector(folder: Path, features: Tensor, columns: dict[str, list]) -> None:
    """Write features of some clips, with what is known of each, where TensorBoard's projector finds them.

    At most `CLIPS` clips, drawn evenly from all. Their directions are turned to their 64 main axes (an SVD without
    centring), which keeps nearly all of the cosines between them.

    Args:
        folder: of the run.
        features: (N, D), on any device.
        columns: for each heading, N entries; shown at a point, searched and coloured by.
    """
    chosen = np.random.default_rng(0).permutation(len(features))[:CLIPS]
    points = main_axes(features[torch.from_numpy(chosen).to(features.device)])
    rows = zip(*([_plain(column[i]) for i in chosen] for column in columns.values()), strict=True)
    files = {
        "projector_features.tsv": ["\t".join(f"{value:.5g}" for value in point) for point in points.tolist()],
        "projector_labels.tsv": ["\t".join(columns), *("\t".join(row) for row in rows)],
        "projector_config.pbtxt": [  # last: TensorBoard looks for it
            'embeddings { tensor_name: "test features"',
            '  tensor_path: "projector_features.tsv"',
            '  metadata_path: "projector_labels.tsv" }',
        ],
    }
    for name, lines in files.items():
        write_text(folder / name, "\n".join(lines) + "\n")


def main_axes(features: Tensor, dimensions: int = DIMENSIONS) -> Tensor:
    """Return the normalised features (N, D) along their main axes, (N, min(N, D, dimensions)), on the CPU."""
    x = F.normalize(features.detach().double().cpu(), dim=1)
    # The SVD by way of the inner products: N is 1,000 at most, D 4,096 or 9,600.
    values, vectors = torch.linalg.eigh(x @ x.T)  # ascending
    values, vectors = values.flip(0)[: min(*x.shape, dimensions)], vectors.flip(1)
    return (vectors[:, : len(values)] * values.clamp(min=0).sqrt()).float()


def _plain(entry: object) -> str:
    return " ".join(str(entry).split())
