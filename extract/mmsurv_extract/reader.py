"""Tiles of one slide as uint8 batches, read by threads ahead of the encoder.

Owns threads, handles and order. Batches come in one fixed order whatever the number of threads, and only a bounded
number of tiles is held. A tile that cannot be read is left out and counted, never painted white.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, reading_order
from mmsurv_extract.slide import Slide, open_slide
from mmsurv_extract.stop import stop_if_set
from mmsurv_extract.tile import resample

GROUP = 8
"""Tiles a thread reads at a time; neighbours share file tiles, which one handle decodes once."""
MAX_UNREADABLE = 0.5
"""A slide more than half of whose tiles cannot be read has failed."""


@dataclass(frozen=True)
class Batch:
    """Some tiles of the slide."""

    rows: np.ndarray
    """(B,) int64, rows of the coordinates they were read for."""
    tiles: np.ndarray
    """(B, px, px, 3) uint8 RGB."""


class TileReader:
    """Reads tiles of one slide, several at once. Use as a context manager.

    Args:
        source: the slide.
        geometry: how a tile lies on it.
        tile_px: side of a tile as encoded.
        workers: threads, each with a handle of its own.
    """

    def __init__(self, source: SlideSource, geometry: Geometry, *, tile_px: int, workers: int) -> None:
        self._source = source
        self._geometry = geometry
        self._tile_px = tile_px
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tile-reader")
        self._idle: queue.SimpleQueue[Slide] = queue.SimpleQueue()
        self.n_unreadable = 0
        """Tiles that could not be read, so far."""

    def __enter__(self) -> TileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def batches(self, coords: np.ndarray, *, batch_size: int, stop: threading.Event | None = None) -> Iterator[Batch]:
        """Read tiles.

        Args:
            coords: (N, 2) level-0 (x, y) of the tiles' top-left corners.
            batch_size: tiles per batch; the last batch has what is left.
            stop: looked at between tiles.

        Yields:
            Batches in an order in which neighbours are read together. The next batches are being read while the
            caller works on one.

        Raises:
            UnreadableSlideError: more than half of the tiles cannot be read.
            JobStopped: ``stop`` was set.
        """
        rows: list[int] = []
        tiles: list[np.ndarray] = []
        for row, tile in self._tiles(coords, 2 * batch_size, stop):
            rows.append(row)
            tiles.append(tile)
            if len(rows) == batch_size:
                yield Batch(np.array(rows), np.stack(tiles))
                rows, tiles = [], []
        if rows:
            yield Batch(np.array(rows), np.stack(tiles))

    def _tiles(self, coords: np.ndarray, ahead: int, stop: threading.Event | None) -> Iterator[tuple[int, np.ndarray]]:
        order = reading_order(coords, self._geometry.side_level0).tolist()
        groups = iter([order[i : i + GROUP] for i in range(0, len(order), GROUP)])
        pending: deque[tuple[list[int], Future[list[np.ndarray | UnreadableSlideError]]]] = deque()

        def submit(group: list[int]) -> None:
            pending.append((group, self._pool.submit(self._read_group, coords[group], stop)))

        for group in itertools.islice(groups, max(self._workers, math.ceil(ahead / GROUP))):
            submit(group)
        while pending:
            group, future = pending.popleft()
            results = future.result()
            for group_ahead in itertools.islice(groups, 1):
                submit(group_ahead)
            for row, result in zip(group, results, strict=True):
                if isinstance(result, UnreadableSlideError):
                    self._count_unreadable(result, len(coords))
                else:
                    yield row, result

    def _read_group(self, coords: np.ndarray, stop: threading.Event | None) -> list[np.ndarray | UnreadableSlideError]:
        slide = self._take_handle()
        try:
            results: list[np.ndarray | UnreadableSlideError] = []
            for x, y in coords.tolist():
                stop_if_set(stop)
                try:
                    results.append(self._read_tile(slide, x, y))
                except UnreadableSlideError as error:
                    results.append(error)
            return results
        finally:
            self._idle.put(slide)

    def _read_tile(self, slide: Slide, x: int, y: int) -> np.ndarray:
        side = self._geometry.side_level
        size = math.ceil(side)
        return resample(slide.read_region(x, y, self._geometry.level, size, size), side, self._tile_px)

    def _take_handle(self) -> Slide:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return open_slide(self._source)

    def _count_unreadable(self, error: UnreadableSlideError, n_tiles: int) -> None:
        self.n_unreadable += 1
        if self.n_unreadable > MAX_UNREADABLE * n_tiles:
            raise UnreadableSlideError(
                f"{self._source.path}: more than half of its {n_tiles} tiles cannot be read. Copy the file again, or "
                f"leave the slide out. The last error: {error}"
            ) from error
