from __future__ import annotations

import numpy as np
import pytest

from mmsurv_extract.grid import reading_order, tile_geometry, tile_positions, tissue_fractions


def geometry(mpp: float, *levels: float, px: int = 224, tile_mpp: float = 0.5) -> tuple[int, float, float]:
    found = tile_geometry(tile_px=px, tile_mpp=tile_mpp, mpp=mpp, level_downsamples=levels)
    return found.level, found.side_level0, found.side_level


def test_the_field_of_view_is_that_of_the_recipe_whatever_the_slide() -> None:
    for mpp in (0.25, 0.26, 0.2526, 0.499, 0.5):
        _, side, _ = geometry(mpp, 1.0, 4.0)
        assert side * mpp == pytest.approx(112.0, rel=1e-12)


def test_a_quarter_and_0_26_um_are_not_treated_alike() -> None:
    assert geometry(0.25, 1.0)[1] == 448
    assert geometry(0.26, 1.0)[1] == pytest.approx(430.769, abs=1e-3)


def test_a_downsample_of_3_9999_is_not_made_3() -> None:
    level, side0, side = geometry(0.125, 1.0, 3.9999)
    assert (level, side0) == (1, 896)
    assert side == pytest.approx(896 / 3.9999, rel=1e-12)


@pytest.mark.parametrize(("downsample", "level"), [(1.99, 1), (2.0, 1), (2.0005, 1), (2.03, 0)])
def test_the_coarsest_level_that_is_fine_enough_is_read(downsample: float, level: int) -> None:
    assert geometry(0.25, 1.0, downsample, 8.0)[0] == level


def test_a_slide_coarser_than_the_tiles_is_read_at_level_0() -> None:
    assert geometry(0.6, 1.0, 4.0)[0] == 0


def test_float_error_costs_no_row_of_pixels() -> None:
    # 224 * (0.5 / 0.0625) / 8 and the like are whole but for the last bit.
    for mpp in (0.1, 0.05, 0.7 / 2, 0.5):
        _, side0, side = geometry(mpp, 1.0, tile_mpp=mpp)
        assert (side0, side) == (224.0, 224.0)


def test_tiles_are_whole_and_tile_the_slide() -> None:
    positions = tile_positions(1000, 700, 300.0)
    np.testing.assert_array_equal(positions, [[0, 0], [300, 0], [600, 0], [0, 300], [300, 300], [600, 300]])


def test_rounding_does_not_add_up() -> None:
    side = 224.44889779559117
    positions = tile_positions(100_000, 300, side)
    assert len(positions) == int(100_000 / side)
    assert positions[-1, 0] == round((len(positions) - 1) * side)


def test_a_slide_smaller_than_a_tile_has_none() -> None:
    assert tile_positions(100, 1000, 200.0).shape == (0, 2)


def test_fractions_are_weighted_by_area() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True  # tissue in level-0 x below 20
    fractions = tissue_fractions(mask, np.array([[0, 0], [10, 0], [15, 5], [20, 0]]), 10.0, 10)
    np.testing.assert_allclose(fractions, [1, 1, 0.5, 0])


def test_what_lies_outside_the_mask_is_not_tissue() -> None:
    assert tissue_fractions(np.ones((2, 2), bool), np.array([[15, 15]]), 10.0, 10)[0] == pytest.approx(0.25)


def test_reading_goes_square_by_square() -> None:
    positions = tile_positions(400, 400, 100.0)
    order = reading_order(positions, 100.0, block=2)
    np.testing.assert_array_equal(positions[order][:4], [[0, 0], [100, 0], [0, 100], [100, 100]])
