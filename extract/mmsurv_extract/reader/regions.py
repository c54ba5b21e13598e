"""Tiles by way of the slide library: regions of many tiles, cut up.

Owns the aligned super-tiles, and one handle per thread. This reader takes every format there is, and is what the other
one is compared with.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.reader.base import Group, Slot, TileReader
from mmsurv_extract.reader.window import is_whole, window_of
from mmsurv_extract.slide import Slide, open_slide
from mmsurv_extract.tile import resample

SUPER_TILE_PX = 2048
"""Side of a super-tile in pixels of the level, about: a whole number of the file's own tiles."""
DENSE = 0.5
"""A super-tile is read whole if at least so much of it is wanted; else its tiles are read one by one."""
_FILE_TILE_PX = 256


class RegionReader(TileReader):
    """Reads aligned super-tiles through the slide library and cuts the tiles out of them.

    In a level whose downsample is no whole number, tiles are read one by one: there the library interpolates between
    pixels, by how much depends on where a region begins, and a tile must not depend on which others are wanted.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle: queue.SimpleQueue[Slide] = queue.SimpleQueue()
        with self._handle() as slide:
            self.name = slide.reader
            self._downsample = slide.level_downsamples[self._geometry.level]
            self._block = _super_tile(slide, self._geometry.level)
        self._whole = is_whole(self._downsample)

    def close(self) -> None:
        super().close()
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _plan(self, coords: np.ndarray, group_size: int) -> Iterator[Group]:
        """The tiles that begin in one super-tile are a group; super-tiles row by row."""
        columns, rows = (coords / (self._downsample * np.array(self._block))).astype(np.int64).T
        order = np.lexsort((coords[:, 0], coords[:, 1], columns, rows))
        if not len(order):
            return
        place = np.stack([columns[order], rows[order]], axis=1)
        borders = np.flatnonzero((place[1:] != place[:-1]).any(axis=1)) + 1
        for group in np.split(order, borders):
            yield group.tolist()

    def _read(self, coords: np.ndarray, group: Group, slot: Slot) -> Iterator[np.ndarray | UnreadableSlideError]:
        with self._handle() as slide:
            whole = self._super_tile(slide, coords[group]) if self._is_dense(coords[group]) else None
            for x, y in coords[group].tolist():
                yield self._cut(*whole, x, y) if whole else self._single(slide, x, y)

    def _is_dense(self, coords: np.ndarray) -> bool:
        if not self._whole or len(coords) < 2:
            return False
        width, height = (np.ptp(coords, axis=0) / self._downsample + self._geometry.side_level).tolist()
        return len(coords) * self._geometry.side_level**2 >= DENSE * width * height

    def _super_tile(self, slide: Slide, coords: np.ndarray) -> tuple[Image.Image, int, int] | None:
        """The region that holds all the tiles, with its first pixel in the level; None if it cannot be read."""
        windows = [self._window(x, y) for x, y in coords.tolist()]
        left, top = min(window.x for window in windows), min(window.y for window in windows)
        width = max(window.x + window.width for window in windows) - left
        height = max(window.y + window.height for window in windows) - top
        x, y = left * round(self._downsample), top * round(self._downsample)
        try:
            return slide.read_region(x, y, self._geometry.level, width, height), left, top
        except UnreadableSlideError:
            return None  # some of its tiles may be whole: they are read one by one

    def _cut(self, region: Image.Image, left: int, top: int, x: int, y: int) -> np.ndarray:
        window = self._window(x, y)
        # Cropped first: the filter must not see pixels that are only there because other tiles are wanted.
        column, row = window.x - left, window.y - top
        pixels = region.crop((column, row, column + window.width, row + window.height))
        return resample(pixels, self._geometry.side_level, self._tile_px, left=window.left, top=window.top)

    def _single(self, slide: Slide, x: int, y: int) -> np.ndarray | UnreadableSlideError:
        # At a whole downsample, pixels of the level begin at multiples of it; elsewhere the library begins at x, y.
        window = self._window(x, y) if self._whole else window_of(0, 0, downsample=1, side=self._geometry.side_level)
        if self._whole:
            x, y = window.x * round(self._downsample), window.y * round(self._downsample)
        try:
            region = slide.read_region(x, y, self._geometry.level, window.width, window.height)
        except UnreadableSlideError as error:
            return error
        return resample(region, self._geometry.side_level, self._tile_px, left=window.left, top=window.top)

    def _window(self, x: int, y: int) -> Any:
        return window_of(x, y, downsample=self._downsample, side=self._geometry.side_level)

    def _handle(self) -> _Borrowed:
        return _Borrowed(self)


class _Borrowed:
    """A handle for one thread, given back at the end."""

    def __init__(self, reader: RegionReader) -> None:
        self._reader = reader

    def __enter__(self) -> Slide:
        try:
            self._slide = self._reader._idle.get_nowait()
        except queue.Empty:
            self._slide = open_slide(self._reader._source)
        return self._slide

    def __exit__(self, *_: object) -> None:
        self._reader._idle.put(self._slide)


def _super_tile(slide: Slide, level: int) -> tuple[int, int]:
    """Width and height of a super-tile, whole numbers of the file's tiles."""
    sizes = (slide.properties.get(f"openslide.level[{level}].tile-{axis}") for axis in ("width", "height"))
    width, height = (int(size) if size and size.isdecimal() and int(size) else _FILE_TILE_PX for size in sizes)
    return max(1, SUPER_TILE_PX // width) * width, max(1, SUPER_TILE_PX // height) * height
