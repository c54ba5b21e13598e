"""Tile positions of a slide, and how much tissue each holds.

Owns the geometry, in numpy alone. Coordinates are level-0 pixels (x, y); a tile's side at level 0 is a float, so a
slide of 0.26 µm is not treated as one of 0.25.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL_TOLERANCE = 1.01
LEVEL_RULE = f"coarsest level of at most {LEVEL_TOLERANCE} x the tile's downsample, exact"
"""One per cent of upsampling is allowed, so that a level of 4.0001 serves a downsample of 4."""


@dataclass(frozen=True)
class Geometry:
    """How a tile of the recipe lies on one slide."""

    level: int
    """Pyramid level it is read from."""
    side_level0: float
    """Side in level-0 pixels."""
    side_level: float
    """Side in pixels of the level read."""


def tile_geometry(*, tile_px: int, tile_mpp: float, mpp: float, level_downsamples: Sequence[float]) -> Geometry:
    """Side of a tile on a slide and the level to read it from.

    Args:
        tile_px, tile_mpp: the recipe's tile; its field of view is the product, in µm.
        mpp: the slide's µm per level-0 pixel.
        level_downsamples: exact downsample of each level, finest first, as floats; never truncated.
    """
    downsample = tile_mpp / mpp
    fitting = [i for i, found in enumerate(level_downsamples) if found <= downsample * LEVEL_TOLERANCE]
    level = max(fitting, key=lambda i: level_downsamples[i], default=0)
    side = tile_px * downsample
    return Geometry(level=level, side_level0=_whole(side), side_level=_whole(side / level_downsamples[level]))


def tile_positions(width: int, height: int, side: float) -> np.ndarray:
    """Top-left corners of the whole, non-overlapping tiles of a slide.

    Args:
        width, height: level-0 size in pixels.
        side: side of a tile in level-0 pixels, a float; the i-th tile begins at ``round(i * side)``, so that
            rounding does not add up over the slide, and the last one no later than lets it end on the slide.

    Returns:
        (T, 2) int64 level-0 (x, y), in raster order; (0, 2) when the slide is smaller than one tile.
    """
    x, y = _starts(width, side), _starts(height, side)
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def _starts(extent: int, side: float) -> np.ndarray:
    """(n,) int64, where the whole tiles along one axis begin."""
    # A millionth of a tile forgives the float error of extent / side where it should be whole.
    slack = 1e-6
    ideal = np.arange(int(extent / side + slack)) * side
    # The last one is not rounded up over the edge: what lies beyond would be painted in the background's colour.
    return np.minimum(np.rint(ideal), math.floor(extent - side + slack * side)).astype(np.int64)


def tissue_fractions(mask: np.ndarray, coords: np.ndarray, side: float, mask_downsample: float) -> np.ndarray:
    """Share of each tile that the mask marks, tissue as a rule, weighted exactly by area.

    Args:
        mask: (H, W), True where there is some; pixel (r, c) covers level-0 ``[c, c + 1) * mask_downsample`` by
            ``[r, r + 1) * mask_downsample``. Outside it there is none.
        coords: (T, 2) level-0 (x, y).
        side: side of a tile in level-0 pixels.
        mask_downsample: level-0 pixels per mask pixel.

    Returns:
        (T,) float32, 0 to 1.
    """
    # The integral of a piecewise constant mask is piecewise bilinear, so interpolating its table of sums is exact.
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1, out=sums[1:, 1:])
    low = np.asarray(coords, dtype=np.float64).reshape(-1, 2) / mask_downsample
    high = low + side / mask_downsample
    (x0, y0), (x1, y1) = low.T, high.T
    area = _at(sums, y1, x1) - _at(sums, y0, x1) - _at(sums, y1, x0) + _at(sums, y0, x0)
    return np.clip(area / (side / mask_downsample) ** 2, 0, 1).astype(np.float32)


def reading_order(coords: np.ndarray, side: float, *, block: int = 8) -> np.ndarray:
    """An order in which tiles near each other are read soon after each other.

    Tiles are taken in squares of ``block`` by ``block``, row by row within a square, so that the file's own tiles
    are still in the reader's cache when the next row needs them, however wide the slide.

    Returns:
        (T,) int64, a permutation of the rows of ``coords``.
    """
    coords = np.asarray(coords).reshape(-1, 2)
    column, row = (coords // (side * block)).astype(np.int64).T
    return np.lexsort((coords[:, 0], coords[:, 1], column, row)).astype(np.int64)


def _whole(side: float) -> float:
    """224 for 224.00000000000003: float error must cost no row of pixels and no resampling."""
    return float(round(side)) if math.isclose(side, round(side), rel_tol=1e-9) else side


def _at(sums: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear look-up; positions beyond the table have the value of its edge."""
    y = np.clip(y, 0, sums.shape[0] - 1)
    x = np.clip(x, 0, sums.shape[1] - 1)
    row = np.minimum(y.astype(np.int64), sums.shape[0] - 2)
    column = np.minimum(x.astype(np.int64), sums.shape[1] - 2)
    dy, dx = y - row, x - column
    top = sums[row, column] * (1 - dx) + sums[row, column + 1] * dx
    bottom = sums[row + 1, column] * (1 - dx) + sums[row + 1, column + 1] * dx
    return top * (1 - dy) + bottom * dy
