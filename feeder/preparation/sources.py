"""Raw files and the samples that are cut from them; their reading by several processes."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from feeder.cli import UserError
from feeder.preparation.normalize import to_sample
from feeder.skeleton import MAX_FRAMES


class Sample(NamedTuple):
    """A sample to prepare."""

    name: str
    label: int  # from 0
    parts: dict[str, str]  # benchmark -> "train" or "val"
    segment: Any = None  # for the reader


class Source(NamedTuple):
    """A raw file and the samples that are cut from it, known before it is opened."""

    path: Path
    samples: tuple[Sample, ...]


# A reader's result for a sample: (array (3, 300, 25, 2), frames before looping), None if it has no body, or
# a line that says why it is damaged.
Result = tuple[np.ndarray, int] | str | None
Reader = Callable[[Source], list[Result]]


def to_result(where: str | Path, bodies: np.ndarray) -> Result:
    """Return the clip of a recording (B, T, 25, 3) in metres, None if it has no body.

    Raises:
        UserError: it has more than 300 frames, or none.
    """
    frames = bodies.shape[1]
    if not 1 <= frames <= MAX_FRAMES:
        remedy = "cut or resample it (the network sees 64 frames)"
        raise UserError(f"{where}: {frames} frames; a sample has 1 to {MAX_FRAMES}: {remedy}")
    sample = to_sample(bodies)
    return (sample, frames) if sample[:, 0].any() else None


def read_sources(read: Reader, sources: list[Source], workers: int) -> Iterator[list[Result]]:
    """Yield the results of each source in order, read by several processes."""
    read = functools.partial(_read, read)
    np.empty(2**24, np.uint8)  # glibc then keeps the memory of read files: a sixth less CPU time
    if workers == 1:
        yield from map(read, sources)
        return
    # about 8 samples at a time: single files of NTU RGB+D would cost twice as much
    chunk = max(1, 8 * len(sources) // max(1, sum(len(source.samples) for source in sources)))
    batch = 4 * workers * chunk  # a map over all files would collect results that wait for the writer
    # fork starts at once; on other systems it is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        with ProcessPoolExecutor(workers, context, _start_worker) as pool:
            for start in range(0, len(sources), batch):
                yield from pool.map(read, sources[start : start + batch], chunksize=chunk)
    except BrokenProcessPool:
        reason = "a worker process was killed, probably because memory ran out"
        raise UserError(f"{reason}: use fewer --workers") from None


def _read(read: Reader, source: Source) -> list[Result]:
    try:
        return read(source)
    except UserError as error:
        return [str(error)] * len(source.samples)


def _start_worker() -> None:
    """Leave Ctrl-C, which goes to all processes, to the parent; end when the parent is killed."""

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
