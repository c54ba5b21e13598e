"""Which reader a slide gets.

Owns the choice: a slide's own tiles are decoded directly only where that was seen, on this slide, to give the pixels
that the slide library gives.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry
from mmsurv_extract.reader.base import Inspect, TileReader
from mmsurv_extract.reader.filetiles import FileTileReader
from mmsurv_extract.reader.regions import RegionReader
from mmsurv_extract.reader.tiff import tiff_level
from mmsurv_extract.reader.window import is_whole, window_of
from mmsurv_extract.slide import Slide, open_slide

logger = logging.getLogger("mmsurv")

COMPARED = 4
"""Tiles of the slide that both readers read before one is trusted."""
TOLERANCE = {"jpeg": 0, "lossless": 0, "jpeg2000": 1, "jpeg2000-ycbcr": 1}
"""Largest difference of a pixel value that counts as the same, by codec; JPEG 2000 is decoded in floats."""
INTERPOLATED = 2
"""The same in a level of no whole downsample: the library interpolates there, in fixed point; what it gives is
compared with the same interpolation in floats."""


def open_reader(
    source: SlideSource,
    geometry: Geometry,
    *,
    tile_px: int,
    workers: int,
    inspect: Inspect | None = None,
    sample: np.ndarray | None = None,
) -> TileReader:
    """The fastest reader that is right for a slide.

    Args:
        source: the slide.
        geometry: how a tile lies on it.
        tile_px: side of a tile as encoded.
        workers: threads that read.
        inspect: called in those threads for every tile; see ``base.Inspect``.
        sample: (N, 2) level-0 corners of tiles that hold tissue: the readers are compared on a few of them. Without
            it, and where they differ, the slide library reads.

    Raises:
        NotASlideError, UnreadableSlideError: the slide cannot be opened.
    """
    options: dict[str, Any] = {"tile_px": tile_px, "workers": workers, "inspect": inspect}
    if sample is not None and len(sample):
        direct = _direct(source, geometry, sample, options)
        if direct is not None:
            return direct
    return RegionReader(source, geometry, **options)


def _direct(
    source: SlideSource, geometry: Geometry, sample: np.ndarray, options: dict[str, Any]
) -> FileTileReader | None:
    with open_slide(source) as slide:
        level = tiff_level(slide, geometry.level)
        if level is None:
            return None
        reader = FileTileReader(
            source,
            geometry,
            level=level,
            downsample=slide.level_downsamples[geometry.level],
            background=slide.background,
            **options,
        )
        places = np.linspace(0, len(sample) - 1, COMPARED).astype(int)
        difference = greatest_difference(reader, slide, geometry, sample[np.unique(places)])
        limit = TOLERANCE[level.codec] if is_whole(slide.level_downsamples[geometry.level]) else INTERPOLATED
        if difference is not None and difference <= limit:
            return reader
    reader.close()
    logger.info(
        "%s: its own tiles are not what the slide library shows (%s); the slower reader is used.",
        source.path, "none of the tiles compared can be read" if difference is None else f"off by {difference:g}",
    )  # fmt: skip
    return None


def greatest_difference(reader: FileTileReader, slide: Slide, geometry: Geometry, corners: np.ndarray) -> float | None:
    """Greatest difference of a pixel value between what the file's tiles and the slide library give.

    Returns:
        0 to 255; None if no tile could be read by both.
    """
    downsample = slide.level_downsamples[geometry.level]
    found = []
    for x, y in corners.tolist():
        window = window_of(x, y, downsample=downsample, side=geometry.side_level)
        try:
            ours = reader.read_one(x, y).astype(np.float64)
            if is_whole(downsample):
                x, y = window.x * round(downsample), window.y * round(downsample)
                theirs = slide.read_region(x, y, geometry.level, window.width, window.height)
            else:
                # The library begins between pixels and interpolates; so do we, one row and column less.
                ours = _shifted(ours, window.left, window.top)
                theirs = slide.read_region(x, y, geometry.level, window.width - 1, window.height - 1)
        except UnreadableSlideError:
            continue
        found.append(float(np.abs(ours - np.asarray(theirs)).max()))
    return max(found, default=None)


def _shifted(pixels: np.ndarray, left: float, top: float) -> np.ndarray:
    """Pixels ``left`` and ``top`` further on, linearly between their neighbours; one row and column less."""
    across = pixels[:, :-1] * (1 - left) + pixels[:, 1:] * left
    return across[:-1] * (1 - top) + across[1:] * top
