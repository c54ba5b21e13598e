from __future__ import annotations

import numpy as np
import pytest

from mmsurv.store.record import BACKGROUND, INK, TISSUE
from mmsurv_extract.mask import MaskSettings, classify

SETTINGS = MaskSettings()
PINK = (190, 110, 160)


def tissue_mask(rgb: np.ndarray, settings: MaskSettings) -> np.ndarray:
    return classify(rgb, settings) == TISSUE


def image(*, height: int = 64, width: int = 64, colour: tuple[int, int, int] = (244, 244, 244)) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def noisy(rgb: np.ndarray, spread: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-spread, spread + 1, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [(255, 255, 255), (244, 244, 244), (128, 128, 128), (0, 0, 0)])
def test_a_blank_image_holds_no_tissue(colour: tuple[int, int, int]) -> None:
    assert not tissue_mask(image(colour=colour), SETTINGS).any()


def test_the_noise_of_empty_glass_is_not_tissue() -> None:
    assert not tissue_mask(noisy(image(), 5), SETTINGS).any()


def test_tissue_is_told_from_glass() -> None:
    rgb = image()
    rgb[:, :32] = PINK
    mask = tissue_mask(noisy(rgb, 5), SETTINGS)
    assert mask[:, :32].all()
    assert not mask[:, 32:].any()


def test_an_image_full_of_tissue_is_not_split_in_two() -> None:
    rgb = image(colour=PINK)
    rgb[::2] = (120, 70, 140)
    assert tissue_mask(noisy(rgb, 10), SETTINGS).all()


def test_black_ink_is_not_tissue() -> None:
    rgb = image()
    rgb[:, :32] = PINK
    rgb[:16, :16] = (40, 10, 30)
    mask = tissue_mask(rgb, SETTINGS)
    assert not mask[:16, :16].any()
    assert mask[16:, :32].all()


def test_the_mask_is_a_function_of_the_pixels() -> None:
    rgb = noisy(image(colour=PINK), 60)
    np.testing.assert_array_equal(classify(rgb, SETTINGS), classify(rgb.copy(), SETTINGS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mpp": 0.1},
        {"max_px": 1},
        {"min_saturation": 50, "max_saturation": 40},
        {"black": 230},
        {"max_ink": 1.5},
        {"ink_blue": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mask"):
        MaskSettings(**wrong)


PENS = {"blue": (30, 60, 140), "blue over tissue": (60, 62, 120), "green": (40, 130, 90), "red": (200, 40, 50)}
PENS |= {"black": (40, 38, 45), "pale blue": (135, 164, 202)}
STAINS = {
    "haematoxylin": (110, 64, 127),
    "blue haematoxylin": (90, 78, 150),
    "eosin": (220, 120, 160),
    "red cells": (190, 60, 80),
    "frozen section": (130, 10, 50),
    "pale neuropil": (232, 214, 228),
    "fold": (85, 30, 75),
    "greenish glass": (222, 236, 226),
}


@pytest.mark.parametrize("pen", PENS.values(), ids=PENS.keys())
def test_pen_ink_is_told_from_tissue(pen: tuple[int, int, int]) -> None:
    rgb = image()
    rgb[:, :32] = PINK
    rgb[:16, :16] = pen
    codes = classify(noisy(rgb, 3), SETTINGS)
    assert (codes[:16, :16] == INK).all()
    assert (codes[16:, :32] == TISSUE).all()
    assert (codes[:, 32:] == BACKGROUND).all()


@pytest.mark.parametrize("stain", STAINS.values(), ids=STAINS.keys())
def test_no_stain_of_tissue_is_called_ink(stain: tuple[int, int, int]) -> None:
    rgb = image()
    rgb[:, :32] = stain
    assert not (classify(rgb, SETTINGS) == INK).any()


def test_ink_is_not_looked_for_where_that_is_switched_off() -> None:
    rgb = image()
    rgb[:, :32] = PENS["blue"]
    assert not (classify(rgb, MaskSettings(ink=False)) == INK).any()
