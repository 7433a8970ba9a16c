"""Stopping at a signal, but not in the middle of a step."""

import signal
import threading
from types import FrameType


class StopSignals:
    """While entered, notes SIGTERM and SIGINT for the training loop to ask about; a second one ends the process at once.

    Attributes:
        signum: the signal that came, None before; `status` is the exit status that goes with it (143 or 130).
    """

    def __init__(self):
        self.signum = None
        self._before = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_error) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @property
    def name(self) -> str:
        """The signal's name, such as SIGTERM; a word for it where the signal came to another process of the run."""
        return signal.Signals(self.signum).name if self.signum else "another process"

    @property
    def status(self) -> int:
        """The shell's exit status of a process that the signal ended."""
        return 128 + (self.signum or signal.SIGTERM)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise SystemExit(128 + signum)
        self.signum = signum
