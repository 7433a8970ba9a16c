"""Recordings -> the arrays of several splits at once: read, normalise, write. Readers: `ntu.py`, `pku.py`."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from feeder.arrays import check_space, write_splits
from feeder.bodies import body_faults, body_problems
from feeder.cli import UserError
from feeder.preparation.normalize import to_sample
from feeder.skeleton import MAX_FRAMES

tqdm.monitor_interval = 0  # no monitor thread, because the processes are forked


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


class Report(NamedTuple):
    """What `generate` did."""

    written: dict[tuple[str, str], list[tuple[str, int, int]]]  # (benchmark, part) -> name, label, frames
    empty: list[str]  # names of samples without any body
    bad: list[str]  # a line for each file or sample that was skipped as damaged


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


def generate(
    sources: Iterable[Source | str],
    read: Reader,
    folder: Path,
    benchmarks: Iterable[str],
    workers: int = 1,
    skip_bad: bool = False,
) -> Report:
    """Write FOLDER/{benchmarks}/{train,val}_*, samples sorted by name; on failure, existing arrays are kept.

    Args:
        sources: files with their samples, or lines about files that cannot be used. Names are unique; the
            samples of a source are sorted and stay together when all are sorted.
        read: a top-level function of a module, run in `workers` processes; `UserError` if a file is damaged.
        skip_bad: skip damaged samples instead of failing at the end.
    """
    sources = list(sources)
    files = [source for source in sources if isinstance(source, Source) and source.samples]
    files.sort(key=lambda file: file.samples[0].name)
    results = _read_all(read, files, workers)
    with write_splits(folder, benchmarks) as writer, contextlib.closing(results):
        check_space(folder, sum(len(sample.parts) for file in files for sample in file.samples))
        report = Report(writer.rows, [], [source for source in sources if isinstance(source, str)])
        faults: dict[str, dict[str, str] | None] = {}  # of the first samples
        progress = tqdm(results, total=len(files), unit="file", disable=None)
        for file, clips in zip(files, progress, strict=True):
            for sample, clip in zip(file.samples, clips, strict=True):
                if clip is None:
                    report.empty.append(sample.name)
                elif isinstance(clip, str):
                    report.bad.append(clip)
                else:
                    data, num_frame = clip
                    writer.add(sample.parts, sample.name, sample.label, num_frame, data)
                    if len(faults) < 100:
                        faults[sample.name] = body_faults(data, num_frame)
        report.bad[:] = dict.fromkeys(report.bad)  # a damaged file may have many samples
        _check(report, folder, skip_bad)
    for problem in body_problems(list(faults), list(faults.values()))[0]:
        print(f"WARNING: {problem}")
    return report


def _check(report: Report, folder: Path, skip_bad: bool) -> None:
    """Raise `UserError` if nothing was written, or if damaged samples should not be skipped."""
    if report.bad and not skip_bad:
        for line in report.bad[1:20]:
            print(line, file=sys.stderr)
        others = f" (and {len(report.bad) - 1} more, see above or --skip-bad)" if len(report.bad) > 1 else ""
        raise UserError(report.bad[0] + others)
    if not any(report.written.values()):
        counts = f"{len(report.bad)} damaged, {len(report.empty)} empty"
        raise UserError(f"{folder}: no samples to write: {counts}")


def _read_all(read: Reader, files: list[Source], workers: int) -> Iterator[list[Result]]:
    """Yield the results of each file in order, read by several processes."""
    read = functools.partial(_read, read)
    np.empty(2**24, np.uint8)  # glibc then keeps the memory of read files: a sixth less CPU time
    if workers == 1:
        yield from map(read, files)
        return
    # about 8 samples at a time: single files of NTU RGB+D would cost twice as much
    chunk = max(1, 8 * len(files) // max(1, sum(len(file.samples) for file in files)))
    batch = 4 * workers * chunk  # a map over all files would collect results that wait for the writer
    # fork starts at once; on other systems it is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        with ProcessPoolExecutor(workers, context, _start_worker) as pool:
            for start in range(0, len(files), batch):
                yield from pool.map(read, files[start : start + batch], chunksize=chunk)
    except BrokenProcessPool:
        reason = "a worker process was killed, probably because memory ran out"
        raise UserError(f"{reason}: use fewer --workers") from None


def _read(read: Reader, file: Source) -> list[Result]:
    try:
        return read(file)
    except UserError as error:
        return [str(error)] * len(file.samples)


def _start_worker() -> None:
    """Leave Ctrl-C, which goes to all processes, to the parent; end when the parent is killed."""

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
