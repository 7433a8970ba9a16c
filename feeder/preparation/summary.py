"""What the arrays of a split hold, as lines of a table."""

from collections.abc import Sequence

import numpy as np

HEADING = f"{'split':<14}{'samples':>9}{'classes':>9}{'frames':>12}{'min':>6}{'mean':>8}{'max':>6}"


def summary_line(split: str, labels: Sequence[int], num_frame: Sequence[int] | np.ndarray) -> str:
    """Return a line under `HEADING`: samples, classes that occur, and the sum, least, mean and greatest frame count."""
    if not len(labels):
        return f"{split:<14}{0:>9}"
    frames = np.asarray(num_frame)
    sizes = f"{frames.sum():>12,}{frames.min():>6}{frames.mean():>8.1f}{frames.max():>6}"
    return f"{split:<14}{len(labels):>9,}{len(set(labels)):>9}{sizes}"


def count_verdict(found: tuple[int, int], expected: tuple[int, int], may_lack: str = "") -> str:
    """Return what the numbers of samples (train, val) say beside those of the full data set.

    Args:
        may_lack: what is rightly left out of the full set, so that a few samples less are no mistake.
    """
    both = f"{expected[0]:,} / {expected[1]:,}"
    if found == expected:
        return f"complete: {both} samples"
    if sum(found) < 0.9 * sum(expected):
        return f"a subset of the full set's {both} samples"
    if may_lack and found[0] <= expected[0] and found[1] <= expected[1]:
        return f"{sum(expected) - sum(found):,} fewer than the full set's {both} samples: right if they are {may_lack}"
    return f"WARNING: {found[0]:,} / {found[1]:,} samples, but the full set has {both}"
