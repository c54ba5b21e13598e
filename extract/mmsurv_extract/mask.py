"""Tissue or background, from a low-resolution RGB image of a slide.

Owns the rule and its settings: Otsu thresholds on HSV saturation and on each RGB channel, in the manner of Steyaert
et al. 2023 (Communications Medicine 3:44). Deterministic; knows nothing of slides. Exclusion of ink and blur belongs
here when it comes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

METHOD = "otsu-saturation-rgb"


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """How tissue is told from background. Thresholds are on the scale 0 to 255.

    Otsu splits whatever it is given: a blank slide into two shades of noise, a slide full of tissue into light and
    dark tissue. The limits keep its thresholds where the question makes sense.
    """

    mpp: float = 8.0
    """Resolution the mask is made at, µm per pixel; coarser on slides so large that the mask would exceed max_px."""
    max_px: int = 4096
    """Longest side of the mask in pixels: bounds the memory, and depends on nothing but the slide's size."""
    min_saturation: int = 13
    """Otsu's saturation threshold is raised to this (5 %): JPEG noise on glass stays below."""
    max_saturation: int = 38
    """Otsu's saturation threshold is lowered to this (15 %): on a slide full of tissue it would split the tissue."""
    min_white: int = 220
    """Otsu's R, G and B thresholds are raised to this; a pixel above all three is background."""
    black: int = 50
    """A pixel with any channel at or below this is not tissue: black ink, the edge of the glass, scanner borders."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.mpp <= 100:
            raise ValueError(f"mask.mpp must be 0.5 to 100 µm per pixel, not {self.mpp}.")
        if not 64 <= self.max_px <= 16384:
            raise ValueError(f"mask.max_px must be 64 to 16384, not {self.max_px}.")
        if not 0 <= self.min_saturation <= self.max_saturation <= 255:
            raise ValueError(
                "mask: 0 <= min_saturation <= max_saturation <= 255 must hold, not "
                f"{self.min_saturation} and {self.max_saturation}."
            )
        if not 0 <= self.black < self.min_white <= 255:
            raise ValueError(f"mask: 0 <= black < min_white <= 255 must hold, not {self.black} and {self.min_white}.")


def describe(settings: MaskSettings) -> dict[str, Any]:
    """The mask's part of the fingerprint."""
    return {"method": METHOD, **asdict(settings)}


def tissue_mask(rgb: np.ndarray, settings: MaskSettings) -> np.ndarray:
    """Which pixels are tissue: saturated, not white, not black.

    Args:
        rgb: (H, W, 3) uint8.
        settings: thresholds' limits.

    Returns:
        (H, W) bool; all False on a blank image.
    """
    darkest = rgb.min(axis=2)
    saturation = _saturation(rgb.max(axis=2), darkest)
    saturated = saturation > np.clip(_otsu(saturation), settings.min_saturation, settings.max_saturation)
    white = np.array([max(_otsu(rgb[..., channel]), settings.min_white) for channel in range(3)])
    background = (rgb > white).all(axis=2)
    return saturated & ~background & (darkest > settings.black)


def _saturation(brightest: np.ndarray, darkest: np.ndarray) -> np.ndarray:
    """HSV saturation of a pixel on the scale 0 to 255, rounded down; black has none."""
    spread = (brightest - darkest).astype(np.uint16) * 255
    return (spread // np.maximum(brightest, 1)).astype(np.uint8)


def _otsu(channel: np.ndarray) -> int:
    from skimage.filters import threshold_otsu

    return int(threshold_otsu(channel))
