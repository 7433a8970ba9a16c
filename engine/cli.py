"""How a script ends: one line and an exit status for what the user can mend, a traceback only for our own mistakes."""

import functools
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from engine.errors import RunError
from feeder.errors import DataError


def script(main: Callable) -> Callable:
    """Return `main(argv=None)` with the family's manners at the end.

    Exit status 2 is argparse's (the command line alone is wrong), 1 a `DataError`, `RunError` or operating-system error
    (one line on standard error), 130 Ctrl-C, 143 SIGTERM. SIGTERM becomes SystemExit, so that `finally` blocks clean up.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _exit_on_sigterm) if in_main_thread else None
        try:
            main(argv)
        except (DataError, RunError) as error:
            _fail(error)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}")
        except (MemoryError, RuntimeError) as error:
            if type(error).__name__ not in ("MemoryError", "OutOfMemoryError"):  # torch's, not imported for data preparation
                raise
            _fail(f"out of memory; a smaller --batch-size needs less ({' '.join(str(error).split())[:200]})")
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise SystemExit(130) from None
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, before)

    return run


def _exit_on_sigterm(signum, frame) -> None:
    raise SystemExit(143)


def _fail(message: object) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    raise SystemExit(1) from None
