"""Which reader a slide gets.

Owns the choice: a slide's own tiles are decoded directly only where that was seen, on this slide, to give the pixels
that the slide library gives.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.discover import LOCATIONS, SlideSource
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
    # Here, because patches are read by a reader made of what this package owns.
    from mmsurv_extract.patches import PatchReader

    options: dict[str, Any] = {"tile_px": tile_px, "workers": workers, "inspect": inspect}
    if (source.path / LOCATIONS).is_file():
        return PatchReader(source, geometry, **options)
    if sample is not None and len(sample):
        direct = _direct(source, geometry, sample, options)
        if direct is not None:
            return direct
    return RegionReader(source, geometry, **options)


def _direct(
    source: SlideSource, geometry: Geometry, sample: np.ndarray, options: dict[str, Any]
) -> FileTileReader | None:
    with open_slide(source) as slide:
        downsample = slide.level_downsamples[geometry.level]
        # Between whole downsamples the library interpolates between pixels, so the two cannot be the same.
        level = tiff_level(slide, geometry.level) if is_whole(downsample) else None
        if level is None:
            return None
        reader = FileTileReader(
            source,
            geometry,
            level=level,
            downsample=downsample,
            background=slide.background,
            **options,
        )
        try:
            places = np.linspace(0, len(sample) - 1, COMPARED).astype(int)
            difference = greatest_difference(reader, slide, geometry, sample[np.unique(places)])
        except BaseException:
            reader.close()
            raise
        if difference is not None and difference <= TOLERANCE[level.codec]:
            return reader
    reader.close()
    logger.info(
        "%s: its own tiles are not what the slide library shows (%s); the slower reader is used.",
        source.path, "none of the tiles compared can be read" if difference is None else f"off by {difference}",
    )  # fmt: skip
    return None


def greatest_difference(reader: FileTileReader, slide: Slide, geometry: Geometry, corners: np.ndarray) -> int | None:
    """Greatest difference of a pixel value between what the file's tiles and the slide library give.

    Returns:
        0 to 255; None if no tile could be read by both.
    """
    downsample = slide.level_downsamples[geometry.level]
    found = []
    for x, y in corners.tolist():
        window = window_of(x, y, downsample=downsample, side=geometry.side_level)
        left, top = window.x * round(downsample), window.y * round(downsample)
        try:
            ours = reader.read_one(x, y)
            theirs = slide.read_region(left, top, geometry.level, window.width, window.height)
        except UnreadableSlideError:
            continue
        found.append(int(np.abs(ours.astype(np.int16) - np.asarray(theirs)).max()))
    return max(found, default=None)
