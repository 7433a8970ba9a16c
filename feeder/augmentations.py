"""Augmentations as pure batched functions, and `PretrainingViews`, which draws their parameters.

x is a float tensor (N, C, T, V, M) in metres on any device; no function changes its input. Parameters are
explicit, one row per sample. Random numbers are drawn by `draw_crop` and `PretrainingViews.draw` only, on the
CPU, so that a seed gives the same views on every device.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from feeder.skeleton import LINKS, MIRROR, NUM_BODIES, NUM_JOINTS, PARENTS

NUM_BLOCKS, MASKED_BLOCKS = 16, 6
NUM_SEEDS, MASKED_JOINTS = 5, 8


def crop_resize(x: Tensor, start: Tensor, length: Tensor, size: int = 64) -> Tensor:
    """Return frames start .. start + length of each clip, resized to `size` frames: (N, C, size, V, M).

    Linear interpolation, half-pixel centres and no antialiasing, as in `torch.nn.functional.interpolate`.

    Args:
        x: clips (N, C, T, V, M).
        start: first frame of each crop, (N,) ints.
        length: frames of each crop, (N,) ints, at least 1, start + length at most T.
        size: frames of the result.

    Raises:
        ValueError: a crop is empty or leaves its clip; not checked on a GPU, to avoid waiting for it.
    """
    if start.device.type == "cpu" and ((start < 0) | (length < 1) | (start + length > x.shape[2])).any():
        raise ValueError(f"a crop is empty or leaves its clip of {x.shape[2]} frames")
    start, length = start.to(x.device)[:, None], length.to(x.device)[:, None]  # (N, 1)
    grid = torch.arange(size, device=x.device, dtype=torch.float32) + 0.5
    position = (grid * (length / size) - 0.5).clamp(min=0)  # (N, size)
    left = torch.minimum(position.long(), length - 1)
    right = torch.minimum(left + 1, length - 1)
    weight = (position - left).to(x.dtype)[:, None, :, None, None]  # (N, 1, size, 1, 1)
    return torch.lerp(_take_frames(x, start + left), _take_frames(x, start + right), weight)


def centre_crop(x: Tensor, num_frames: Tensor, ratio: float = 0.95, size: int = 64) -> Tensor:
    """Return the middle of each clip, resized to `size` frames: the input of every downstream task.

    Args:
        x: clips (N, C, T, V, M).
        num_frames: valid frames n of each clip, (N,) ints.
        ratio: share of the clip to keep, in (0, 1]; int((1 - ratio) n / 2) frames are left out at either end.
        size: frames of the result.
    """
    start = ((1 - ratio) * num_frames.double() / 2).long()
    return crop_resize(x, start, num_frames - 2 * start, size)


def motion(x: Tensor) -> Tensor:
    """Return x[t + 1] - x[t], with the last frame 0: (N, C, T, V, M) of x (N, C, T, V, M)."""
    return torch.cat([x.diff(dim=2), torch.zeros_like(x[:, :, :1])], dim=2)


def bone(x: Tensor) -> Tensor:
    """Return each joint minus its parent, with the root 0: (N, C, T, V, M) of x (N, C, T, V, M)."""
    return x - x.index_select(3, _index(PARENTS, x.device))


# the function of each stream
STREAMS = {"joint": lambda x: x, "motion": motion, "bone": bone}


def flip(x: Tensor) -> Tensor:
    """Return x (N, C, T, V, M) with left and right joints swapped but, as in the reference, not mirrored."""
    return x.index_select(3, _index(MIRROR, x.device))


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Return x (N, 3, T, V, M) rotated about x, then y, then z by degrees (N, 3).

    A positive rotation is clockwise for a viewer who looks from the tip of the axis.
    """
    radians = torch.deg2rad(degrees)  # floating-point for ints too
    cos, sin = torch.cos(radians), torch.sin(radians)
    matrix = eye = torch.eye(3, dtype=radians.dtype, device=degrees.device)
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        turn = eye.repeat(len(degrees), 1, 1)
        turn[:, i, i] = turn[:, j, j] = cos[:, axis]
        turn[:, i, j], turn[:, j, i] = sin[:, axis], -sin[:, axis]
        matrix = turn @ matrix
    return _transform(x, matrix)


def shear(x: Tensor, coefficients: Tensor) -> Tensor:
    """Return x (N, 3, T, V, M) sheared by coefficients (N, 6): row by row off the diagonal, which is 1."""
    one = torch.ones_like(coefficients[:, 0])
    xy, xz, yx, yz, zx, zy = coefficients.unbind(dim=1)
    matrix = torch.stack([one, xy, xz, yx, one, yz, zx, zy, one], dim=1).view(-1, 3, 3)
    return _transform(x, matrix)


def mask_joints(x: Tensor, joints: Tensor) -> Tensor:
    """Return x (N, C, T, V, M) with the joints (N, V) bool zeroed in all frames and bodies."""
    return x.masked_fill(joints.to(x.device)[:, None, None, :, None], 0)


def mask_blocks(x: Tensor, blocks: Tensor) -> Tensor:
    """Return x (N, C, T, V, M) with blocks of frames zeroed; blocks (N, B) bool, B divides T."""
    frames = blocks.to(x.device).repeat_interleave(x.shape[2] // blocks.shape[1], dim=1)  # (N, T)
    return x.masked_fill(frames[:, None, :, None, None], 0)


def joint_votes(seeds: Tensor) -> Tensor:
    """Return the number of walks of two steps from the seeds (N, S) to each joint: (N, V) ints.

    A step may stay in place. This is the structural constraint of the spatial mask: joints that are close on
    the body are masked together.
    """
    step = torch.eye(NUM_JOINTS, dtype=torch.long)
    for joint, parent in LINKS:
        step[joint, parent] = step[parent, joint] = 1
    return (step @ step)[seeds.long().cpu()].sum(dim=1).to(seeds.device)


def most_voted(votes: Tensor, ties: Tensor) -> Tensor:
    """Return a mask (N, V) bool of the `MASKED_JOINTS` joints with the most votes (N, V) ints.

    Of joints with equal votes, those with the larger `ties` (N, V), numbers in [0, 1), are masked. In the
    reference their order is that of NumPy's sort, which varies between versions and CPUs; random ties are
    closest to it (docs/differences.md).
    """
    chosen = (votes + ties).topk(MASKED_JOINTS, dim=1).indices
    return torch.zeros_like(votes, dtype=torch.bool).scatter_(1, chosen, True)


def draw_crop(
    num_frames: Tensor, ratio: Sequence[float], size: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw start and length, (N,) ints each, of a crop for `crop_resize`.

    Args:
        num_frames: valid frames of each clip, (N,) ints on the CPU.
        ratio: smallest and largest share of the clip, in (0, 1].
        size: frames of the resized clip; a crop has at least as many, or is the whole clip.
        generator: a CPU generator; None uses torch's global one.
    """
    low, high = ratio
    share = low + (high - low) * torch.rand(len(num_frames), generator=generator, dtype=torch.float64)
    length = torch.minimum((num_frames * share).long().clamp(min=size), num_frames)
    place = torch.rand(len(num_frames), generator=generator, dtype=torch.float64)
    return (place * (num_frames - length + 1)).long(), length


class ViewParameters(NamedTuple):
    """Parameters of one view of a batch, one row per sample; neutral values where nothing is applied."""

    start: Tensor  # (N,) ints
    length: Tensor  # (N,) ints
    degrees: Tensor  # (N, 3)
    flipped: Tensor  # (N,) bool
    coefficients: Tensor  # (N, 6)
    joints: Tensor  # (N, V) bool
    blocks: Tensor  # (N, 16) bool

    def to(self, device: torch.device) -> "ViewParameters":
        """Return the parameters on a device: one copy, which does not wait for the device."""
        packed = torch.cat([p.reshape(len(p), -1).float() for p in self], dim=1)  # ints up to 2^24 are exact
        if device.type == "cuda" and torch.cuda.is_available():
            packed = packed.pin_memory()
        parts = packed.to(device, non_blocking=True).split([p[0].numel() for p in self], dim=1)
        pairs = zip(parts, self, strict=True)
        return ViewParameters(*(part.reshape(p.shape).to(p.dtype) for part, p in pairs))


@dataclass
class PretrainingViews:
    """Draw and apply the augmentations of pre-training: each clip of a batch becomes two independent views.

    In this order: crop of 10 to 100 % of the clip, at least `size` frames or all of them, resized to `size`;
    the stream; rotation by 0 to 30 degrees about one axis, drawn for each view, and 0 to 1 about the others;
    flip; shear with coefficients -1 to 1; spatial mask, the 8 joints with the most votes from 5 drawn ones;
    temporal mask, 6 of 16 blocks of frames.
    """

    stream: str = "joint"  # or "motion" or "bone"
    size: int = 64  # frames T of a view, a multiple of 16
    bodies: int = NUM_BODIES  # M of a view; the first bodies of a clip are kept
    p: float = 0.5  # probability of rotation, of flip, of shear, of the spatial and of the temporal mask
    masks: bool = True  # False omits both masks (an ablation); all other draws are unchanged

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise ValueError(f"unknown stream {self.stream!r}: choose from {', '.join(STREAMS)}")
        if self.size % NUM_BLOCKS:
            raise ValueError(f"{self.size} frames cannot be divided into {NUM_BLOCKS} blocks")

    def __call__(
        self, x: Tensor, num_frames: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return two views, each (N, C, size, V, bodies), on the device of x.

        Args:
            x: clips (N, C, T, V, M) in metres.
            num_frames: valid frames of each clip, (N,) ints in 1 .. T, on the CPU.
            generator: a CPU generator; None uses torch's global one.
        """
        drawn = [self.draw(num_frames, generator) for _ in range(2)]
        parameters = ViewParameters(*map(torch.cat, zip(*drawn, strict=True)))  # (2 N, ...) each
        q, k = self.apply(torch.cat([x, x]), parameters.to(x.device)).chunk(2)
        return q, k

    def draw(self, num_frames: Tensor, generator: torch.Generator | None = None) -> ViewParameters:
        """Draw the parameters of one view on the CPU; num_frames (N,) ints."""
        num_frames, n = num_frames.cpu(), len(num_frames)
        start, length = draw_crop(num_frames, (0.1, 1.0), self.size, generator)
        main_axis = torch.randint(3, (n, 1), generator=generator)
        largest = torch.where(torch.arange(3) == main_axis, 30.0, 1.0)  # (N, 3) degrees
        degrees = torch.rand(n, 3, generator=generator) * largest
        coefficients = torch.rand(n, 6, generator=generator) * 2 - 1
        seeds = torch.randint(NUM_JOINTS, (n, NUM_SEEDS), generator=generator)
        ties = torch.rand(n, NUM_JOINTS, generator=generator)
        order = torch.rand(n, NUM_BLOCKS, generator=generator).argsort(dim=1)
        rotated, flipped, sheared, spatial, temporal = torch.rand(5, n, generator=generator) < self.p
        return ViewParameters(
            start=start,
            length=length,
            degrees=degrees * rotated[:, None],
            flipped=flipped,
            coefficients=coefficients * sheared[:, None],
            joints=most_voted(joint_votes(seeds), ties) & (spatial & self.masks)[:, None],
            blocks=(order < MASKED_BLOCKS) & (temporal & self.masks)[:, None],
        )

    def apply(self, x: Tensor, parameters: ViewParameters) -> Tensor:
        """Return the view (N, C, size, V, bodies) of clips x (N, C, T, V, M) with these parameters."""
        p = parameters
        x = STREAMS[self.stream](crop_resize(x[..., : self.bodies], p.start, p.length, self.size))
        x = rotate(x, p.degrees)
        x = torch.where(p.flipped.to(x.device)[:, None, None, None, None], flip(x), x)
        x = shear(x, p.coefficients)
        return mask_blocks(mask_joints(x, p.joints), p.blocks)


@functools.cache
def _index(indices: Sequence[int], device: torch.device) -> Tensor:
    """Return constant indices on a device, cached because each copy from the host waits for the device."""
    return torch.tensor(indices, device=device)


def _take_frames(x: Tensor, index: Tensor) -> Tensor:
    """Return frames `index` (N, S) of x (N, C, T, V, M): (N, C, S, V, M)."""
    samples = torch.arange(len(x), device=x.device)[:, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None]
    return x[samples, channels, index[:, None]]


def _transform(x: Tensor, matrix: Tensor) -> Tensor:
    """Return matrix (N, 3, 3) times the coordinates of x (N, 3, T, V, M)."""
    return torch.bmm(matrix.to(x), x.flatten(2)).view_as(x)
