"""One tile's pixels: from the region a level gives to the square the encoder sees.

Owns compositing and resampling, with PIL; knows no files.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

RESAMPLING = "mean of a whole number of pixels, else lanczos; exact float box"
"""Where a whole number of pixels makes one, their mean, which is what the levels of a pyramid hold; elsewhere PIL's
Lanczos filter, widened to the scale when it reduces, over the tile's exact (fractional) extent."""
WHITE = (255, 255, 255)


def opaque(region: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """RGB of an RGBA region; where the scanner took no picture (alpha 0), the background's colour."""
    alpha = region.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return region.convert("RGB")
    canvas = Image.new("RGB", region.size, background)
    canvas.paste(region, mask=alpha)
    return canvas


def resample(region: Image.Image, side: float, tile_px: int, *, left: float = 0.0, top: float = 0.0) -> np.ndarray:
    """The ``side`` × ``side`` pixels of a region that begin at (``left``, ``top``), resampled to a tile.

    Args:
        region: RGB, at least ``ceil(left + side)`` wide and ``ceil(top + side)`` high.
        side: extent of the tile in the region's pixels, a float: it is not rounded, so the field of view is exact.
        tile_px: side of the result.
        left, top: where the tile begins, in the region's pixels.

    Returns:
        (tile_px, tile_px, 3) uint8. Untouched where ``side`` is ``tile_px`` and the tile begins on a whole pixel.
    """
    factor = side / tile_px
    if factor == int(factor) and left == int(left) and top == int(top):
        box = (int(left), int(top), int(left + side), int(top + side))
        return np.asarray(region.crop(box) if factor == 1 else region.reduce(int(factor), box))
    exact = (left, top, min(left + side, region.width), min(top + side, region.height))
    return np.asarray(region.resize((tile_px, tile_px), Image.Resampling.LANCZOS, box=exact))
