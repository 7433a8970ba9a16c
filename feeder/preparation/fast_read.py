"""A reader for `.skeleton` files without any oddity, vectorised over the bytes: numpy's own text reader takes as long.

It answers None wherever it is in doubt; the careful reader in `feeder.preparation.ntu` then says what a file holds, or what is
wrong.
"""

import numpy as np

from feeder.skeleton import NUM_JOINTS

_NUMBER_BYTES = b"0123456789+-.eE \n"
_BODY_LINES = NUM_JOINTS + 2
_BODY_WORDS = np.array((10, 1) + (12,) * NUM_JOINTS)  # words in each line of a body
_WINDOW, _LONGEST = 16, 15  # bytes looked at of a word; the longest whose digits a float64 holds exactly
_PLACES = np.arange(_WINDOW - 1, -1, -1)  # of the bytes in a window, counted from the end of the word
# Row n tells which bytes of a window belong to a word of length n.
_INSIDE = (np.arange(_WINDOW + 1)[:, None] > _PLACES).view(f"V{_WINDOW}")[:, 0]
_POWERS = 10.0 ** np.arange(_WINDOW + 1)
# Bit k of 16 stands for the byte at place k. The place of a lone bit, -1 for none or several.
_LONE_BIT = np.full(1 << _WINDOW, -1)
_LONE_BIT[1 << np.arange(_WINDOW)] = np.arange(_WINDOW)


def read_plain(
    raw: bytes, max_frames: int, max_metres: float
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return frame count, joints (bodies, 25, 3), and each body's frame and place in it; None if the file is not plain.

    Plain: LF line ends, one blank between words, nothing but characters of numbers, every line with as many words as it
    should have, 1 to `max_frames` frames, positions within +-`max_metres`. The other words are not tried as numbers.
    """
    if raw.translate(None, _NUMBER_BYTES) or raw[-1] != 10:
        return None
    text = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(text <= 32)  # of all words
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    if (starts == ends).any():
        return None
    last = np.flatnonzero(text[ends] == 10)  # the last word of each line
    first = np.empty_like(last)
    first[0], first[1:] = 0, last[:-1] + 1
    outline = _outline(text, starts[first], ends[last], last - first + 1)
    if outline is None or outline[0] > max_frames:
        return None
    num_frames, bodies, frames, places = outline
    words = (first[bodies[:, None] + np.arange(2, _BODY_LINES)][..., None] + np.arange(3)).ravel()  # (bodies * 75,)
    joints = _decimals(raw, starts[words], ends[words])
    if joints is None or not np.abs(joints).max(initial=0) <= max_metres:
        return None
    return num_frames, joints.reshape(-1, NUM_JOINTS, 3), frames, places


def _outline(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray, widths: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the frame count and each body's first line, frame and place, from each line's ends and number of words."""
    if widths[0] != 1 or not text[starts[0] : ends[0]].tobytes().isdigit() or ends[0] > 9:
        return None
    num_frames = int(text[: ends[0]].tobytes())
    bodies = np.flatnonzero(widths == _BODY_WORDS[0])
    if len(bodies) and bodies[-1] + _BODY_LINES > len(widths):
        return None
    lines = bodies[:, None] + np.arange(_BODY_LINES)  # (bodies, 27)
    counts = starts[lines[:, 1]]  # where the number of joints stands
    if (widths[lines] != _BODY_WORDS).any() or (ends[lines[:, 1]] - counts != 2).any():
        return None
    if (text[counts] != ord("2")).any() or (text[counts + 1] != ord("5")).any():
        return None
    # what is left must be the number of bodies of each frame, one digit, and the bodies must follow on it
    left = np.ones(len(widths), bool)
    left[lines] = left[0] = False
    heads = np.flatnonzero(left)
    if len(heads) != num_frames or not num_frames or heads[0] != 1 or (ends[heads] - starts[heads] != 1).any():
        return None
    frames = heads.searchsorted(bodies) - 1
    num_bodies = text[starts[heads]].astype(np.int64) - ord("0")
    if (np.bincount(frames, minlength=num_frames) != num_bodies).any():
        return None
    places = np.arange(len(bodies)) - (np.cumsum(num_bodies) - num_bodies)[frames]
    return num_frames, bodies, frames, places


def _decimals(raw: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """Return the numbers of the words raw[starts:ends] (n,) as float() reads them; None if one is no number."""
    lengths = (ends - starts).astype(np.int32)
    # each word with some of what stands before it, right-aligned in a window
    windows = np.ndarray(len(raw) + 1, f"V{_WINDOW}", raw.rjust(len(raw) + _WINDOW), strides=1)
    digits = windows[ends].view(np.uint8).reshape(-1, _WINDOW) - 48  # (n, 16); a point is 254, a sign 253
    inside = _INSIDE[lengths.clip(max=_WINDOW)].view(bool).reshape(-1, _WINDOW)
    is_digit = (digits < 10) & inside
    digit_bits, point_bit = _bits(is_digit), _bits((digits == 254) & inside)
    sign_bit = (np.frombuffer(raw, np.uint8)[starts] == 45) << (lengths - 1).clip(max=_LONGEST)
    decimals = _LONE_BIT[point_bit]
    # the digits as one number, with a 0 where the point stands; then the point is taken out
    digits *= is_digit
    spread = digits @ _POWERS[_PLACES]
    mantissa = spread - np.floor(spread / _POWERS[decimals + 1]) * (_POWERS[decimals + 1] - _POWERS[decimals])
    numbers = np.where(sign_bit, -mantissa, mantissa) / _POWERS[decimals]
    usual = (lengths <= _LONGEST) & (decimals >= 0) & (digit_bits > 0)
    usual &= (digit_bits | point_bit | sign_bit) == (1 << lengths.clip(max=_WINDOW)) - 1
    try:
        for word in np.flatnonzero(~usual):  # an exponent, no point, very many digits
            numbers[word] = float(raw[starts[word] : ends[word]])
    except ValueError:
        return None
    return numbers


def _bits(flags: np.ndarray) -> np.ndarray:
    """Return the flags (n, 16), the first one highest, as the bits of integers (n,)."""
    return np.packbits(flags).view(">u2").astype(np.int32)
