"""Moments from one read, and what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsurv.errors import StoreError
from mmsurv_train.bags import moments
from mmsurv_train.bags.moments import merged, moments_of


def of(array, rows=64):
    return moments_of(torch.from_numpy(array).split(rows), "slide", len(array))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_mean_far_from_zero_costs_no_digits_of_the_deviation(dtype):
    array = np.random.default_rng(0).normal(900, 2, (1000, 5)).astype(dtype)
    found = of(array)
    np.testing.assert_allclose(found.mean, array.astype(np.float64).mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.sd, array.astype(np.float64).std(0), rtol=1e-6)
    assert (found.n, found.mean.dtype) == (1000, np.float64)


def test_blocks_that_differ_are_merged_exactly():
    array = np.repeat(np.array([[0.0], [900.0], [-900.0]], np.float32), 64, axis=0)
    assert of(array).mean == pytest.approx(0, abs=1e-12)
    assert of(array).sd == pytest.approx(np.sqrt(2 / 3) * 900)


def test_slides_are_merged_as_if_they_were_one():
    array = np.random.default_rng(0).normal(3, 1, (500, 4)).astype(np.float32)
    parts = merged([of(array[:1]), of(array[1:300]), of(array[300:])])
    np.testing.assert_allclose(parts.mean, array.astype(np.float64).mean(0), rtol=1e-7)
    np.testing.assert_allclose(parts.sd, array.astype(np.float64).std(0), rtol=1e-6)


def test_a_feature_that_never_changes_has_no_deviation():
    array = np.full((500, 3), 0.1, np.float32)
    kept = of(array).kept()
    assert merged([kept, kept]).sd.tolist() == [0, 0, 0]
    assert merged([kept, kept]).mean.tolist() == [float(np.float32(0.1))] * 3


def test_squares_too_large_for_float32_are_taken_in_float64():
    array = np.array([[3e38], [-3e38]], np.float32)
    assert of(array).mean == pytest.approx(0)
    assert of(array).kept().sd == pytest.approx(3e38)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 70, 199])
def test_a_row_that_is_not_finite_is_named(bad, row):
    array = np.ones((200, 3), np.float16)
    array[[row, 150], 2] = bad
    rows = len({row, 150})
    with pytest.raises(StoreError, match=rf"Slide slide: .* row {min(row, 150)} are not finite \({rows} of 200 rows\)"):
        of(array)


def test_each_row_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(moments, "_of_block", lambda x: read.append(len(x)) or moments._summed(x, torch.float32))
    of(np.ones((200, 3), np.float32))
    assert read == [64, 64, 64, 8]


def test_nothing_has_no_moments():
    with pytest.raises(ValueError, match="statistics need at least one slide"):
        merged([])


def test_moments_have_the_same_bits_with_any_number_of_threads_which_stays_as_it_was():
    array = np.random.default_rng(0).normal(3, 1, (300, 1000)).astype(np.float16)
    before = torch.get_num_threads()
    try:
        found = []
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(of(array, rows=256))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(found[0].mean, other.mean)
        assert np.array_equal(found[0].sd, other.sd)
