from __future__ import annotations

import numpy as np
import pytest

from mmsurv_extract.mask import MaskSettings, tissue_mask

SETTINGS = MaskSettings()
PINK = (190, 110, 160)


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
    np.testing.assert_array_equal(tissue_mask(rgb, SETTINGS), tissue_mask(rgb.copy(), SETTINGS))


@pytest.mark.parametrize(
    "wrong", [{"mpp": 0.1}, {"max_px": 1}, {"min_saturation": 50, "max_saturation": 40}, {"black": 230}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mask"):
        MaskSettings(**wrong)
