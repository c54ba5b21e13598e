"""A slide at low resolution: the image its tissue mask and thumbnail are made from.

Owns the read in bounded blocks, so that a slide without a low level costs time but not memory.
"""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmsurv_extract.slide import Slide
from mmsurv_extract.stop import stop_if_set

BLOCK_PX = 2048
"""Longest side of a block read at once, in pixels of the level read. It never depends on the memory at hand: where a
level's downsample is no divisor of the overview's, the last bit of a pixel depends on where its block begins."""
METHOD = f"box means over whole level-0 pixels, blocks of {BLOCK_PX} px"
THUMBNAIL_PX = 768
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Overview:
    """A slide's low-resolution image; pixel (r, c) covers ``downsample`` level-0 pixels each way."""

    rgb: np.ndarray
    """(H, W, 3) uint8; the last row and column may reach beyond the slide, there with the background's colour."""
    downsample: int


def overview_downsample(width: int, height: int, *, mpp: float, target_mpp: float, max_px: int) -> int:
    """Level-0 pixels per overview pixel: a whole number, so that blocks meet without a seam."""
    return max(1, round(target_mpp / mpp), math.ceil(max(width, height) / max_px))


def read_overview(slide: Slide, downsample: int, stop: threading.Event | None = None) -> Overview:
    """Read a whole slide, each pixel the mean of ``downsample`` × ``downsample`` level-0 pixels' worth.

    The coarsest level that is fine enough is read, block by block.

    Raises:
        UnreadableSlideError: a block could not be read.
        JobStopped: ``stop`` was set.
    """
    own = slide.own_overview(downsample, stop)
    if own is not None:
        return Overview(own, downsample)
    rows, columns = math.ceil(slide.height / downsample), math.ceil(slide.width / downsample)
    level = max(
        (i for i, found in enumerate(slide.level_downsamples) if found <= downsample),
        key=lambda i: slide.level_downsamples[i],
    )
    scale = downsample / slide.level_downsamples[level]
    step = max(1, int(BLOCK_PX / scale))
    rgb = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            stop_if_set(stop)
            high, wide = min(step, rows - top), min(step, columns - left)
            region = slide.read_region(
                left * downsample, top * downsample, level, math.ceil(wide * scale), math.ceil(high * scale)
            )
            block = region.resize((wide, high), Image.Resampling.BOX, box=(0.0, 0.0, wide * scale, high * scale))
            rgb[top : top + high, left : left + wide] = np.asarray(block)
    return Overview(rgb, downsample)


def thumbnail(overview: Overview) -> tuple[bytes, float]:
    """A JPEG of the overview, at most 768 pixels a side, and its downsample relative to level 0."""
    image = Image.fromarray(overview.rgb)
    factor = math.ceil(max(image.size) / THUMBNAIL_PX)
    image = image.reduce(factor) if factor > 1 else image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), float(overview.downsample * factor)
