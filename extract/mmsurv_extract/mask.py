"""Tissue, pen ink or background, from a low-resolution RGB image of a slide.

Owns the rules and their settings. Tissue: Otsu thresholds on HSV saturation and on each RGB channel, in the manner of
Steyaert et al. 2023 (Communications Medicine 3:44). Ink: colours that haematoxylin and eosin do not make. Integers
throughout, so the mask is the same on every machine; knows nothing of slides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmsurv.store.record import BACKGROUND, INK, TISSUE

METHOD = "otsu-saturation-rgb, ink by channel differences"

BLUE_SLACK = 5
"""Blue ink may have this much less green than red; haematoxylin has far less (docs/quality.md)."""
RED_BALANCE = 30
"""Red ink has at most this much more blue than green; eosin has more."""
BLACK_SPREAD = 30
"""Black ink's channels differ by at most this; dense haematoxylin's differ by more."""


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

    ink: bool = True
    """Whether pen ink is looked for."""
    max_ink: float = 0.1
    """Tiles with a larger share of ink are no candidates."""
    ink_blue: int = 40
    """Blue pen: at least this much more blue than red, and green not below red."""
    ink_green: int = 30
    """Green pen: at least this much more green than red."""
    ink_red: int = 120
    """Red pen: red at least this much above both others, which are alike."""
    ink_black: int = 80
    """Black pen: no channel above this, all alike."""

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
        if not 0 <= self.max_ink <= 1:
            raise ValueError(f"mask.max_ink must be a share, 0 to 1, not {self.max_ink}.")
        for name in ("ink_blue", "ink_green", "ink_red", "ink_black"):
            if not 0 < getattr(self, name) <= 255:
                raise ValueError(f"mask.{name} must be 1 to 255, not {getattr(self, name)}.")


def describe(settings: MaskSettings) -> dict[str, Any]:
    """The mask's part of the fingerprint."""
    constants = {"blue_slack": BLUE_SLACK, "red_balance": RED_BALANCE, "black_spread": BLACK_SPREAD}
    return {"method": METHOD, **asdict(settings), **constants}


def classify(rgb: np.ndarray, settings: MaskSettings) -> np.ndarray:
    """What each pixel shows.

    Args:
        rgb: (H, W, 3) uint8.
        settings: thresholds.

    Returns:
        (H, W) uint8, codes of :data:`mmsurv.store.record.MASK_CODES`: tissue is saturated, not white, not black and
        no ink; all background on a blank image.
    """
    codes = np.where(_tissue(rgb, settings), TISSUE, BACKGROUND).astype(np.uint8)
    if settings.ink:
        codes[_ink(rgb, settings)] = INK
    return codes


def _tissue(rgb: np.ndarray, settings: MaskSettings) -> np.ndarray:
    darkest = rgb.min(axis=2)
    saturation = _saturation(rgb.max(axis=2), darkest)
    saturated = saturation > np.clip(_otsu(saturation), settings.min_saturation, settings.max_saturation)
    white = np.array([max(_otsu(rgb[..., channel]), settings.min_white) for channel in range(3)])
    background = (rgb > white).all(axis=2)
    return saturated & ~background & (darkest > settings.black)


def _ink(rgb: np.ndarray, settings: MaskSettings) -> np.ndarray:
    red, green, blue = np.moveaxis(rgb.astype(np.int16), 2, 0)
    blue_pen = (blue - red >= settings.ink_blue) & (green - red >= -BLUE_SLACK)
    green_pen = green - red >= settings.ink_green
    red_pen = (red - np.maximum(green, blue) >= settings.ink_red) & (blue - green <= RED_BALANCE)
    brightest, darkest = rgb.max(axis=2), rgb.min(axis=2)
    black_pen = (brightest <= settings.ink_black) & (brightest - darkest <= BLACK_SPREAD)
    return blue_pen | green_pen | red_pen | black_pen


def _saturation(brightest: np.ndarray, darkest: np.ndarray) -> np.ndarray:
    """HSV saturation of a pixel on the scale 0 to 255, rounded down; black has none."""
    spread = (brightest - darkest).astype(np.uint16) * 255
    return (spread // np.maximum(brightest, 1)).astype(np.uint8)


def _otsu(channel: np.ndarray) -> int:
    from skimage.filters import threshold_otsu

    return int(threshold_otsu(channel))
