"""Clips as strips of stick figures, and one of the two augmented views that pre-training contrasts."""


import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engine.runlog import RunLog
from feeder.augmentations import NUM_BLOCKS, PretrainingViews, ViewParameters
from feeder.dataset import SkeletonDataset
from feeder.skeleton import JOINT_NAMES, LINKS

CELL = (76, 96)  # width and height of a frame's picture
LABEL = 150  # width of the text before a strip
WHITE, INK, PALE, GREY = (255, 255, 255), (30, 30, 30), (228, 228, 228), (120, 120, 120)
COLOURS = {"left": (31, 119, 180), "right": (214, 92, 20)}
CLIPS = 4


def show_views(log: RunLog, dataset: SkeletonDataset, views: PretrainingViews, seed: int) -> None:
    """Put a picture of some training clips and their two views into TensorBoard.

    Its generator is its own: training draws what it would have drawn. Whatever the stream, the clips are shown as joints:
    rotation, flip, shear and masks do the same to motion and bones.

    Args:
        log: of the run.
        dataset: training clips, of which some are taken evenly.
        views: the augmentation.
        seed: of the two views.
    """
    indices = np.linspace(0, len(dataset) - 1, min(CLIPS, len(dataset))).astype(int).tolist()
    batch = SkeletonDataset(dataset.folder, dataset.part)[indices]  # also where `dataset` has a share of each batch
    generator = torch.Generator().manual_seed(seed)
    joints = PretrainingViews("joint", views.size, views.bodies, views.p, views.masks)
    versions = {"whole clip": neutral(batch.num_frames)}
    versions |= {f"view {i}": joints.draw(batch.num_frames, generator) for i in (1, 2)}
    clips = {title: joints.apply(batch.x, unmasked(p)).numpy() for title, p in versions.items()}
    strips = []
    for n, index in enumerate(indices):
        name = dataset.names[index].split(".")[0]
        for title, p in versions.items():
            text = f"{name}\n{title}\n{told(p, n)}" if title == "whole clip" else f"{title}\n{told(p, n)}"
            strips.append(draw_strip(clips[title][n], p.joints[n].numpy(), p.blocks[n].numpy(), text))
        strips.append(np.full((8, strips[0].shape[1], 3), 255, np.uint8))  # between clips
    log.image("views/pretraining", np.concatenate(strips))


def neutral(num_frames: Tensor) -> ViewParameters:
    """Return the parameters of the whole clips without augmentation; num_frames (N,) ints."""
    n = len(num_frames)
    return ViewParameters(
        start=torch.zeros(n, dtype=torch.long), length=num_frames.long(), degrees=torch.zeros(n, 3),
        flipped=torch.zeros(n, dtype=torch.bool), coefficients=torch.zeros(n, 6),
        joints=torch.zeros(n, len(JOINT_NAMES), dtype=torch.bool), blocks=torch.zeros(n, NUM_BLOCKS, dtype=torch.bool),
    )  # fmt: skip


def unmasked(p: ViewParameters) -> ViewParameters:
    """Return the parameters without their masks: a masked joint is zero, which is also where a joint may stand."""
    return p._replace(joints=p.joints & False, blocks=p.blocks & False)


def told(p: ViewParameters, n: int) -> str:
    """Return what fell on sample n, in a few words, a line each."""
    lines = [f"frames {int(p.start[n])} .. {int(p.start[n] + p.length[n])}"]
    if p.degrees[n].any():
        axis = int(p.degrees[n].argmax())
        lines.append(f"rotated {p.degrees[n, axis]:.0f}\N{DEGREE SIGN} about {'xyz'[axis]}")
    lines += ["left and right swapped"] * bool(p.flipped[n]) + ["sheared"] * bool(p.coefficients[n].any())
    masked = ["joints"] * bool(p.joints[n].any()) + ["frames"] * bool(p.blocks[n].any())
    return "\n".join(lines + ["masked: " + ", ".join(masked)] * bool(masked))


def draw_strip(clip: np.ndarray, masked_joints: np.ndarray, masked_blocks: np.ndarray, text: str = "") -> np.ndarray:
    """Return the picture of a clip, one frame a block from left to right: (height, width, 3) uint8.

    Masked frames are grey fields without a figure, masked joints and the bones to them are missing, and so is a body
    that is zero throughout a frame. All of the strip has one scale, which shows every joint whole.

    Args:
        clip: (3, T, V, M) metres, upright along z; x is to the right of the picture.
        masked_joints: (V,) bool.
        masked_blocks: (blocks,) bool, T a multiple of blocks.
        text: to be written before the strip.
    """
    blocks = len(masked_blocks)
    frames = clip[:, :: clip.shape[1] // blocks].transpose(1, 3, 2, 0)  # (blocks, M, V, 3)
    points = place(frames)
    image = Image.new("RGB", (LABEL + blocks * CELL[0], CELL[1]), WHITE)
    ImageDraw.Draw(image).text((6, 4), text, INK, ImageFont.load_default(10))
    for b in range(blocks):
        cell = Image.new("RGB", CELL, PALE if masked_blocks[b] else WHITE)
        pen = ImageDraw.Draw(cell)
        pen.rectangle((0, 0, CELL[0] - 1, CELL[1] - 1), outline=PALE)
        bodies = [] if masked_blocks[b] else [m for m in range(len(points[b])) if frames[b, m].any()]
        for m in bodies:
            draw_figure(pen, points[b, m], ~masked_joints)
        image.paste(cell, (LABEL + b * CELL[0], 0))
    return np.asarray(image)


def place(frames: np.ndarray, border: int = 6) -> np.ndarray:
    """Return where the joints of frames (T, M, V, 3) metres stand in a cell: (T, M, V, 2) pixels from its upper left corner.

    One scale and one shift fit every joint of every body that is there into the cell, less `border` pixels on each side.
    """
    seen = frames[frames.any(axis=(2, 3))][..., [0, 2]].reshape(-1, 2)  # x and z
    if not len(seen):
        return np.zeros((*frames.shape[:-1], 2))
    low, high = seen.min(axis=0), seen.max(axis=0)
    room = np.array(CELL) - 2 * border - 1
    scale = (room / np.maximum(high - low, 1e-6)).min()
    points = (frames[..., [0, 2]] - (low + high) / 2) * scale * [1, -1]  # pictures count downwards
    return points + (np.array(CELL) - 1) / 2


def draw_figure(pen: ImageDraw.ImageDraw, points: np.ndarray, visible: np.ndarray) -> None:
    """Draw the bones between visible joints, left blue, right orange, and the joints as dots; points (V, 2) pixels."""
    for joint, parent in LINKS:
        if visible[joint] and visible[parent]:
            side = JOINT_NAMES[joint].split()[0]
            pen.line((*points[joint], *points[parent]), fill=COLOURS.get(side, GREY), width=2)
    for x, y in points[visible]:
        pen.rectangle((round(x) - 1, round(y) - 1, round(x) + 1, round(y) + 1), fill=INK)
