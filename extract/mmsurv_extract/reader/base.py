"""What both readers share: threads, order, batches, and what becomes of a tile that is not kept.

Owns the flow. Batches come in one fixed order whatever the number of threads, only a bounded number of tiles is held,
and a tile that cannot be read, or that ``inspect`` turns down, is left out with its reason, never painted white.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from mmsurv.errors import UnreadableSlideError
from mmsurv.store.record import UNREADABLE
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry
from mmsurv_extract.stop import stop_if_set

Inspect = Callable[[np.ndarray], int]
"""Looks at one tile (px, px, 3) uint8 and returns 0, or the code of the reason to leave it out."""

Slot = Callable[[], np.ndarray]
"""Gives an array (px, px, 3) uint8 to write a tile to."""

Group = list[int]
"""Rows of the coordinates that one thread reads in one go."""


@dataclass(frozen=True)
class Batch:
    """Some tiles of the slide."""

    rows: np.ndarray
    """(B,) int64, rows of the coordinates they were read for."""
    tiles: np.ndarray
    """(B, px, px, 3) uint8 RGB."""


@dataclass(frozen=True)
class _Read:
    """What came of a group: the tiles that are kept, and the reasons of the others."""

    rows: list[int]
    tiles: np.ndarray
    rejected: dict[int, int]
    last_error: UnreadableSlideError | None


class TileReader(ABC):
    """Reads tiles of one slide, several at once. Use as a context manager.

    A reader says in which groups it reads (``_plan``) and how one group's tiles are got (``_read``).
    """

    name: str
    """What decodes the pixels, with versions; the record keeps it."""

    def __init__(
        self, source: SlideSource, geometry: Geometry, *, tile_px: int, workers: int, inspect: Inspect | None = None
    ) -> None:
        """
        Args:
            source: the slide.
            geometry: how a tile lies on it.
            tile_px: side of a tile as encoded.
            workers: threads that read.
            inspect: called in those threads for every tile that could be read.
        """
        self._source = source
        self._geometry = geometry
        self._tile_px = tile_px
        self._workers = workers
        self._inspect = inspect
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tile-reader")
        self.rejected: dict[int, int] = {}
        """Row of the coordinates of the latest call of ``batches`` → reason (``mmsurv.store.record.REASONS``)."""
        self.last_error: UnreadableSlideError | None = None
        """Of the tiles that could not be read, what was said of the last."""

    def __enter__(self) -> TileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the threads and let go of the slide."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @abstractmethod
    def _plan(self, coords: np.ndarray, group_size: int) -> Iterator[Group]:
        """The rows of ``coords`` in the order and groups they are read in."""

    @abstractmethod
    def _read(self, coords: np.ndarray, group: Group, slot: Slot) -> Iterator[np.ndarray | UnreadableSlideError]:
        """For each row of the group, its tile (px, px, 3) uint8, or why there is none. Runs in a thread.

        ``slot()`` is the place in the batch of the tile that is yielded next; what is written there is not copied.
        """

    def batches(self, coords: np.ndarray, *, batch_size: int, stop: threading.Event | None = None) -> Iterator[Batch]:
        """Read tiles.

        Args:
            coords: (N, 2) level-0 (x, y) of the tiles' top-left corners.
            batch_size: tiles per batch; the last batch has what is left.
            stop: looked at between tiles.

        Yields:
            Batches of the tiles that are kept, in an order in which neighbours are read together. The next ones are
            being read while the caller works on one. After the last, ``rejected`` is complete.

        Raises:
            JobStopped: ``stop`` was set.
        """
        self.rejected, self.last_error = {}, None
        coords = np.asarray(coords).reshape(-1, 2)
        rows: list[int] = []
        waiting: list[np.ndarray] = []
        for read in self._groups(coords, batch_size, stop):
            self.rejected.update(read.rejected)
            self.last_error = read.last_error or self.last_error
            if not read.rows:
                continue
            rows += read.rows
            waiting.append(read.tiles)
            while len(rows) >= batch_size:
                stop_if_set(stop)
                tiles, waiting = _take(waiting, batch_size)
                yield Batch(np.array(rows[:batch_size]), tiles)
                rows = rows[batch_size:]
        stop_if_set(stop)
        if rows:
            yield Batch(np.array(rows), _take(waiting, len(rows))[0])

    def _groups(self, coords: np.ndarray, batch_size: int, stop: threading.Event | None) -> Iterator[_Read]:
        groups = self._plan(coords, min(batch_size, GROUP))
        pending: deque[Future[_Read]] = deque()
        ahead = self._workers + -(-batch_size // GROUP)
        for group in itertools.islice(groups, ahead):
            pending.append(self._pool.submit(self._read_group, coords, group, stop))
        try:
            while pending:
                read = pending.popleft().result()
                for group in itertools.islice(groups, 1):
                    pending.append(self._pool.submit(self._read_group, coords, group, stop))
                yield read
        finally:
            for future in pending:
                future.cancel()

    def _read_group(self, coords: np.ndarray, group: Group, stop: threading.Event | None) -> _Read:
        px = self._tile_px
        tiles = np.empty((len(group), px, px, 3), np.uint8)
        rows: list[int] = []
        rejected: dict[int, int] = {}
        last_error = None
        for row, found in zip(group, self._read(coords, group, lambda: tiles[len(rows)]), strict=True):
            stop_if_set(stop)
            if isinstance(found, UnreadableSlideError):
                rejected[row] = UNREADABLE
                last_error = found
                continue
            reason = self._inspect(found) if self._inspect else 0
            if reason:
                rejected[row] = reason
                continue
            if found.base is not tiles:
                tiles[len(rows)] = found
            rows.append(row)
        return _Read(rows, tiles[: len(rows)], rejected, last_error)


GROUP = 32
"""Tiles a thread reads at a time, at most; neighbours, so that they share what is decoded."""


def _take(arrays: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The first ``count`` tiles of several arrays as one, and what is left. Copies only where they must be joined."""
    if len(arrays[0]) == count:
        return arrays[0], list(arrays[1:])
    joined = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    rest = joined[count:]
    return joined[:count], [rest] if len(rest) else []
