"""How commands end: one line and an exit status for what the user can mend, a traceback only for our own mistakes."""

import argparse
import contextlib
import errno
import functools
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

# what the user can do about an error of the operating system
REMEDIES = {
    errno.ENOENT: "check the path",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "there is a file where a folder is needed: give another path"),
    errno.EISDIR: "there is a folder where a file is needed: give another path",
    errno.EACCES: "check its permissions or give another path",
    errno.EROFS: "give a path on a disk that can be written",
    errno.ENOSPC: "make room and start again",
}


class UserError(Exception):
    """An error that the user can mend; its message is one line: what, where, what to do."""


class CommandLine(argparse.ArgumentParser):
    """A parser whose complaint is one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def script(main: Callable) -> Callable:
    """Return `main(argv=None)` with uniform exit codes and error messages.

    Exit status 2: argparse refused the command line. 1: a `UserError`, an error of the operating system, or no memory; one line
    on standard error. 130: Ctrl-C. 143: SIGTERM, which becomes SystemExit so that `finally` blocks run.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):  # a terminal may be ASCII only, a file name not UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        in_main_thread = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGTERM, _exit_on_sigterm) if in_main_thread else None
        try:
            main(argv)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            if (message := _message(error)) is None:
                raise  # our own mistake: a traceback
            print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
            raise SystemExit(1) from None
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, previous)

    return run


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM to the end of the `with` block; no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: caught.append(number)) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


def _message(error: Exception) -> str | None:
    """Return the line for an error that the user can mend, None for any other."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text.rpartition("feeder.cli.UserError: ")[2]  # a loader worker prefixes its traceback
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        return f"{where}{error.strerror or error}{remedy}"
    # by name: data preparation does not import torch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in text:
        remedy = "; a smaller --batch-size needs less" if isinstance(error, RuntimeError) else ""
        return f"out of memory{remedy} ({text[:200]})"
    if "DataLoader worker" in text:
        return f"a process that reads data was killed, perhaps for want of memory: use fewer --workers ({text[:200]})"
    if type(error).__name__.startswith("Dist") or "gloo" in text:
        return f"lost connection to the other processes; the first one to end says why ({text[:200]})"
    return None


def _exit_on_sigterm(_signum: int, _frame: object) -> None:
    raise SystemExit(143)
