"""Augmentations as pure batched operations, and what draws their parameters.

x is a float tensor (N, C, T, V, M) on any device, metres; every operation returns a new one. Parameters are explicit, one
row a sample. Randomness is in `PretrainingViews` alone, drawn on the CPU from a `torch.Generator`, so that a seed gives
the same views wherever the batch is.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from feeder.skeleton import LINKS, MIRROR, NUM_BODIES, NUM_JOINTS, PARENTS

STREAMS = ("joint", "motion", "bone")
NUM_BLOCKS, MASKED_BLOCKS = 16, 6
NUM_SEEDS, MASKED_JOINTS = 5, 8
CENTRE_RATIO = 0.95


def crop_resize(x: Tensor, start: Tensor, length: Tensor, size: int = 64) -> Tensor:
    """Return frames start .. start + length of each clip, resized to `size` frames: (N, C, size, V, M).

    Linear between frames, half-pixel centres, no antialiasing, as `torch.nn.functional.interpolate` does it.

    Args:
        x: clips (N, C, T, V, M).
        start: first frame of each crop, (N,) ints.
        length: frames of each crop, (N,) ints, at least 1, start + length at most T.
        size: frames of the result.

    Raises:
        ValueError: a crop is empty or leaves its clip.
    """
    if ((start < 0) | (length < 1) | (start + length > x.shape[2])).any():
        raise ValueError(f"a crop is empty or leaves its clip of {x.shape[2]} frames")
    start, length = start.to(x.device)[:, None], length.to(x.device)[:, None]  # (N, 1)
    grid = torch.arange(size, device=x.device, dtype=torch.float32) + 0.5
    position = (grid * (length / size) - 0.5).clamp(min=0)  # (N, size)
    left = torch.minimum(position.long(), length - 1)
    right = torch.minimum(left + 1, length - 1)
    weight = (position - left).to(x.dtype)[:, None, :, None, None]  # (N, 1, size, 1, 1)
    return torch.lerp(_take_frames(x, start + left), _take_frames(x, start + right), weight)


def centre_crop(x: Tensor, num_frames: Tensor, ratio: float = CENTRE_RATIO, size: int = 64) -> Tensor:
    """Return the middle of each clip, resized to `size` frames: the input of every downstream task.

    Args:
        x: clips (N, C, T, V, M).
        num_frames: valid frames n of each clip, (N,) ints; the crop is int((1 - ratio) n / 2) .. n - int((1 - ratio) n / 2).
        ratio: share of the clip to keep, in (0, 1].
        size: frames of the result.
    """
    start = ((1 - ratio) * num_frames.double() / 2).long()
    return crop_resize(x, start, num_frames - 2 * start, size)


def motion(x: Tensor) -> Tensor:
    """Return x[t + 1] - x[t], the last frame 0: (N, C, T, V, M) of x (N, C, T, V, M)."""
    return torch.cat([x.diff(dim=2), torch.zeros_like(x[:, :, :1])], dim=2)


def bone(x: Tensor) -> Tensor:
    """Return each joint minus its parent, the root 0: (N, C, T, V, M) of x (N, C, T, V, M)."""
    return x - x[:, :, :, list(PARENTS)]


def to_stream(x: Tensor, stream: str) -> Tensor:
    """Return the joint, motion or bone form of x, both (N, C, T, V, M)."""
    return {"joint": lambda x: x, "motion": motion, "bone": bone}[stream](x)


def flip(x: Tensor) -> Tensor:
    """Return x (N, C, T, V, M) with left and right joints swapped; coordinates are not mirrored, as in the reference."""
    return x[:, :, :, list(MIRROR)]


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Return x (N, 3, T, V, M) rotated about x, then y, then z, by degrees (N, 3), each clockwise seen from the axis' tip."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    matrix = torch.eye(3, dtype=degrees.dtype, device=degrees.device)
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        turn = torch.eye(3, dtype=degrees.dtype, device=degrees.device).repeat(len(degrees), 1, 1)
        turn[:, i, i] = turn[:, j, j] = cos[:, axis]
        turn[:, i, j], turn[:, j, i] = sin[:, axis], -sin[:, axis]
        matrix = turn @ matrix
    return _transform(x, matrix)


def shear(x: Tensor, coefficients: Tensor) -> Tensor:
    """Return x (N, 3, T, V, M) sheared by unit diagonal and coefficients (N, 6), row by row off the diagonal."""
    matrix = torch.eye(3, dtype=coefficients.dtype, device=coefficients.device).repeat(len(coefficients), 1, 1)
    rows, columns = [0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]
    matrix[:, rows, columns] = coefficients
    return _transform(x, matrix)


def mask_joints(x: Tensor, joints: Tensor) -> Tensor:
    """Return x (N, C, T, V, M) with the joints (N, V) bool zeroed in all frames and both bodies."""
    return x.masked_fill(joints.to(x.device)[:, None, None, :, None], 0)


def mask_blocks(x: Tensor, blocks: Tensor) -> Tensor:
    """Return x (N, C, T, V, M) with blocks of frames zeroed; blocks (N, B) bool, B divides T."""
    frames = blocks.to(x.device).repeat_interleave(x.shape[2] // blocks.shape[1], dim=1)  # (N, T)
    return x.masked_fill(frames[:, None, :, None, None], 0)


def joint_votes(seeds: Tensor) -> Tensor:
    """Return how many walks of two steps (a step may stay) lead from the seeds (N, S) to each joint: (N, V) ints.

    The structural constraint of the spatial mask: joints near the seeds in the body are masked together.
    """
    step = torch.eye(NUM_JOINTS, dtype=torch.long)
    for joint, parent in LINKS:
        step[joint, parent] = step[parent, joint] = 1
    return (step @ step)[seeds.cpu()].sum(dim=1).to(seeds.device)


def most_voted(votes: Tensor) -> Tensor:
    """Return a mask (N, V) bool of the joints with most of the votes (N, V); of equals those of higher number.

    In the reference equals fall as NumPy's sort has it, which is not the same on every CPU.
    """
    chosen = votes.argsort(dim=1, stable=True)[:, -MASKED_JOINTS:]
    return torch.zeros_like(votes, dtype=torch.bool).scatter_(1, chosen, True)


@dataclass
class ViewParameters:
    """What was drawn for one view of a batch; one row a sample, neutral values where an augmentation did not fall."""

    start: Tensor  # (N,)
    length: Tensor  # (N,)
    degrees: Tensor  # (N, 3)
    flipped: Tensor  # (N,) bool
    coefficients: Tensor  # (N, 6)
    joints: Tensor  # (N, V) bool
    blocks: Tensor  # (N, 16) bool

    def __getitem__(self, rows: slice) -> "ViewParameters":
        return ViewParameters(*(getattr(self, field.name)[rows] for field in fields(self)))


class PretrainingViews:
    """Draws and applies the augmentations of pre-training: a batch becomes two independent views.

    Args:
        stream: joint, motion or bone.
        size: frames T of a view.
        bodies: M of a view, the first ones of a clip.
        p: chance of each of rotation, flip, shear, spatial and temporal mask.
        masks: False leaves both masks out, an ablation; all else is drawn as with them.
        rows: which clips of each batch are this process's; all where it is alone. It draws for the whole batch, so that the
            views are the same whoever has the clips.
    """

    def __init__(
        self,
        stream: str = "joint",
        size: int = 64,
        bodies: int = NUM_BODIES,
        p: float = 0.5,
        masks: bool = True,
        rows: slice = slice(None),
    ):
        if stream not in STREAMS:
            raise ValueError(f"no stream {stream!r}: choose from {', '.join(STREAMS)}")
        if size % NUM_BLOCKS:
            raise ValueError(f"{size} frames do not part into {NUM_BLOCKS} blocks: give a multiple of {NUM_BLOCKS}")
        self.stream, self.size, self.bodies, self.p, self.masks, self.rows = stream, size, bodies, p, masks, rows

    def __call__(self, x: Tensor, num_frames: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return two views, each (N, C, size, V, M).

        Args:
            x: clips (N, C, T, V, M), metres, on any device: `rows` of the batch.
            num_frames: valid frames of each clip of the whole batch, (N,) ints in 1 .. T.
            generator: a CPU generator; None is torch's global one.
        """
        q = self.draw(num_frames, generator)[self.rows]
        k = self.draw(num_frames, generator)[self.rows]
        return self.apply(x, q), self.apply(x, k)

    def draw(self, num_frames: Tensor, generator: torch.Generator | None = None) -> ViewParameters:
        """Return the drawn parameters of one view; num_frames (N,) ints."""
        num_frames = num_frames.cpu()
        n = len(num_frames)
        start, length = self._draw_crop(num_frames, generator)
        main_axis = torch.randint(3, (n, 1), generator=generator)
        reach = torch.where(torch.arange(3) == main_axis, 30.0, 1.0)  # (N, 3)
        degrees = torch.rand(n, 3, generator=generator) * reach
        coefficients = torch.rand(n, 6, generator=generator) * 2 - 1
        seeds = torch.randint(NUM_JOINTS, (n, NUM_SEEDS), generator=generator)
        order = torch.rand(n, NUM_BLOCKS, generator=generator).argsort(dim=1)
        rotated, flipped, sheared, spatial, temporal = torch.rand(5, n, generator=generator) < self.p
        return ViewParameters(
            start=start,
            length=length,
            degrees=degrees * rotated[:, None],
            flipped=flipped,
            coefficients=coefficients * sheared[:, None],
            joints=most_voted(joint_votes(seeds)) & (spatial & self.masks)[:, None],
            blocks=(order < MASKED_BLOCKS) & (temporal & self.masks)[:, None],
        )

    def _draw_crop(self, num_frames: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        ratio = 0.1 + 0.9 * torch.rand(len(num_frames), generator=generator, dtype=torch.float64)
        length = torch.minimum((num_frames * ratio).long().clamp(min=self.size), num_frames)
        room = num_frames - length + 1
        start = (torch.rand(len(num_frames), generator=generator, dtype=torch.float64) * room).long()
        return start, length

    def apply(self, x: Tensor, parameters: ViewParameters) -> Tensor:
        """Return the view (N, C, size, V, bodies) of clips x (N, C, T, V, M) that the parameters describe."""
        p = parameters
        x = to_stream(crop_resize(x[..., : self.bodies], p.start, p.length, self.size), self.stream)
        x = rotate(x, p.degrees)
        x = torch.where(p.flipped.to(x.device)[:, None, None, None, None], flip(x), x)
        x = shear(x, p.coefficients)
        return mask_blocks(mask_joints(x, p.joints), p.blocks)


def _take_frames(x: Tensor, index: Tensor) -> Tensor:
    """Return frames `index` (N, S) of x (N, C, T, V, M): (N, C, S, V, M)."""
    n, c = x.shape[:2]
    samples = torch.arange(n, device=x.device)[:, None, None]
    channels = torch.arange(c, device=x.device)[None, :, None]
    return x[samples, channels, index[:, None]]


def _transform(x: Tensor, matrix: Tensor) -> Tensor:
    """Return matrix (N, 3, 3) times the coordinates of x (N, 3, T, V, M)."""
    return torch.bmm(matrix.to(x), x.flatten(2)).view_as(x)
