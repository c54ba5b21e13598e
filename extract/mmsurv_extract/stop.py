"""Stopping a job cleanly: SIGINT and SIGTERM set a flag that the work looks at between tiles.

Owns the signal handlers. The slide in flight is dropped; what is in the store stays whole, because a record is
published by one link.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_S = 2.0
"""A signal so soon after the first is the first one again: Slurm tells a process and the script that runs it, and the
script hands it on."""


class JobStopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The work was asked to stop."""


def stop_if_set(stop: threading.Event | None) -> None:
    """Raise JobStopped if the flag is set."""
    if stop is not None and stop.is_set():
        raise JobStopped


class StopOnSignal:
    """While entered, the first SIGINT or SIGTERM sets ``stop``; one that comes later ends the process as usual.

    Outside the main thread signals cannot be caught, and ``stop`` is set only by hand.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.signal: int | None = None
        """The signal that came, or None."""
        self._since = 0.0
        self._earlier: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            if time.monotonic() - self._since < SAME_S:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = number
        self._since = time.monotonic()
        self.stop.set()
