"""One slide behind: a slide is committed to the store while the next one is encoded.

Owns the thread that does it, and that no more than one slide waits for the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class OneBehind:
    """Does one piece of work at a time beside its owner. Use as a context manager: leaving waits for the last."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="last-slide")
        self._pending: Future[None] | None = None

    def __enter__(self) -> OneBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.settle()
        finally:
            self._pool.shutdown()

    def submit(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done. Raises what that one raised."""
        self.settle()
        self._pending = self._pool.submit(work)

    def settle(self) -> None:
        """Wait for the work in hand. Raises what it raised, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
