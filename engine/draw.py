"""Draw a clip as stick figures.

    python -m engine.draw CLIP --out clip.png --views 2
    python -m engine.draw CLIP --out clip.gif

CLIP is a `.skeleton` file or FOLDER/NAME, a sample of a prepared split. A .png is a strip of frames; --views
adds augmented views as in pre-training, labelled with their augmentations. A .gif is an animation.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feeder.augmentations import NUM_BLOCKS, PretrainingViews, ViewParameters, centre_crop
from feeder.cli import CommandLine, UserError, script
from feeder.clips import read_clips
from feeder.skeleton import JOINT_NAMES, LINKS, SPINE_MID

CELL, LARGE = (76, 96), (240, 300)  # width and height of a frame in a strip, and in an animation
TEXT = 150  # width of the text of a strip
COLOURS = {"left": (31, 119, 180), "right": (214, 92, 20)}
MILLISECONDS = 66  # per frame of an animation, which shows every second frame of a 30 Hz recording


def describe_view(p: ViewParameters, n: int) -> str:
    """Return the augmentations of sample n, one per line."""
    axis = int(p.degrees[n].argmax())
    lines = {
        f"frames {int(p.start[n])} .. {int(p.start[n] + p.length[n]) - 1}": True,
        f"rotated {p.degrees[n, axis]:.0f}\N{DEGREE SIGN} about {'xyz'[axis]}": p.degrees[n].any(),
        "left and right swapped": p.flipped[n],
        "sheared": p.coefficients[n].any(),
        "masked joints": p.joints[n].any(),
        "masked frames": p.blocks[n].any(),
    }
    return "\n".join(line for line, applied in lines.items() if applied)


def draw_frames(clip: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Return an image (height, width, 3) uint8 of each frame of a clip (3, T, V, M), all at the same scale.

    Bones are lines, left blue, right orange; x points to the right, z upwards. Joints at the origin are not
    drawn: they are masked, or their frame is masked or their body absent.
    """
    from PIL import Image, ImageDraw  # comes with tensorboard

    points = clip[[0, 2]].transpose(1, 3, 2, 0)  # (T, M, V, 2)
    visible = clip.any(axis=0).transpose(0, 2, 1)  # (T, M, V)
    visible[:, :, SPINE_MID] = visible.any(axis=2)  # at the origin in every frame of a prepared recording
    if visible.any():
        low, high = points[visible].min(axis=0), points[visible].max(axis=0)
        scale = ((np.array(size) - 13) / np.maximum(high - low, 1e-6)).min()
        # rows of an image count downwards
        points = (points - (low + high) / 2) * scale * [1, -1] + np.array(size) / 2
    images = []
    for bodies, seen in zip(points, visible, strict=True):
        image = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(image)
        for body, (joint, parent) in ((body, link) for body in range(len(bodies)) for link in LINKS):
            if seen[body, joint] and seen[body, parent]:
                colour = COLOURS.get(JOINT_NAMES[joint].split()[0], (120, 120, 120))
                pen.line([*bodies[body, [joint, parent]].ravel()], colour, width=2)
        images.append(np.asarray(image))
    return images


def draw_strip(clip: np.ndarray, text: str) -> np.ndarray:
    """Return the image (height, width, 3) uint8 of a text and one frame of each temporal block of a clip."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (TEXT, CELL[1]), "white")
    ImageDraw.Draw(image).text((6, 4), text, "black", ImageFont.load_default(10))
    frames = draw_frames(clip[:, :: clip.shape[1] // NUM_BLOCKS], CELL)
    return np.concatenate([np.asarray(image), *frames], axis=1)


def draw_views(
    x: Tensor, num_frames: Tensor, names: Sequence[str], parameters: Sequence[ViewParameters], size: int
) -> np.ndarray:
    """Return an image of clips, each followed by its views: (height, width, 3) uint8.

    Args:
        x: clips (N, 3, T, V, M) in metres.
        num_frames: valid frames of each clip, (N,) ints.
        names: names of the clips.
        parameters: parameters of each view.
        size: number of frames of a view.
    """
    views = PretrainingViews("joint", size, x.shape[-1])
    clips = [centre_crop(x, num_frames, ratio=1, size=size), *(views.apply(x, p) for p in parameters)]
    strips = []
    for n, name in enumerate(names):
        texts = [f"{name.split('.')[0]}\nwhole clip", *(describe_view(p, n) for p in parameters)]
        strips += [draw_strip(clip[n].numpy(), text) for clip, text in zip(clips, texts, strict=True)]
    return np.concatenate(strips)


def get_parser() -> CommandLine:
    """Return the argument parser."""
    parser = CommandLine("engine.draw", __doc__)
    add = parser.add_argument
    add("clip", type=Path, metavar="CLIP", help="a .skeleton file, or FOLDER/NAME of a prepared split")
    add("--out", type=Path, required=True, metavar="FILE", help="the .png or .gif to write")
    add("--views", type=int, default=0, metavar="N", help="augmented views in a .png (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the views (%(default)s)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Draw the clip that the command line names."""
    from PIL import Image

    parser = get_parser()
    args = parser.parse_args(argv)
    kind = args.out.suffix.lower()
    if kind not in (".png", ".gif"):
        parser.error("--out is a .png or a .gif")
    if args.views and kind == ".gif":
        parser.error("--views needs a .png")
    clip, *others = itertools.islice(read_clips([args.clip]), 2)
    if others:
        raise UserError(f"{args.clip} has several clips: choose one, such as {args.clip / clip.name}")
    how = {}
    if kind == ".png":
        x, num_frames = torch.from_numpy(clip.x)[None], torch.tensor([clip.num_frames])
        generator, views = torch.Generator().manual_seed(args.seed), PretrainingViews()
        parameters = [views.draw(num_frames, generator) for _ in range(args.views)]
        image = Image.fromarray(draw_views(x, num_frames, [clip.name], parameters, size=64))
    else:
        frames = draw_frames(clip.x[:, : clip.num_frames : 2], LARGE)
        image, *rest = [Image.fromarray(frame) for frame in frames]
        how = dict(save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    image.save(args.out, **how)
    print(f"{args.out}: {clip.name}, {clip.num_frames} frames")


if __name__ == "__main__":
    main()
