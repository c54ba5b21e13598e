from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmsurv_extract.grid import reading_order, tile_geometry, tile_positions, tissue_fractions

sides = st.floats(16, 400, allow_nan=False)
extents = st.integers(1, 3000)


@given(width=extents, height=extents, side=sides)
def test_tiles_lie_on_the_slide_and_overlap_by_no_more_than_rounding(width: int, height: int, side: float) -> None:
    positions = tile_positions(width, height, side)
    assert (positions >= 0).all()
    assert (positions + side <= np.array([width, height]) + 1e-3).all()
    for column in np.unique(positions[:, 1]):
        gaps = np.diff(positions[positions[:, 1] == column, 0])
        assert (np.abs(gaps - side) <= 1.5).all()


@given(width=st.integers(1, 200_000), side=sides)
def test_positions_are_exact_however_far_from_the_corner(width: int, side: float) -> None:
    starts = tile_positions(width, math.ceil(side), side)[:, 0].tolist()
    # In exact fractions, so that no float error of ours is compared with itself.
    looked_at = sorted({*range(0, len(starts), len(starts) // 50 + 1), *range(max(0, len(starts) - 2), len(starts))})
    assert len(starts) == math.floor(width / Fraction(side) + Fraction(1e-6))
    half = Fraction(1, 2) + Fraction(1, 10**6)
    for i in looked_at:
        error = starts[i] - i * Fraction(side)
        # Only the last may be moved further, to end on the slide.
        assert abs(error) <= half or (i == len(starts) - 1 and -1 < error < 0)


@given(width=st.integers(1, 5000), whole=st.integers(16, 400))
def test_tiles_of_whole_pixels_do_not_overlap_at_all(width: int, whole: int) -> None:
    starts = tile_positions(width, whole, float(whole))[:, 0]
    np.testing.assert_array_equal(starts, np.arange(width // whole) * whole)


@given(
    mask=st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((12, 9)) < 0.5),
    side=st.integers(1, 60),
    downsample=st.integers(1, 16),
    x=st.integers(0, 150),
    y=st.integers(0, 200),
)
def test_fractions_are_what_counting_level_0_pixels_gives(
    mask: np.ndarray, side: int, downsample: int, x: int, y: int
) -> None:
    full = np.zeros((400, 400))
    fine = np.kron(mask, np.ones((downsample, downsample)))
    full[: fine.shape[0], : fine.shape[1]] = fine
    expected = full[y : y + side, x : x + side].mean()
    found = tissue_fractions(mask, np.array([[x, y]]), float(side), downsample)
    np.testing.assert_allclose(found, [expected], atol=1e-6)


@given(
    mpp=st.floats(0.05, 2),
    tile_mpp=st.floats(0.05, 2),
    downsamples=st.lists(st.floats(1.5, 40), max_size=4).map(sorted),
)
def test_the_field_of_view_never_depends_on_the_level(mpp: float, tile_mpp: float, downsamples: list[float]) -> None:
    levels = [1.0, *downsamples]
    found = tile_geometry(tile_px=224, tile_mpp=tile_mpp, mpp=mpp, level_downsamples=levels)
    np.testing.assert_allclose(found.side_level * levels[found.level] * mpp, 224 * tile_mpp, rtol=1e-8)
    assert levels[found.level] == 1.0 or levels[found.level] <= 1.01 * tile_mpp / mpp
    # Blown up by no more than one per cent, but where the slide itself is coarser than the tiles.
    assert found.side_level >= 224 / 1.0101 or found.level == 0
    finer = [d for d in levels if d <= 1.01 * tile_mpp / mpp]
    assert levels[found.level] == max(finer, default=1.0)


@given(width=extents, height=extents, side=sides)
def test_every_tile_is_read_once(width: int, height: int, side: float) -> None:
    positions = tile_positions(width, height, side)
    assert sorted(reading_order(positions, side).tolist()) == list(range(len(positions)))
