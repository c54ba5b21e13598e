"""One slide ahead: the next slide is made ready while the current one is encoded.

Owns the thread that does it, and that it is never further ahead than one slide.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from mmsurv_extract.discover import SlideSource
from mmsurv_extract.stop import stop_if_set

T = TypeVar("T")


def one_ahead(
    sources: Sequence[SlideSource],
    look_at: Callable[[SlideSource], T],
    discard: Callable[[T], None],
    stop: threading.Event,
) -> Generator[tuple[SlideSource, Callable[[], T]], None, None]:
    """Each slide with a call that gives, or raises, what ``look_at`` made of it. Close it when leaving early.

    Args:
        sources: the slides, in order.
        look_at: makes a slide ready, in a thread of its own.
        discard: gets what was made ready and is not asked for, because the work ended before.
        stop: looked at while waiting.

    Raises:
        JobStopped: ``stop`` was set.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="next-slide") as ahead:
        pending = ahead.submit(look_at, sources[0]) if sources else None
        try:
            for i, source in enumerate(sources):
                assert pending is not None
                ready = _settled(pending, stop)
                pending = ahead.submit(look_at, sources[i + 1]) if i + 1 < len(sources) else None
                yield source, ready.result
        finally:
            if pending is not None and not pending.cancel():
                pending.add_done_callback(lambda ended: None if ended.exception() else discard(ended.result()))


def _settled(future: Future[T], stop: threading.Event) -> Future[T]:
    """Wait until a preparation has ended, well or not, looking at ``stop`` meanwhile."""
    while True:
        stop_if_set(stop)
        try:
            future.exception(timeout=0.2)
        except FutureTimeoutError:
            continue
        return future
