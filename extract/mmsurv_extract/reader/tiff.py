"""The index of a TIFF slide: where the tiles of one level lie in the file.

Owns the match of a slide's level to a page of its file, and reading one file tile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.reader.codec import Decode, decoder
from mmsurv_extract.slide import Slide

VENDORS = ("aperio", "generic-tiff")
"""Formats that are plain grids of tiles, a page a level: no overlaps, no holes filled from other levels."""


@dataclass(frozen=True, eq=False)
class TiffLevel:
    """One level of a TIFF slide."""

    path: Path
    width: int
    """Pixels of the level."""
    height: int
    tile_width: int
    tile_height: int
    offsets: np.ndarray
    """(tiles,) int64, where each file tile begins in the file; row by row."""
    sizes: np.ndarray
    """(tiles,) int64, its length in bytes."""
    codec: str
    decode: Decode

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def tile_bytes(self) -> int:
        """Of one decoded file tile."""
        return self.tile_width * self.tile_height * 3

    def read(self, descriptor: int, index: int, out: np.ndarray) -> np.ndarray:
        """Decode one file tile.

        Args:
            descriptor: of the open file; may be shared by threads.
            index: number of the file tile, row by row.
            out: (tile_height, tile_width, 3) uint8, which may be written to and returned.

        Returns:
            (tile_height, tile_width, 3) uint8 RGB; beyond the level's edge it holds what the file holds there.

        Raises:
            UnreadableSlideError: the bytes are not all there, or do not decode to a tile of that size.
        """
        size = int(self.sizes[index])
        data = os.pread(descriptor, size, int(self.offsets[index]))
        where = f"file tile {index} (column {index % self.columns}, row {index // self.columns})"
        if len(data) != size:
            raise UnreadableSlideError(
                f"{self.path}: {where} is cut short, {len(data)} of {size} bytes are there. Copy the file again."
            )
        try:
            tile = self.decode(data, out)
        except Exception as error:  # imagecodecs has an error class for each codec
            raise UnreadableSlideError(f"{self.path}: {where} cannot be decoded ({error}). Copy it again.") from error
        if tile.shape != (self.tile_height, self.tile_width, 3) or tile.dtype != np.uint8:
            raise UnreadableSlideError(f"{self.path}: {where} decodes to {tile.shape}, not a tile. Copy it again.")
        return tile


def tiff_level(slide: Slide, level: int) -> TiffLevel | None:
    """The level's index, or None where the file is not of the plain kind this module knows.

    Args:
        slide: an open slide.
        level: a level of it.
    """
    if slide.properties.get("openslide.vendor") not in VENDORS or not slide.source.path.is_file():
        return None
    try:
        with tifffile.TiffFile(slide.source.path) as file:
            size = slide.level_dimensions[level]
            pages = [page for page in map(_whole_page, file.pages) if (page.imagewidth, page.imagelength) == size]
            pages = [page for page in pages if page.is_tiled]
            return _of_page(slide.source.path, pages[0]) if len(pages) == 1 else None
    except (tifffile.TiffFileError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None  # damaged or unusual: the slide library judges such a file


def _whole_page(page: tifffile.TiffPage | tifffile.TiffFrame) -> tifffile.TiffPage:
    """tifffile gives a page like the first in a shorter form."""
    return page if isinstance(page, tifffile.TiffPage) else page.aspage()


def _of_page(path: Path, page: tifffile.TiffPage) -> TiffLevel | None:
    found = decoder(page)
    if found is None:
        return None
    codec, decode = found
    level = TiffLevel(
        path=path,
        width=page.imagewidth,
        height=page.imagelength,
        tile_width=page.tilewidth,
        tile_height=page.tilelength,
        offsets=np.array(page.dataoffsets, np.int64),
        sizes=np.array(page.databytecounts, np.int64),
        codec=codec,
        decode=decode,
    )
    rows = -(-level.height // level.tile_height)
    # A file tile of no bytes is a hole, which slide libraries fill in ways of their own.
    ends = level.offsets + level.sizes
    whole = len(level.offsets) == len(level.sizes) == level.columns * rows and (level.sizes > 0).all()
    # A damaged size must not be believed: so much memory would be asked for. A file cut short is another matter.
    return level if whole and level.sizes.max() <= path.stat().st_size and (ends > level.offsets).all() else None
