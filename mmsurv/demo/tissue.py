"""Slide files: writes an RGB array as the tiled pyramidal TIFF a scanner would have made.

Owns the file format only; what is painted on it is in :mod:`mmsurv.demo.painter`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UM_PER_CM = 10_000.0


def write_slide(
    path: str | Path,
    rgb_level0: NDArray[np.uint8],
    *,
    mpp: float | None,
    tile: int = 256,
    levels: int = 3,
    quality: int = 85,
) -> None:
    """Write a tiled, pyramidal, JPEG-compressed TIFF that OpenSlide opens as ``generic-tiff``.

    Every level is half the size of the one before, by 2 × 2 means, and a page of its own marked as a reduced
    image. The same arguments give the same bytes.

    Args:
        path: file to write; replaced if it is there. Its name ends in ``.tiff`` or ``.tif``.
        rgb_level0: (H, W, 3) uint8 RGB at full resolution.
        mpp: µm per pixel at level 0, written as TIFF resolution in pixels per cm, which OpenSlide reports as
            ``openslide.mpp-x`` and ``-y``. None writes no resolution, as some converters do.
        tile: side of a TIFF tile in pixels, a multiple of 16.
        levels: number of levels wanted, at least 1. Fewer when a side would drop below one pixel.
        quality: JPEG quality, 1 to 100.

    Raises:
        ValueError: not (H, W, 3) uint8, or a tile, level count or mpp that cannot be written.
    """
    import tifffile

    if rgb_level0.ndim != 3 or rgb_level0.shape[2] != 3 or rgb_level0.dtype != np.uint8:
        raise ValueError(f"{path}: expected an (H, W, 3) uint8 array, found {rgb_level0.shape} {rgb_level0.dtype}.")
    if tile < 16 or tile % 16:
        raise ValueError(f"{path}: tile must be a positive multiple of 16 (TIFF), not {tile}.")
    if levels < 1:
        raise ValueError(f"{path}: levels must be at least 1, not {levels}.")
    if mpp is not None and not mpp > 0:
        raise ValueError(f"{path}: mpp must be above zero, or None for no resolution, not {mpp}.")

    level_rgb = rgb_level0
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            pixels_per_cm = None if mpp is None else UM_PER_CM / (mpp * 2**level)
            file.write(
                level_rgb,
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": quality},
                tile=(tile, tile),
                subfiletype=1 if level else 0,
                resolution=None if pixels_per_cm is None else (pixels_per_cm, pixels_per_cm),
                resolutionunit="NONE" if pixels_per_cm is None else "CENTIMETER",
                metadata=None,
                software=False,
            )
            if min(level_rgb.shape[:2]) < 2:
                break
            level_rgb = _halve(level_rgb)


def _halve(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """2 × 2 means, rounded; an odd last row or column is dropped."""
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    even = rgb[:height, :width].astype(np.uint16)
    total = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
