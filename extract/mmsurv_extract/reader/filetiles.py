"""Tiles by decoding the tiles of the file itself, each once, in the order they lie in.

Owns the order of reading, the bounded cache of decoded file tiles, and cutting tiles out of them. A slide library
composes every region anew from a handful of file tiles; here a file tile is decoded once, for all the tiles that need
it, and dropped after the last.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from PIL import Image

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.reader.base import Group, Slot, TileReader
from mmsurv_extract.reader.tiff import TiffLevel
from mmsurv_extract.reader.window import Window, window_of
from mmsurv_extract.tile import resample

CACHE_BYTES = 128 * 2**20
"""Decoded file tiles held at a time, about. Decides how wide a strip of the slide is read, not what is read."""


class FileTileReader(TileReader):
    """Decodes a TIFF slide's own tiles."""

    def __init__(
        self, *arguments: Any, level: TiffLevel, downsample: float, background: tuple[int, int, int], **options: Any
    ) -> None:
        """
        Args:
            level: the index of the level that tiles are read from.
            downsample: of that level, exact.
            background: colour of what lies beyond the level's edge.
        """
        super().__init__(*arguments, **options)
        self.name = f"file tiles, {_versions()}, {level.codec}"
        self._level = level
        self._downsample = downsample
        self._background = background
        self._descriptor = os.open(level.path, os.O_RDONLY)
        self._cache = _Cache(level, self._descriptor)
        self._places: dict[int, tuple[Window, list[int]]] = {}
        """Of the rows that are planned and not read: where they lie, and the file tiles they need."""

    def close(self) -> None:
        super().close()
        os.close(self._descriptor)

    def read_one(self, x: int, y: int) -> np.ndarray:
        """The pixels of the window of the tile at level-0 (x, y), as they are in the level.

        Raises:
            UnreadableSlideError: a file tile cannot be decoded.
        """
        window = self._window(x, y)
        cache = _Cache(self._level, self._descriptor)
        needed = self._file_tiles(window)
        cache.expect(needed)
        return self._paste(window, needed, cache, np.empty((window.height, window.width, 3), np.uint8))

    def _plan(self, coords: np.ndarray, group_size: int) -> Iterator[Group]:
        """Strips of the slide, left to right; in a strip row by row, as the file is."""
        strip = (coords[:, 0] / (self._downsample * self._strip_px())).astype(np.int64)
        order = np.lexsort((coords[:, 0], coords[:, 1], strip))
        borders = np.flatnonzero(np.diff(strip[order])) + 1
        for part in np.split(order, borders):
            wanted = part.tolist()
            for row, (x, y) in zip(wanted, coords[part].tolist(), strict=True):
                window = self._window(x, y)
                needed = self._file_tiles(window)
                self._places[row] = window, needed
                self._cache.expect(needed)
            for start in range(0, len(wanted), group_size):
                yield wanted[start : start + group_size]

    def _strip_px(self) -> int:
        """Width in pixels of the level at which the file tiles of the rows in work fit the cache."""
        rows = int(self._geometry.side_level) // self._level.tile_height + 3
        columns = max(1, CACHE_BYTES // (rows * self._level.tile_bytes))
        return columns * self._level.tile_width

    def _read(self, coords: np.ndarray, group: Group, slot: Slot) -> Iterator[np.ndarray | UnreadableSlideError]:
        for row in group:
            window, needed = self._places.pop(row)
            try:
                yield self._tile(window, needed, slot)
            except UnreadableSlideError as error:
                yield error
            finally:
                self._cache.release(needed)

    def _tile(self, window: Window, needed: list[int], slot: Slot) -> np.ndarray:
        side, px = self._geometry.side_level, self._tile_px
        if window.width == window.height == side == px:
            return self._paste(window, needed, self._cache, slot())
        pixels = self._paste(window, needed, self._cache, np.empty((window.height, window.width, 3), np.uint8))
        return resample(Image.fromarray(pixels), side, px, left=window.left, top=window.top)

    def _paste(self, window: Window, needed: list[int], cache: _Cache, out: np.ndarray) -> np.ndarray:
        """The window's pixels, from the file tiles it touches."""
        level = self._level
        right = min(window.x + window.width, level.width)
        bottom = min(window.y + window.height, level.height)
        if right < window.x + window.width or bottom < window.y + window.height:
            out[:] = self._background
        for index in needed:
            pixels = cache.get(index)
            row, column = divmod(index, level.columns)
            left, top = column * level.tile_width, row * level.tile_height
            x0, x1 = max(left, window.x), min(left + level.tile_width, right)
            y0, y1 = max(top, window.y), min(top + level.tile_height, bottom)
            out[y0 - window.y : y1 - window.y, x0 - window.x : x1 - window.x] = pixels[
                y0 - top : y1 - top, x0 - left : x1 - left
            ]
        return out

    def _file_tiles(self, window: Window) -> list[int]:
        level = self._level
        right, bottom = min(window.x + window.width, level.width) - 1, min(window.y + window.height, level.height) - 1
        columns = range(window.x // level.tile_width, right // level.tile_width + 1)
        rows = range(window.y // level.tile_height, bottom // level.tile_height + 1)
        return [row * level.columns + column for row in rows for column in columns]

    def _window(self, x: int, y: int) -> Window:
        return window_of(x, y, downsample=self._downsample, side=self._geometry.side_level)


class _Cache:
    """Decoded file tiles, each kept until the last tile that needs it was cut.

    Shared by threads: the first that asks for a file tile decodes it, the others wait for it.
    """

    def __init__(self, level: TiffLevel, descriptor: int) -> None:
        self._level, self._descriptor = level, descriptor
        self._lock = threading.Lock()
        self._uses: dict[int, int] = {}
        self._tiles: dict[int, Future[np.ndarray]] = {}
        # Arrays to decode to, used again: memory that is asked of the system anew costs as much as copying it.
        self._spare: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._tiles)

    def expect(self, indices: list[int]) -> None:
        """Say which file tiles will be asked for, one entry per use."""
        with self._lock:
            for index in indices:
                self._uses[index] = self._uses.get(index, 0) + 1

    def get(self, index: int) -> np.ndarray:
        """A decoded file tile. Raises UnreadableSlideError, to everyone who asks for it."""
        with self._lock:
            found = self._tiles.get(index)
            mine = found is None
            if found is None:
                found = self._tiles[index] = Future()
        if mine:
            try:
                found.set_result(self._level.read(self._descriptor, index, self._array()))
            except UnreadableSlideError as error:
                found.set_exception(error)
            except BaseException as error:
                found.set_exception(error)
                raise
        return found.result()

    def release(self, indices: list[int]) -> None:
        """One use of each of these is over."""
        with self._lock:
            for index in indices:
                self._uses[index] -= 1
                if not self._uses[index]:
                    del self._uses[index]
                    ended = self._tiles.pop(index, None)
                    if ended is not None and ended.exception() is None and ended.result().flags.writeable:
                        self._spare.append(ended.result())

    def _array(self) -> np.ndarray:
        with self._lock:
            if self._spare:
                return self._spare.pop()
        return np.empty((self._level.tile_height, self._level.tile_width, 3), np.uint8)


def _versions() -> str:
    import imagecodecs
    import simplejpeg
    import tifffile

    names = (tifffile, simplejpeg, imagecodecs)
    return " + ".join(f"{module.__name__} {module.__version__}" for module in names)
