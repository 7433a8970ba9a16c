"""Class accuracies as text, and images for TensorBoard."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.features import Task
from engine.runlog import RunLog
from feeder.augmentations import NUM_BLOCKS, PretrainingViews, ViewParameters, centre_crop
from feeder.class_names import class_names
from feeder.dataset import SkeletonDataset
from feeder.skeleton import JOINT_NAMES, LINKS, SPINE_MID

WORST, PAIRS = 20, 10  # classes and confused pairs that are listed
POINTS, DIMENSIONS = 1000, 64  # of the embeddings, few enough for a browser
CLIPS = 4  # shown with their views
CELL, TEXT = (76, 96), 150  # width and height of the image of a frame, width of the text of a strip
COLOURS = {"left": (31, 119, 180), "right": (214, 92, 20)}


def report_classes(log: RunLog, task: Task, predictions: Tensor, features: Tensor | None) -> None:
    """Print the accuracy of the classes; show the confusion matrix and the features in TensorBoard.

    `predictions` (N,) and `features` (N, D) are those of the test samples; without features there are no
    embeddings.
    """
    num_classes, labels, predicted = task.num_classes, task.test.labels, predictions.cpu().numpy()
    classes = class_names(task.run.data_set, num_classes)
    matrix = np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )
    for line in describe_classes(matrix, classes):
        log.print(line)

    # heat map: share of each row, one cell for each pair of classes
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = (255 * (1 - share)).astype(np.uint8).repeat(11, axis=0).repeat(11, axis=1)
    log.image("confusion/test", np.stack([pixels] * 3, axis=2))

    # embeddings: directions of some features, rotated to the axes that keep nearly all of their cosines
    if features is not None:
        chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(features))[:POINTS])
        x = F.normalize(features[chosen.to(features.device)].detach().float().cpu(), dim=1)
        u, s, _ = torch.pca_lowrank(x, min(DIMENSIONS, *x.shape), center=False)
        rows = [
            [classes[labels[i]], classes[predicted[i]], " ".join(task.test.names[i].split())] for i in chosen
        ]
        log.events.add_embedding(u * s, rows, tag="test", metadata_header=["class", "predicted as", "sample"])


def describe_classes(matrix: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return lines on a confusion matrix [class, prediction]: the worst classes, the most confused pairs."""
    titles = [name if name == f"class {label}" else f"{label} {name}" for label, name in enumerate(names)]
    counts, correct = matrix.sum(axis=1), matrix.diagonal()
    tested = np.flatnonzero(counts)
    accuracies = 100 * correct[tested] / counts[tested]
    order = tested[np.argsort(accuracies, kind="stable")]
    lines = [
        f"Acc@1 of each class, mean {accuracies.mean():.1f}"
        + (f"; the worst {WORST}:" if len(order) > WORST else ":")
    ]
    lines += [
        f"  {100 * correct[i] / counts[i]:5.1f}  {correct[i]}/{counts[i]}  {titles[i]}" for i in order[:WORST]
    ]

    # the most frequent errors first, ties by label
    errors = sorted((-matrix[i, j], i, j) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j)
    lines += ["most confused (clips, class -> predicted as):"] if errors else []
    return lines + [f"  {-count}/{counts[i]}  {titles[i]} -> {titles[j]}" for count, i, j in errors[:PAIRS]]


def show_views(log: RunLog, dataset: SkeletonDataset, views: PretrainingViews, seed: int) -> None:
    """Show some training clips and two augmented views of each, always as joints, in TensorBoard.

    The views use a separate generator, so training is not affected.
    """
    indices = np.linspace(0, len(dataset) - 1, min(CLIPS, len(dataset))).astype(int).tolist()
    batch, generator = dataset[indices], torch.Generator().manual_seed(seed)
    joints = copy.copy(views)
    joints.stream = "joint"
    parameters = [joints.draw(batch.num_frames, generator) for _ in range(2)]
    clips = [
        centre_crop(batch.x, batch.num_frames, ratio=1, size=views.size),
        *(joints.apply(batch.x, p) for p in parameters),
    ]
    strips = []
    for n, index in enumerate(indices):
        texts = [
            f"{dataset.names[index].split('.')[0]}\nwhole clip",
            *(describe_view(p, n) for p in parameters),
        ]
        strips += [draw_strip(clip[n].numpy(), text) for clip, text in zip(clips, texts, strict=True)]
    log.image("views/pretraining", np.concatenate(strips))


def describe_view(p: ViewParameters, n: int) -> str:
    """Return the augmentations of sample n, one per line."""
    axis = int(p.degrees[n].argmax())
    lines = {
        f"frames {int(p.start[n])} .. {int(p.start[n] + p.length[n])}": True,
        f"rotated {p.degrees[n, axis]:.0f}\N{DEGREE SIGN} about {'xyz'[axis]}": p.degrees[n].any(),
        "left and right swapped": p.flipped[n],
        "sheared": p.coefficients[n].any(),
        "masked joints": p.joints[n].any(),
        "masked frames": p.blocks[n].any(),
    }
    return "\n".join(line for line, applied in lines.items() if applied)


def draw_strip(clip: np.ndarray, text: str) -> np.ndarray:
    """Return the image (height, width, 3) uint8 of a clip: one frame of each temporal block.

    Bones of the clip (3, T, V, M) are lines, left blue, right orange. All frames have the same scale; x
    points to the right, z upwards. Joints at the origin are not drawn: they are masked, or their frame is
    masked or their body absent.
    """
    from PIL import Image, ImageDraw, ImageFont  # comes with tensorboard; `RunLog` says so if that is missing

    points = clip[[0, 2], :: clip.shape[1] // NUM_BLOCKS].transpose(1, 3, 2, 0)  # (blocks, M, V, 2)
    visible = clip[:, :: clip.shape[1] // NUM_BLOCKS].any(axis=0).transpose(0, 2, 1)  # (blocks, M, V)
    visible[:, :, SPINE_MID] = visible.any(axis=2)  # at the origin in every frame of a prepared recording
    image = Image.new("RGB", (TEXT + NUM_BLOCKS * CELL[0], CELL[1]), "white")
    pen = ImageDraw.Draw(image)
    pen.text((6, 4), text, "black", ImageFont.load_default(10))
    if visible.any():
        low, high = points[visible].min(axis=0), points[visible].max(axis=0)
        scale = ((np.array(CELL) - 13) / np.maximum(high - low, 1e-6)).min()
        points = (points - (low + high) / 2) * scale * [1, -1] + np.array(
            CELL
        ) / 2  # rows of an image count downwards
    for block, body, joint, parent in [
        (*place, *link) for place in np.ndindex(visible.shape[:2]) for link in LINKS
    ]:
        if visible[block, body, joint] and visible[block, body, parent]:
            ends = points[block, body, [joint, parent]] + [TEXT + block * CELL[0], 0]
            pen.line([*ends.ravel()], COLOURS.get(JOINT_NAMES[joint].split()[0], (120, 120, 120)), width=2)
    return np.asarray(image)
