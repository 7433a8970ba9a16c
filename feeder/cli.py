"""Exit codes and error messages: one line for errors that the user can fix, a traceback for bugs."""

import argparse
import contextlib
import errno
import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

# remedies for errors of the operating system
REMEDIES = {
    errno.ENOENT: "check the path",
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR), "a file exists where a folder is needed: choose another path"
    ),
    errno.EISDIR: "a folder exists where a file is needed: choose another path",
    errno.EACCES: "check its permissions or choose another path",
    errno.EROFS: "choose a path on a writable disk",
    errno.ENOSPC: "free some space and run again",
}


class UserError(Exception):
    """An error that the user can fix; its message is one line: what, where, what to do."""


class CommandLine(argparse.ArgumentParser):
    """A parser that reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def script(main: Callable) -> Callable:
    """Return `main(argv=None)` with uniform exit codes and error messages.

    Exit status 2: the command line is wrong. 1: a `UserError`, an error of the operating system, or out of memory; one line
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
                raise  # a bug: show the traceback
            spec = sys.modules["__main__"].__spec__  # of `python -m`
            name = f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name
            print(f"{name}: error: {message}", file=sys.stderr)
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
    """Return one line for an error that the user can fix, None for any other."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text.rpartition("feeder.cli.UserError: ")[2]  # a loader worker prefixes its traceback
    # a killed process is noticed by its end, or by its connection if it was sending; torch reports a bug in it as "Caught ..."
    killed = re.match(r"DataLoader worker \(pid.*\) (is killed|exited unexpectedly)", text)
    if killed or isinstance(error, (ConnectionResetError, ConnectionRefusedError)):
        return f"a data loading process was killed, probably because memory ran out: use fewer --workers ({text[:200]})"
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        return f"{where}{error.strerror or error}{remedy}"
    # by name: data preparation does not import torch
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in text
    ):
        remedy = "; use a smaller --batch-size" if isinstance(error, RuntimeError) else ""
        return f"out of memory{remedy} ({text[:200]})"
    if type(error).__name__.startswith("Dist") or "gloo" in text:
        return f"lost connection to the other processes; see the message of the process that ended first ({text[:200]})"
    return None


def _exit_on_sigterm(_signum: int, _frame: object) -> None:
    raise SystemExit(143)
