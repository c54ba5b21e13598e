from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmsurv_extract.tile import opaque, resample


def ramp(width: int) -> Image.Image:
    """20 brighter with every pixel to the right."""
    row = (np.arange(width) * 20).astype(np.uint8)
    return Image.fromarray(np.repeat(np.tile(row, (width, 1))[..., None], 3, axis=2))


def test_a_fractional_extent_is_not_rounded() -> None:
    tile = resample(ramp(11), 10.5, 21).astype(float)
    # Pixel i of the tile shows the middle of [i, i + 1) half pixels of the region. Edges feel the filter's border.
    expected = 20 * ((np.arange(21) + 0.5) * 10.5 / 21 - 0.5)
    np.testing.assert_allclose(tile[10, 5:-5, 0], expected[5:-5], atol=1.5)


def test_an_extent_of_the_tiles_own_size_is_not_touched() -> None:
    region = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    np.testing.assert_array_equal(resample(region, 8.0, 8), np.asarray(region)[:8, :8])


def test_reducing_averages_and_does_not_skip_pixels() -> None:
    checkers = ((np.indices((64, 64)).sum(axis=0) % 2) * 255).astype(np.uint8)
    tile = resample(Image.fromarray(np.repeat(checkers[..., None], 3, axis=2)), 64.0, 16)
    assert np.abs(tile[2:-2, 2:-2].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 20, 30)])
def test_what_was_not_scanned_has_the_background_colour(background: tuple[int, int, int]) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 100, 50, 255)
    rgb = np.asarray(opaque(Image.fromarray(rgba), background))
    assert rgb[0, 0].tolist() == [200, 100, 50]
    assert rgb[1, 1].tolist() == list(background)
