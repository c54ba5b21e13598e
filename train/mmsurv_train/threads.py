"""Threads that work on bags beside one another, each with one thread of torch's own.

A product of a few rows with a block of tiles is too small for torch to split among cores: waking the other core takes
as long, and the halves travel between their caches. Whole bags are split instead. What one thread computes does not
depend on how many there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
_mine = threading.local()
"""Of a thread that works on a share: the event that tells it to stop."""


def share_out(items: Sequence[T], cost: Callable[[T], float], n_shares: int) -> list[list[T]]:
    """Items in shares of nearly equal cost, each in the order given; no share is empty unless items are too few."""
    shares: list[list[int]] = [[] for _ in range(n_shares)]
    costs = [0.0] * n_shares
    for index in sorted(range(len(items)), key=lambda index: -cost(items[index])):
        least = costs.index(min(costs))
        shares[least].append(index)
        costs[least] += cost(items[index])
    return [[items[index] for index in sorted(share)] for share in shares if share]


def run_beside(work: Callable[[list[T]], None], shares: Sequence[list[T]]) -> None:
    """Run ``work`` on every share, each in a thread of its own; an error is raised here when all have ended.

    Meanwhile torch has one thread in the whole process: its matrix library knows no number for each thread. Called
    within ``work``, shares are worked on one after another. Ctrl-C ends ``work`` where it calls ``stop_if_told``.
    """
    if hasattr(_mine, "stop"):
        for share in shares:
            work(share)
        return
    pool, stop = _pool(len(shares)), threading.Event()
    with one_thread():
        futures = [pool.submit(_work, work, share, stop) for share in shares]
        try:
            wait(futures)
        except BaseException:
            stop.set()
            wait(futures)
            raise
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]


class Stopped(BaseException):
    """Ends the work on a share; whoever waited for it is already on the way out."""


def stop_if_told() -> None:
    """Leave the work on a share if it is no longer wanted."""
    stop = getattr(_mine, "stop", None)
    if stop is not None and stop.is_set():
        raise Stopped


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch has one thread; the number before comes back when the last of those who asked for it has left."""
    _Single.enter()
    try:
        yield
    finally:
        _Single.leave()


class _Single:
    """How many are within ``one_thread``, in all threads: the number of torch's threads belongs to the process."""

    depth = 0
    before = 1

    @classmethod
    def enter(cls) -> None:
        with _lock:
            if not cls.depth:
                cls.before = torch.get_num_threads()
            cls.depth += 1
            torch.set_num_threads(1)

    @classmethod
    def leave(cls) -> None:
        with _lock:
            cls.depth -= 1
            if not cls.depth:
                torch.set_num_threads(cls.before)


def _work(work: Callable[[list[T]], None], share: list[T], stop: threading.Event) -> None:
    _mine.stop = stop
    try:
        work(share)
    except Stopped:
        pass
    finally:
        del _mine.stop


def _pool(n_threads: int) -> ThreadPoolExecutor:
    with one_thread(), _making:
        if n_threads not in _pools:
            started = threading.Barrier(n_threads)
            pool = ThreadPoolExecutor(n_threads, thread_name_prefix="mmsurv-bags")
            for future in [pool.submit(_start, started) for _ in range(n_threads)]:
                future.result()
            _pools[n_threads] = pool
        return _pools[n_threads]


_making = threading.Lock()


def _start(started: threading.Barrier) -> None:
    torch.set_num_threads(1)
    started.wait()  # so that each of these runs in a thread of its own


# Threads do not live on in a forked process: it makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
