from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsurv_extract.reader.window import Window, is_whole, window_of


@pytest.mark.parametrize(
    ("x", "downsample", "side", "expected"),
    [
        (0, 1.0, 224.0, (0, 224, 0.0)),
        (7, 1.0, 224.449, (7, 225, 0.0)),
        (896, 4.0, 224.0, (224, 224, 0.0)),
        (9, 4.0, 224.0, (2, 225, 0.25)),
        # 224.00000000000003 pixels are 224, and so is a corner at 223.99999999999997.
        (3, 3 / 224, 224.00000000000003, (224, 224, 0.0)),
    ],
)
def test_a_window_holds_the_tile_in_whole_pixels(
    x: int, downsample: float, side: float, expected: tuple[int, int, float]
) -> None:
    window = window_of(x, 0, downsample=downsample, side=side)
    assert (window.x, window.width, window.left) == expected


@given(st.integers(0, 200_000), st.integers(0, 200_000), st.floats(1, 64, allow_nan=False), st.floats(16, 1000))
def test_a_window_begins_and_ends_where_the_tile_does(x: int, y: int, downsample: float, side: float) -> None:
    window = window_of(x, y, downsample=downsample, side=side)
    assert isinstance(window, Window)
    for position, first, extent, rest in (
        (x / downsample, window.x, window.width, window.left),
        (y / downsample, window.y, window.height, window.top),
    ):
        assert first + rest == pytest.approx(position, abs=2e-6)
        assert 0 <= rest < 1
        assert rest + side - 2e-6 <= extent < rest + side + 1


@pytest.mark.parametrize(("downsample", "whole"), [(1.0, True), (4.0, True), (4.0003, False), (3.9999, False)])
def test_a_whole_downsample_is_exactly_whole(downsample: float, whole: bool) -> None:
    assert is_whole(downsample) is whole
