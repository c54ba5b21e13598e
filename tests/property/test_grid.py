from __future__ import annotations

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
    assert (positions + side <= np.array([width, height]) + 0.5 + 1e-3).all()
    for column in np.unique(positions[:, 1]):
        gaps = np.diff(positions[positions[:, 1] == column, 0])
        assert (np.abs(gaps - side) <= 1).all()


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


@given(width=extents, height=extents, side=sides)
def test_every_tile_is_read_once(width: int, height: int, side: float) -> None:
    positions = tile_positions(width, height, side)
    assert sorted(reading_order(positions, side).tolist()) == list(range(len(positions)))
