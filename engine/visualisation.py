"""Class accuracies as text, and images for TensorBoard."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.draw import draw_views
from engine.runlog import RunLog
from feeder.augmentations import PretrainingViews
from feeder.data_sets import DATA_SETS, class_names
from feeder.dataset import SkeletonDataset

WORST, CONFUSED = 20, 10  # classes and confused pairs that are listed
POINTS, DIMENSIONS = 1000, 64  # of the embeddings, few enough for a browser
CLIPS = 4  # shown with their views


def report_classes(log: RunLog, test: SkeletonDataset, predictions: Tensor, features: Tensor | None) -> None:
    """Print the accuracy of each class; show the confusion matrix and the features in TensorBoard.

    `predictions` (N,) and `features` (N, D) are those of the test samples; without features, no embeddings
    are shown.
    """
    labels, predicted = test.labels, predictions.cpu().numpy()
    n = DATA_SETS[log.run.data_set].num_classes
    classes = class_names(log.run.data_set, n)
    matrix = np.bincount(labels * n + predicted, minlength=n**2).reshape(n, n)
    for line in describe_classes(matrix, classes):
        log.print(line)

    # heat map: share of each row, one cell for each pair of classes
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = (255 * (1 - share)).astype(np.uint8).repeat(11, axis=0).repeat(11, axis=1)
    log.events.add_image("confusion/test", np.stack([pixels] * 3, axis=2), dataformats="HWC")

    # embeddings: some normalised features, projected onto axes that preserve nearly all of their cosines
    if features is not None:
        chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(features))[:POINTS])
        x = F.normalize(features[chosen.to(features.device)].detach().float().cpu(), dim=1)
        u, s, _ = torch.pca_lowrank(x, min(DIMENSIONS, *x.shape), center=False)
        rows = [[classes[labels[i]], classes[predicted[i]], " ".join(test.names[i].split())] for i in chosen]
        log.events.add_embedding(u * s, rows, tag="test", metadata_header=["class", "predicted as", "sample"])


def describe_classes(matrix: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return lines on a confusion matrix [class, prediction]: the worst classes, the most confused pairs."""
    titles = [name if name == f"class {label}" else f"{label} {name}" for label, name in enumerate(names)]
    counts, correct = matrix.sum(axis=1), matrix.diagonal()
    tested = np.flatnonzero(counts)
    accuracies = 100 * correct[tested] / counts[tested]
    order = tested[np.argsort(accuracies, kind="stable")]
    shown = f"; the worst {WORST}" if len(order) > WORST else ""
    lines = [f"Acc@1 of each class, mean {accuracies.mean():.1f}{shown}:"]
    for i in order[:WORST]:
        lines.append(f"  {100 * correct[i] / counts[i]:5.1f}  {correct[i]}/{counts[i]}  {titles[i]}")

    # the most frequent errors first, ties by label
    errors = sorted((-matrix[i, j], i, j) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j)
    if errors:
        lines.append("most confused (clips, class -> predicted as):")
    for count, i, j in errors[:CONFUSED]:
        lines.append(f"  {-count}/{counts[i]}  {titles[i]} -> {titles[j]}")
    return lines


def show_views(log: RunLog, dataset: SkeletonDataset, views: PretrainingViews, seed: int) -> None:
    """Show some training clips and two augmented views of each, always as joints, in TensorBoard.

    The views use a separate generator, so training is not affected.
    """
    indices = np.linspace(0, len(dataset) - 1, min(CLIPS, len(dataset))).astype(int).tolist()
    batch, generator = dataset[indices], torch.Generator().manual_seed(seed)
    x, names = batch.x[..., : views.bodies], [dataset.names[index] for index in indices]
    parameters = [views.draw(batch.num_frames, generator) for _ in range(2)]
    image = draw_views(x, batch.num_frames, names, parameters, views.size)
    log.events.add_image("views/pretraining", image, dataformats="HWC")
