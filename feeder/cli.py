"""Exit statuses and error messages: one line for what the user can fix, a traceback for a bug."""

import argparse
import errno
import functools
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# remedies for errors of the operating system, other than a wrong path
REMEDIES = {
    errno.EACCES: "check its permissions or choose another path",
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
}


class UserError(Exception):
    """An error that the user can fix; its message is one line: what, where, what to do."""


class CommandLine(argparse.ArgumentParser):
    """A parser of `python -m MODULE` that reports errors in one line, without the usage."""

    def __init__(self, module: str, description: str) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {module}", description=description, formatter_class=form)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def script(main: Callable) -> Callable:
    """Return `main(argv=None)` with uniform exit statuses.

    1: an error that the user can fix, in one line. 130: Ctrl-C. 143: SIGTERM, as SystemExit so that `finally`
    blocks run. Any other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):  # a terminal may be ASCII only, a file name not UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            main(argv)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            if (message := _message(error)) is None:
                raise
            print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
            raise SystemExit(1) from None
        finally:
            signal.signal(signal.SIGTERM, previous)

    return run


def _message(error: Exception) -> str | None:
    """Return one line for an error that the user can fix, None for a bug."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text.rpartition("feeder.cli.UserError: ")[2]  # a loader worker prefixes its traceback
    # a killed worker is noticed by its exit or, if it was sending, by its broken connection
    killed = text.startswith("DataLoader worker (pid")
    if killed or isinstance(error, (ConnectionResetError, ConnectionRefusedError)):
        return "a data loading process was killed, probably because memory ran out: use fewer --workers"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        remedy = REMEDIES.get(error.errno or 0, "check the path" if where else "run again")
        return f"{where}{error.strerror or text}; {remedy}"
    # torch's errors by name and text, because data preparation does not import it
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "DefaultCPUAllocator" in text:
        return f"out of memory: use a smaller --batch-size or fewer --workers ({text[:200]})"
    if kind.startswith("Dist") or "/gloo/" in text or "Gloo" in text:
        return f"lost another process; the message of the one that ended first says why ({text[:200]})"
    return None
