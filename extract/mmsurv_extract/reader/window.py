"""Where a tile lies in the pixels of its level, and the tile those pixels make.

Owns the step from a level-0 corner to whole pixels of a level and back to a square of ``tile_px``. Level-0
coordinates are integers; in a level whose downsample is no whole number they fall between pixels, so a window is read
in whole pixels and the tile's exact extent is a box within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_FLOAT_NOISE = 1e-6
"""Of a pixel: the error of dividing a coordinate by a downsample must not read one more pixel."""


@dataclass(frozen=True)
class Window:
    """Whole pixels of a level that hold a tile."""

    x: int
    """Column of the first pixel in the level."""
    y: int
    width: int
    height: int
    left: float
    """Where the tile begins within the first pixel, 0 to 1."""
    top: float


def window_of(x: int, y: int, *, downsample: float, side: float) -> Window:
    """The window of a tile.

    Args:
        x, y: level-0 pixels of the tile's top-left corner.
        downsample: level-0 pixels per pixel of the level, exact.
        side: side of the tile in pixels of the level.
    """
    column, left = _split(x / downsample)
    row, top = _split(y / downsample)
    return Window(column, row, _ceil(left + side), _ceil(top + side), left, top)


def is_whole(downsample: float) -> bool:
    """Whether level-0 coordinates can be multiples of a level's pixels at all: 4.0, but not 4.0003."""
    return downsample == round(downsample)


def _split(position: float) -> tuple[int, float]:
    whole = math.floor(position + _FLOAT_NOISE)
    rest = position - whole
    return whole, 0.0 if rest < _FLOAT_NOISE else rest


def _ceil(extent: float) -> int:
    return math.ceil(extent - _FLOAT_NOISE)
