"""Which tiles are too blurred or too white to be encoded, by their pixels.

Owns the rules and their settings. Integers up to the last comparison, so a tile is judged alike on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmsurv.store.record import NEAR_WHITE, OUT_OF_FOCUS

METHOD = "structure functions of grey at 1 and 4 steps; share of near-white pixels"

STEP_UM = 1.0
"""Sharpness is measured on steps of at least this: finer ones show the scanner's noise and its JPEG."""
MAX_STEP_UM = 2.0
"""Coarser tiles are not judged for focus: nuclei are then a few pixels, and sharp however blurred the slide."""
LAG = 4
"""Steps that the variation over one step is compared with."""
MIN_STEPS = 16
"""Smallest side of a tile, in steps, that is judged for focus."""


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """When a tile is left out."""

    focus: bool = True
    """Whether blurred tiles are left out."""
    min_sharpness: float = 0.115
    """Mean squared difference of grey between neighbours 1 µm apart, relative to that 4 µm apart: 1/16 on what is
    smooth, 1 on noise, 0.16 to 0.49 on sharp H&E (docs/quality.md). Tiles below this are out of focus."""
    white: bool = True
    """Whether near-white tiles are left out."""
    white_level: int = 220
    """A pixel with all channels at or above this is near white."""
    max_white: float = 0.9
    """Tiles with a larger share of near-white pixels are left out."""

    def __post_init__(self) -> None:
        if not 0 < self.min_sharpness < 1:
            raise ValueError(f"quality.min_sharpness must be between 0 and 1, not {self.min_sharpness}.")
        if not 1 <= self.white_level <= 255:
            raise ValueError(f"quality.white_level must be 1 to 255, not {self.white_level}.")
        if not 0 <= self.max_white <= 1:
            raise ValueError(f"quality.max_white must be a share, 0 to 1, not {self.max_white}.")


def describe(settings: QualitySettings) -> dict[str, Any]:
    """Its part of the fingerprint."""
    return {"method": METHOD, **asdict(settings), "step_um": STEP_UM, "max_step_um": MAX_STEP_UM, "lag": LAG}


def inspector(settings: QualitySettings, tile_mpp: float) -> Callable[[np.ndarray], int]:
    """A function that judges tiles.

    Args:
        settings: thresholds.
        tile_mpp: µm per pixel of the tiles.

    Returns:
        Takes (px, px, 3) uint8; returns 0 to keep the tile, or a code of :data:`mmsurv.store.record.REASONS`.
    """
    step = pixels_per_step(tile_mpp)

    def inspect(tile: np.ndarray) -> int:
        if settings.white and white_share(tile, settings.white_level) > settings.max_white:
            return NEAR_WHITE
        if settings.focus and step and sharpness(tile, step) < settings.min_sharpness:
            return OUT_OF_FOCUS
        return 0

    return inspect


def pixels_per_step(tile_mpp: float) -> int:
    """Pixels of a tile that make one step of 1 µm or more, less than 2; 0 where the tile is too coarse to judge."""
    if tile_mpp > MAX_STEP_UM:
        return 0
    # 0.3333 µm are three pixels to the step, not four.
    return max(1, math.ceil(STEP_UM / tile_mpp - 0.01))


def white_share(tile: np.ndarray, level: int) -> float:
    """Share of a tile's pixels with all channels at or above ``level``."""
    return float(np.count_nonzero(tile.min(axis=2) >= level)) / (tile.shape[0] * tile.shape[1])


def sharpness(tile: np.ndarray, step: int) -> float:
    """How fast grey changes from one step to the next, relative to how much it does over four.

    Args:
        tile: (px, px, 3) uint8.
        step: pixels per step; grey is averaged over ``step`` × ``step``.

    Returns:
        The ratio of mean squared differences; infinite where nothing can be said: a flat tile, or one of few steps.
    """
    side = min(tile.shape[:2]) // step
    if side < MIN_STEPS:
        return math.inf
    whole = tile[: side * step, : side * step].astype(np.int64)
    grey = 77 * whole[..., 0] + 150 * whole[..., 1] + 29 * whole[..., 2]  # luma × 256
    # In sixteenths of a grey level, so that rounding adds nothing to pale tiles.
    mean = grey.reshape(side, step, side, step).sum(axis=(1, 3)) // (16 * step * step)
    near, far = _squared_difference(mean, 1), _squared_difference(mean, LAG)
    if not far:
        return math.inf
    return (near / (side - 1)) / (far / (side - LAG))


def _squared_difference(grey: np.ndarray, lag: int) -> int:
    """Sum of squared differences across and down."""
    across, down = grey[:, lag:] - grey[:, :-lag], grey[lag:] - grey[:-lag]
    return int((across * across).sum()) + int((down * down).sum())
