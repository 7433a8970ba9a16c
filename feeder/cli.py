"""How a command ends: one line and an exit status for errors of the user or the system, a traceback only for our mistakes."""

import argparse
import contextlib
import errno
import functools
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

# what the user can do about an error of the operating system
REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EEXIST: "a file is where a folder is needed: give another path",
    errno.ENOTDIR: "a file is where a folder is needed: give another path",
    errno.EISDIR: "a folder is where a file is needed: give another path",
    errno.EACCES: "check its permissions or give another path",
    errno.EROFS: "give a path on a disk that can be written",
    errno.ENOSPC: "make room and start again",
}

DEFERRED_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class UserError(Exception):
    """An error that the user can mend; its message is one line: what, where, what to do."""


class CommandLine(argparse.ArgumentParser):
    """A parser whose complaint is one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def script(main: Callable) -> Callable:
    """Return `main(argv=None)` with uniform exit codes and error messages.

    Exit status 2 is argparse's, 1 a `UserError`, an operating-system error or a lack of memory (one line on standard
    error), 130 Ctrl-C, 143 SIGTERM. SIGTERM becomes SystemExit, so that `finally` blocks clean up. Characters that the
    terminal cannot show are printed as escapes.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _exit_on_sigterm) if in_main_thread else None
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            main(argv)
        except UserError as error:
            _fail(error)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
            _fail(f"{where}{error.strerror or error}{remedy}")
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            remedy = "; a smaller --batch-size needs less" if isinstance(error, RuntimeError) else ""
            _fail(f"out of memory{remedy} ({' '.join(str(error).split())[:200]})")
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise SystemExit(130) from None
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, before)

    return run


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM to the end of the `with` block; no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in DEFERRED_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught[:1]:
            signal.raise_signal(number)


def _out_of_memory(error: Exception) -> bool:
    """Return whether Python, or torch on a GPU or a CPU, ran out of memory."""
    # recognised by its names: data preparation does not import torch
    torch_did = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or torch_did


def _exit_on_sigterm(signum, frame) -> None:
    raise SystemExit(143)


def _fail(message: object) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    raise SystemExit(1) from None
