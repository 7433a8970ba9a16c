"""Raw files -> the array files of all splits at once: each file is parsed and normalised once, by several processes.

What a data set brings along (`ntu_gendata.py` is an example):
- sources: one `Source` per raw file, with the samples that are cut from it, known before the file is opened;
- `read(source)`: a function at the top level of a module that yields one item per sample of the source, in their order:
  a `Clip`; None where nobody is in the sample (left out and named); a `UserError` where this sample alone is damaged.
  If it raises a `UserError` instead, the file is damaged, and all samples that have not been yielded are left out.
"""

import contextlib
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

from feeder.arrays import PARTS, SplitWriter, check_space, publish, remove_stale
from feeder.cli import UserError

_CHUNK = 16  # sources handed to a worker at a time
_FLUSH = 16  # chunks, some 90 MB of two protocols
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MAX_WORKERS = 12  # processes that each hold a video of PKU-MMD, up to 67 MiB, stay together below 1 GiB


class Sample(NamedTuple):
    """A sample to be made: its label counts from 0, `parts` says where it belongs, `segment` is for the reader."""

    name: str
    label: int
    parts: dict[str, str]  # benchmark -> "train" or "val"
    segment: Any = None


class Source(NamedTuple):
    """A raw file and the samples that are cut from it."""

    path: Path
    samples: tuple[Sample, ...]


class Clip(NamedTuple):
    """What a reader yields for a sample."""

    data: np.ndarray  # (3, 300, 25, 2) float32
    num_frame: int  # 1..300


class Made(NamedTuple):
    """One part of a split as it was written."""

    benchmark: str
    part: str
    names: list[str]
    labels: list[int]
    num_frame: list[int]


class Report(NamedTuple):
    """What `generate` did."""

    made: list[Made]
    empty: list[str]  # names of samples without any body
    bad: list[str]  # a line for each file or sample that was left out as damaged


def default_workers() -> int:
    """Return the number of cores that this process may use, 12 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)


Reader = Callable[[Source], Iterable[Clip | None | UserError]]
Rows = list[list[tuple[int, int]]]  # for each sample of a source, the (writer, row) pairs that it goes to
Outcome = int | str | None  # of a sample: frames written, what is wrong with it, or nobody in it

# What a worker process was started with.
_read: Reader
_worker_writers: list[SplitWriter]


def generate(
    sources: Iterable[Source],
    read: Reader,
    folder: str | Path,
    benchmarks: Iterable[str],
    workers: int = 1,
    skip_bad: bool = False,
    bad: Iterable[str] = (),
) -> Report:
    """Return what was written to FOLDER/{benchmarks}/{train,val}_*: samples in the order of their names.

    Nothing gets its final name unless all is well: a run that fails, or is killed, leaves older arrays as they were. One
    that is killed within the last moment, while `publish` gives the final names, leaves splits without labels, which
    do not open.

    Args:
        sources: names of samples are unique over all of them.
        read: see above.
        workers: processes; 1 works in this one.
        skip_bad: leave damaged samples out instead of failing at the end.
        bad: what was found damaged already; reported together with the rest.

    Raises:
        UserError: damaged samples, without `skip_bad` (if there are several, each is on standard error), no samples at
            all, or too little room on the disk.
    """
    sources = sorted((source for source in sources if source.samples), key=lambda source: source.samples[0].name)
    places = [(benchmark, part) for benchmark in benchmarks for part in PARTS]
    samples = sorted((sample for source in sources for sample in source.samples), key=lambda sample: sample.name)
    members = [[sample for sample in samples if sample.parts.get(benchmark) == part] for benchmark, part in places]
    with _writers(Path(folder), places, [len(part) for part in members]) as writers:
        outcomes = _process(sources, _rows(sources, members), read, writers, workers)
        empty = [name for name, outcome in outcomes.items() if outcome is None]
        bad = list(dict.fromkeys([*bad, *(text for text in outcomes.values() if isinstance(text, str))]))
        if bad and not skip_bad:
            _fail(bad)
        if not any(isinstance(outcome, int) for outcome in outcomes.values()):
            raise UserError(f"{folder}: no samples left to write: {len(bad)} damaged, {len(empty)} empty")
        made = [
            _finish(writer, place, part, outcomes)
            for writer, place, part in zip(writers, places, members, strict=True)
        ]
        publish(writers)
    return Report(made, empty, bad)


@contextlib.contextmanager
def _writers(folder: Path, places: list[tuple[str, str]], sizes: list[int]) -> Iterator[list[SplitWriter]]:
    """Yield a writer for each place; whatever happens, nothing stays under a temporary name."""
    for benchmark, _ in places:
        (folder / benchmark).mkdir(parents=True, exist_ok=True)
        remove_stale(folder / benchmark)
    check_space(folder, sum(sizes))
    writers = []
    try:
        for (benchmark, part), size in zip(places, sizes, strict=True):
            writers.append(SplitWriter(folder / benchmark, part, size))
        yield writers
    finally:
        for writer in writers:
            writer.discard()


def _rows(sources: list[Source], members: list[list[Sample]]) -> list[Rows]:
    rows: dict[str, list[tuple[int, int]]] = {}
    for writer, part in enumerate(members):
        for row, sample in enumerate(part):
            rows.setdefault(sample.name, []).append((writer, row))
    return [[rows.get(sample.name, []) for sample in source.samples] for source in sources]


def _fail(bad: list[str]) -> None:
    if len(bad) == 1:
        raise UserError(bad[0])
    print(*bad, sep="\n", file=sys.stderr)
    raise UserError(f"{len(bad)} files or samples cannot be used (above); mend them, or leave them out with --skip-bad")


def _finish(writer: SplitWriter, place: tuple[str, str], part: list[Sample], outcomes: dict[str, Outcome]) -> Made:
    made = [(row, sample, outcomes[sample.name]) for row, sample in enumerate(part)]
    kept = [(row, sample, frames) for row, sample, frames in made if isinstance(frames, int)]
    labels = [sample.label for _, sample, _ in kept]
    names = [sample.name for _, sample, _ in kept]
    num_frame = [frames for _, _, frames in kept]
    writer.finish([row for row, _, _ in kept], names, labels, num_frame)
    return Made(*place, names, labels, num_frame)


class _Bar(tqdm):
    monitor_interval = 0  # no thread beside the bar: the workers are forked under it


def _process(
    sources: list[Source], rows: list[Rows], read: Reader, writers: list[SplitWriter], workers: int
) -> dict[str, Outcome]:
    """Return the outcome of each sample by name, in the order of the sources."""
    work = list(zip(sources, rows, strict=True))
    chunks = [work[start : start + _CHUNK] for start in range(0, len(work), _CHUNK)]
    run = _run_here if workers == 1 else _run_in_pool
    outcomes: dict[str, Outcome] = {}
    with _Bar(total=len(sources), unit="file", disable=None) as bar:
        for chunk, results in zip(chunks, run(chunks, read, writers, workers), strict=True):
            for (source, _), result in zip(chunk, results, strict=True):
                outcomes.update(zip((sample.name for sample in source.samples), result, strict=True))
            bar.update(len(chunk))
    return outcomes


def _run_here(chunks: list, read: Reader, writers: list[SplitWriter], workers: int) -> Iterator[list[list[Outcome]]]:
    _keep_memory()
    return ([_make(source, rows, read, writers) for source, rows in chunk] for chunk in chunks)


def _run_in_pool(chunks: list, read: Reader, writers: list[SplitWriter], workers: int) -> Iterator[list[list[Outcome]]]:
    # fork starts in no time, and no thread of ours runs yet (see `_Bar`); elsewhere it is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (read, writers))
    try:
        with _signals_held():
            results = pool.map(_work, chunks)  # forks
        for number, result in enumerate(results, 1):
            yield result
            if number % _FLUSH == 0:  # the disk works beside the workers, not after them
                for writer in writers:
                    writer.flush()
    except BrokenProcessPool:
        reason = "a worker process was killed, perhaps for want of memory; start the same command again"
        raise UserError(f"{reason}, perhaps with fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back: Python drops the exception of a signal that comes within its hooks around a fork."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in caught[:1]:
            signal.raise_signal(first)


def _start_worker(read: Reader, writers: list[SplitWriter]) -> None:
    global _read, _worker_writers
    _read, _worker_writers = read, writers
    for writer in writers:
        writer.close()
    _keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_memory() -> None:
    """Have the C library keep freed blocks of up to 16 MiB.

    glibc gives a block above 128 KiB back to the system at once until a larger one was freed; then it raises that
    limit. Without this a third of the time goes into fetching the same pages again for each file.
    """
    np.empty(2**24, np.uint8)  # never touched, so it takes no memory


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # no worker
    parent.join()
    os._exit(1)  # the parent was killed; nobody waits for this work


def _work(chunk: list[tuple[Source, Rows]]) -> list[list[Outcome]]:
    return [_make(source, rows, _read, _worker_writers) for source, rows in chunk]


def _make(source: Source, rows: Rows, read: Reader, writers: list[SplitWriter]) -> list[Outcome]:
    """Return the outcome of each sample of a source, once those that can be made are written."""
    outcomes: list[Outcome] = []
    try:
        for clip, places in zip(read(source), rows, strict=True):
            if not isinstance(clip, Clip):
                outcomes.append(None if clip is None else str(clip))
                continue
            for writer, row in places:
                writers[writer].write(row, clip.data)
            outcomes.append(clip.num_frame)
    except UserError as error:
        outcomes += [str(error)] * (len(rows) - len(outcomes))
    return outcomes
