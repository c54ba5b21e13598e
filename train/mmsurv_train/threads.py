"""Threads that work on bags beside one another, each with one thread of torch's own.

A product of a few rows with a block of tiles is too small for torch to split among cores: waking the other core takes
as long, and the halves travel between their caches. Whole bags are split instead. What one thread computes does not
depend on how many there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


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

    Meanwhile torch has one thread in the whole process: its matrix library knows no number for each thread.
    """
    pool = _pool(len(shares))
    with _one_thread():
        futures = [pool.submit(work, share) for share in shares]
        errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]


def _pool(n_threads: int) -> ThreadPoolExecutor:
    with _lock:
        if n_threads not in _pools:
            with _one_thread():
                started = threading.Barrier(n_threads)
                pool = ThreadPoolExecutor(n_threads, thread_name_prefix="mmsurv-bags")
                for future in [pool.submit(_start, started) for _ in range(n_threads)]:
                    future.result()
            _pools[n_threads] = pool
        return _pools[n_threads]


def _start(started: threading.Barrier) -> None:
    torch.set_num_threads(1)
    started.wait()  # so that each of these runs in a thread of its own


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Threads do not live on in a forked process: it makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
