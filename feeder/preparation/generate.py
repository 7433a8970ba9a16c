"""Raw files -> the arrays of several splits at once: list, read, normalise, write. The readers are in `ntu.py` and `pku.py`."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from feeder.arrays import PARTS, check_space, write_splits
from feeder.cli import UserError, signals_deferred

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


# A reader's result for a sample: (array (3, 300, 25, 2), frames before looping), None if it has no body, or why it is damaged.
Result = tuple[np.ndarray, int] | str | None
Reader = Callable[[Source], list[Result]]


class Report(NamedTuple):
    """What `generate` did."""

    written: dict[
        tuple[str, str], list[tuple[Sample, int]]
    ]  # (benchmark, part) -> samples and their numbers of frames
    empty: list[str]  # names of samples without any body
    bad: list[str]  # a line for each file or sample that was skipped as damaged


def default_workers() -> int:
    """Return the number of cores that this process may use, at most 12, which read videos in less than 1 GiB."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 12)


def generate(
    sources: Iterable[Source],
    read: Reader,
    folder: Path,
    benchmarks: Iterable[str],
    workers: int = 1,
    skip_bad: bool = False,
    bad: Iterable[str] = (),
) -> Report:
    """Write FOLDER/{benchmarks}/{train,val}_*, samples sorted by name; on failure, existing arrays are kept.

    Args:
        sources: files with their samples; sample names are unique, and the samples of a source stay together when sorted.
        read: a top-level function of a module, run in `workers` processes; raises `UserError` for a damaged file.
        skip_bad: skip damaged samples instead of failing at the end.
        bad: a line for each file that is already known to be damaged.
    """
    benchmarks, bad, empty = list(benchmarks), list(bad), []
    sources = [Source(path, tuple(sorted(samples))) for path, samples in sources if samples]
    sources.sort(key=lambda source: source.samples[0].name)
    written: dict = {(benchmark, part): [] for benchmark in benchmarks for part in PARTS}
    with (
        write_splits(folder, benchmarks) as writer,
        contextlib.closing(_read_all(read, sources, workers)) as results,
    ):
        check_space(folder, sum(len(sample.parts) for source in sources for sample in source.samples))
        for source, clips in zip(
            sources, tqdm(results, total=len(sources), unit="file", disable=None), strict=True
        ):
            for sample, clip in zip(source.samples, clips, strict=True):
                if clip is None:
                    empty.append(sample.name)
                elif isinstance(clip, str):
                    bad.append(clip)
                else:
                    data, num_frame = clip
                    writer.add(sample.parts, sample.name, sample.label, num_frame, data)
                    for key in sample.parts.items():
                        written[key].append((sample, num_frame))
        bad = list(dict.fromkeys(bad))  # a damaged file may have many samples
        if bad and not skip_bad:
            if len(bad) == 1:
                raise UserError(bad[0])
            print(*bad, sep="\n", file=sys.stderr)
            raise UserError(
                f"{len(bad)} files or samples cannot be used (above); fix them, or set --skip-bad"
            )
        if not any(written.values()):
            raise UserError(f"{folder}: no samples to write: {len(bad)} damaged, {len(empty)} empty")
    return Report(written, empty, bad)


def _read_all(read: Reader, sources: list[Source], workers: int) -> Iterator[list[Result]]:
    """Yield the results of each source in order, read by several processes a few files ahead."""
    _keep_memory()
    if workers == 1:
        for source in sources:
            yield from _read_sources(read, [source])
        return
    # a task has about 8 samples: one for each file of NTU RGB+D would cost twice as much
    size = max(1, 8 * len(sources) // max(1, sum(len(source.samples) for source in sources)))
    # fork starts at once; on other systems it is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    pending: deque = deque()
    try:
        for start in range(0, len(sources), size):
            with signals_deferred():  # Python loses the exception of a signal that arrives within a fork
                pending.append(pool.submit(_read_sources, read, sources[start : start + size]))
            if len(pending) > workers + 1:  # more would only use memory
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, probably because memory ran out: use fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _read_sources(read: Reader, sources: list[Source]) -> list[list[Result]]:
    results: list[list[Result]] = []
    for source in sources:
        try:
            results.append(read(source))
        except UserError as error:
            results.append([str(error)] * len(source.samples))
    return results


def _start_worker() -> None:
    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)  # the parent was killed

    _keep_memory()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole group; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()


def _keep_memory() -> None:
    """Have glibc keep freed blocks of up to 16 MiB, as it does once a larger one was freed: a third less time."""
    np.empty(2**24, np.uint8)  # never touched, so it takes no memory
