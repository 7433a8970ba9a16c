"""Pictures for TensorBoard: stick figures of clips and their augmented views, confusion matrix, embeddings."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engine.evaluation import confusion_matrix, describe_classes
from engine.runlog import RunLog
from feeder.augmentations import NUM_BLOCKS, PretrainingViews, ViewParameters
from feeder.class_names import class_names
from feeder.dataset import SkeletonDataset
from feeder.skeleton import JOINT_NAMES, LINKS, NUM_JOINTS

CLIPS = 4  # shown with their views
CELL = (76, 96)  # width and height of the picture of a frame
LABEL = 150  # width of the text in front of a strip
WHITE, INK, PALE, GREY, BLUE = (255, 255, 255), (30, 30, 30), (228, 228, 228), (120, 120, 120), (8, 81, 156)
COLOURS = {"left": (31, 119, 180), "right": (214, 92, 20)}
POINTS, DIMENSIONS = 1000, 64  # of the embeddings: a browser draws them smoothly


def report_classes(
    log: RunLog,
    data_set: str,
    num_classes: int,
    names: Sequence[str],
    labels: Tensor,
    predictions: Tensor,
    features: Tensor | None,
) -> None:
    """Print the accuracy of the classes and the most confused pairs; show the confusion matrix and the features in TensorBoard.

    Args:
        log: log of the run.
        data_set: its name in the table of data sets.
        num_classes: number of classes of the data set.
        names: names of the N test samples.
        labels: (N,) ints, 0 .. num_classes - 1.
        predictions: (N,) ints, 0 .. num_classes - 1.
        features: (N, D); None leaves the embeddings out.
    """
    classes = class_names(data_set, num_classes)
    truth, predicted = labels.cpu().numpy(), predictions.cpu().numpy()
    matrix = confusion_matrix(truth, predicted, num_classes)
    for line in describe_classes(matrix, classes):
        log.print(line)
    log.image("confusion/test", draw_confusion(matrix))
    if features is not None:
        rows = [
            [classes[i], classes[j], "yes" if i == j else "no", str(i), " ".join(name.split())]
            for i, j, name in zip(truth, predicted, names, strict=True)
        ]
        add_embedding(log, features, rows, ["class", "predicted as", "correct", "label", "sample"])


def draw_confusion(matrix: np.ndarray) -> np.ndarray:
    """Return a heat map (height, width, 3) uint8 of a confusion matrix (classes, classes), [class, prediction].

    The shade of a cell is its share of the row, from white for none to dark blue for all.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shade = share[..., None] ** 0.6  # one sample in a hundred remains visible
    image = (np.array(WHITE) * (1 - shade) + np.array(BLUE) * shade).round().astype(np.uint8)
    cell = int(np.clip(1320 // len(matrix), 11, 36))  # pixels
    return image.repeat(cell, axis=0).repeat(cell, axis=1)


def add_embedding(log: RunLog, features: Tensor, rows: Sequence[list[str]], header: list[str]) -> None:
    """Show the directions of at most `POINTS` features (N, D), drawn at random, in TensorBoard's projector.

    They are rotated to their main axes (without centring), of which the first 64 keep nearly all of their cosines.
    """
    chosen = np.random.default_rng(0).permutation(len(features))[:POINTS]
    x = F.normalize(features[torch.from_numpy(chosen).to(features.device)].detach().double().cpu(), dim=1)
    values, vectors = torch.linalg.eigh(x @ x.T)  # ascending; much faster than the SVD of x
    points = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :DIMENSIONS].float()
    log.events.add_embedding(points, [rows[i] for i in chosen], tag="test", metadata_header=header)


def show_views(log: RunLog, dataset: SkeletonDataset, views: PretrainingViews, seed: int) -> None:
    """Show some training clips and two augmented views of each in TensorBoard.

    The views come from a generator of their own: training draws what it would have drawn. Whatever the stream, clips are
    shown as joints; rotation, flip, shear and masks do the same to motion and bones.

    Args:
        log: log of the run.
        dataset: training clips, of which a few are taken evenly.
        views: the augmentation.
        seed: seed of the two views.
    """
    indices = np.linspace(0, len(dataset) - 1, min(CLIPS, len(dataset))).astype(int).tolist()
    batch = SkeletonDataset(dataset.folder, dataset.part)[indices]
    generator = torch.Generator().manual_seed(seed)
    joints = PretrainingViews("joint", views.size, views.bodies, views.p, views.masks)
    versions = {"whole clip": no_augmentation(batch.num_frames)}
    versions |= {f"view {i}": joints.draw(batch.num_frames, generator) for i in (1, 2)}
    clips = {title: joints.apply(batch.x, without_masks(p)).numpy() for title, p in versions.items()}
    strips = []
    for n, index in enumerate(indices):
        for title, p in versions.items():
            name = f"{dataset.names[index].split('.')[0]}\n" if title == "whole clip" else ""
            text = f"{name}{title}\n{describe_view(p, n)}"
            strips.append(draw_strip(clips[title][n], p.joints[n].numpy(), p.blocks[n].numpy(), text))
        strips.append(np.full((8, strips[0].shape[1], 3), 255, np.uint8))  # between clips
    log.image("views/pretraining", np.concatenate(strips))


def no_augmentation(num_frames: Tensor) -> ViewParameters:
    """Return the parameters of whole clips of num_frames (N,) ints without augmentation."""
    n = len(num_frames)
    return ViewParameters(
        start=torch.zeros(n, dtype=torch.long),
        length=num_frames.long(),
        degrees=torch.zeros(n, 3),
        flipped=torch.zeros(n, dtype=torch.bool),
        coefficients=torch.zeros(n, 6),
        joints=torch.zeros(n, NUM_JOINTS, dtype=torch.bool),
        blocks=torch.zeros(n, NUM_BLOCKS, dtype=torch.bool),
    )


def without_masks(p: ViewParameters) -> ViewParameters:
    """Return the parameters without masks: a masked joint is at the origin, where a visible one may be too."""
    return p._replace(joints=torch.zeros_like(p.joints), blocks=torch.zeros_like(p.blocks))


def describe_view(p: ViewParameters, n: int) -> str:
    """Return which augmentations sample n has, one a line."""
    lines = [f"frames {int(p.start[n])} .. {int(p.start[n] + p.length[n])}"]
    if p.degrees[n].any():
        axis = int(p.degrees[n].argmax())
        lines.append(f"rotated {p.degrees[n, axis]:.0f}\N{DEGREE SIGN} about {'xyz'[axis]}")
    if p.flipped[n]:
        lines.append("left and right swapped")
    if p.coefficients[n].any():
        lines.append("sheared")
    masked = [name for name, mask in (("joints", p.joints[n]), ("frames", p.blocks[n])) if mask.any()]
    if masked:
        lines.append(f"masked: {', '.join(masked)}")
    return "\n".join(lines)


def draw_strip(clip: np.ndarray, masked_joints: np.ndarray, masked_blocks: np.ndarray, text: str = "") -> np.ndarray:
    """Return the picture of a clip, one frame of each block from left to right: (height, width, 3) uint8.

    Masked frames are grey, masked joints and their bones are missing, and so is a body that is zero throughout a frame.

    Args:
        clip: (3, T, V, M) metres, upright along z; x points to the right of the picture.
        masked_joints: (V,) bool.
        masked_blocks: (blocks,) bool, T a multiple of blocks.
        text: written in front of the strip.
    """
    blocks = len(masked_blocks)
    frames = clip[:, :: clip.shape[1] // blocks].transpose(1, 3, 2, 0)  # (blocks, M, V, 3)
    points = to_pixels(frames)
    image = Image.new("RGB", (LABEL + blocks * CELL[0], CELL[1]), WHITE)
    ImageDraw.Draw(image).text((6, 4), text, INK, ImageFont.load_default(10))
    for b in range(blocks):
        cell = Image.new("RGB", CELL, PALE if masked_blocks[b] else WHITE)
        pen = ImageDraw.Draw(cell)
        pen.rectangle((0, 0, CELL[0] - 1, CELL[1] - 1), outline=PALE)
        for body, body_points in zip(frames[b], points[b], strict=True):
            if body.any() and not masked_blocks[b]:
                draw_figure(pen, body_points, ~masked_joints)
        image.paste(cell, (LABEL + b * CELL[0], 0))
    return np.asarray(image)


def to_pixels(frames: np.ndarray, border: int = 6) -> np.ndarray:
    """Return the pixels (T, M, V, 2), from the upper left corner of a cell, of the joints of frames (T, M, V, 3) in metres.

    One scale and one shift fit every joint of every visible body into the cell, `border` pixels away from its edges.
    """
    visible = frames[frames.any(axis=(2, 3))][..., [0, 2]].reshape(-1, 2)  # x and z
    if not len(visible):
        return np.zeros((*frames.shape[:-1], 2))
    low, high = visible.min(axis=0), visible.max(axis=0)
    room = np.array(CELL) - 2 * border - 1
    scale = (room / np.maximum(high - low, 1e-6)).min()
    points = (frames[..., [0, 2]] - (low + high) / 2) * scale * [1, -1]  # rows of a picture count downwards
    return points + (np.array(CELL) - 1) / 2


def draw_figure(pen: ImageDraw.ImageDraw, points: np.ndarray, visible: np.ndarray) -> None:
    """Draw the bones between visible joints, left blue, right orange, and the joints as dots; points (V, 2) in pixels."""
    for joint, parent in LINKS:
        if visible[joint] and visible[parent]:
            side = JOINT_NAMES[joint].split()[0]
            pen.line((*points[joint], *points[parent]), fill=COLOURS.get(side, GREY), width=2)
    for x, y in points[visible]:
        pen.rectangle((round(x) - 1, round(y) - 1, round(x) + 1, round(y) + 1), fill=INK)
