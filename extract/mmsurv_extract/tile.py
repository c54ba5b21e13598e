"""One tile's pixels: from the region a level gives to the square the encoder sees.

Owns compositing and resampling, with PIL; knows no files.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

RESAMPLING = "lanczos, exact float box"
"""PIL's Lanczos filter, widened to the scale when it reduces, over the tile's exact (fractional) extent."""
WHITE = (255, 255, 255)


def opaque(region: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """RGB of an RGBA region; where the scanner took no picture (alpha 0), the background's colour."""
    alpha = region.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return region.convert("RGB")
    canvas = Image.new("RGB", region.size, background)
    canvas.paste(region, mask=alpha)
    return canvas


def resample(region: Image.Image, side: float, tile_px: int) -> np.ndarray:
    """The top-left ``side`` × ``side`` pixels of a region, resampled to a tile.

    Args:
        region: RGB, at least ``ceil(side)`` wide and high.
        side: extent of the tile in the region's pixels, a float: it is not rounded, so the field of view is exact.
        tile_px: side of the result.

    Returns:
        (tile_px, tile_px, 3) uint8. Untouched where ``side`` is ``tile_px``.
    """
    if side == tile_px:
        return np.asarray(region.crop((0, 0, tile_px, tile_px)))
    resized = region.resize((tile_px, tile_px), Image.Resampling.LANCZOS, box=(0.0, 0.0, side, side))
    return np.asarray(resized)
