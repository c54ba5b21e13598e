"""A thread that fills memory ahead of whoever uses it.

Owns the ring of memory and the thread's life: it ends when all is read, when reading fails, and when the user leaves.
It knows nothing of slides.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence

from torch import Tensor

ALIGNMENT = 64
"""Bytes at a multiple of which everything in the ring begins."""


def aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


class Ring:
    """Memory that is taken in one order and given back in the same."""

    def __init__(self, memory: Tensor) -> None:
        """
        Args:
            memory: uint8, at least as large as the largest thing to be taken.
        """
        self._memory = memory
        self._taken: deque[tuple[int, int]] = deque()

    def take(self, sizes: Sequence[int]) -> list[Tensor] | None:
        """Memory for several runs of bytes, side by side; None if there is no room before something is given back."""
        start = self._room(sum(aligned(size) for size in sizes))
        if start is None:
            return None
        runs = []
        stop = start
        for size in sizes:
            runs.append(self._memory[stop : stop + size])
            stop += aligned(size)
        self._taken.append((start, stop))
        return runs

    def give_back(self) -> None:
        """The oldest that was taken may be overwritten."""
        self._taken.popleft()

    def _room(self, size: int) -> int | None:
        if not self._taken:
            return 0
        oldest, newest = self._taken[0], self._taken[-1]
        if newest[0] < oldest[0]:  # it has gone round: what is free lies between the two
            return newest[1] if newest[1] + size <= oldest[0] else None
        if newest[1] + size <= len(self._memory):
            return newest[1]
        return 0 if size <= oldest[0] else None


def read_ahead(
    sizes: Sequence[Sequence[int]], ring: Ring, read: Callable[[int, list[Tensor]], None]
) -> Generator[list[Tensor], None, None]:
    """What ``read`` fills, item by item, each valid until the next is asked for. Close it when leaving early.

    Args:
        sizes: bytes of each item's runs.
        ring: where the runs are taken from.
        read: fills the runs of the item with this index, in a thread of its own.

    Raises:
        Exception: what ``read`` raised, once the items before are used.
    """
    shared = _Shared(ring)
    thread = threading.Thread(target=shared.fill, args=(sizes, read), name="read-ahead", daemon=True)
    thread.start()
    try:
        for _ in sizes:
            yield shared.next()
            shared.give_back()
    finally:
        shared.leave()
        thread.join()


class _Shared:
    """What the reading thread and its user both look at."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._ready: deque[list[Tensor]] = deque()
        self._error: BaseException | None = None
        self._left = False

    def fill(self, sizes: Sequence[Sequence[int]], read: Callable[[int, list[Tensor]], None]) -> None:
        """Read all items, waiting for room; ends early when the user has left."""
        try:
            for index, of_runs in enumerate(sizes):
                runs = self._take(of_runs)
                if runs is None:
                    return
                read(index, runs)
                with self._changed:
                    self._ready.append(runs)
                    self._changed.notify()
        except BaseException as error:  # noqa: BLE001  it is raised where the items are used
            with self._changed:
                self._error = error
                self._changed.notify()

    def next(self) -> list[Tensor]:
        """The next item, in its order; raises what ended the reading once nothing else is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error)
            if self._ready:
                return self._ready.popleft()
        assert self._error is not None
        raise self._error

    def give_back(self) -> None:
        with self._changed:
            self._ring.give_back()
            self._changed.notify()

    def leave(self) -> None:
        with self._changed:
            self._left = True
            self._changed.notify()

    def _take(self, sizes: Sequence[int]) -> list[Tensor] | None:
        """Memory for an item, as soon as there is room; None if the user has left."""
        runs: list[Tensor] | None = None

        def has_room_or_left() -> bool:
            nonlocal runs
            runs = None if self._left else self._ring.take(sizes)
            return self._left or runs is not None

        with self._changed:
            self._changed.wait_for(has_room_or_left)
        return runs
