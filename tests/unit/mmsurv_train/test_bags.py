"""Bags: what is drawn, what is refused, and statistics over tiles."""

from __future__ import annotations

import logging

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.errors import StoreError
from mmsurv.store import create_store
from mmsurv.store.testing import RECIPE, make_record
from mmsurv_train.bags import Bags, Draw


def slide(n_tiles, *, first=0, dim=3, dtype=np.float16):
    """Rows that say who they are: row i of a slide is (first + i, …)."""
    return np.repeat(np.arange(first, first + n_tiles)[:, None], dim, axis=1).astype(dtype)


@pytest.fixture
def bags():
    return Bags.from_arrays({"a": slide(10), "b": slide(3, first=100), "c": slide(7, first=200)})


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    for index, tiles in enumerate([60, 7, 33]):
        store.write(make_record(f"s{index + 1}", tiles=tiles, seed=index))
    return store


def rows(bag):
    return bag[:, 0].int().tolist()


def test_a_bag_holds_all_tiles_in_the_stored_dtype(bags):
    assert rows(bags.bag(["a"])) == list(range(10))
    assert bags.bag(["a"]).dtype == torch.float16
    assert (bags.slide_ids, bags.dim, len(bags), bags.n_tiles("b")) == (["a", "b", "c"], 3, 3, 3)
    assert "a" in bags
    assert "d" not in bags


@pytest.mark.parametrize("backend", ["hdf5", "zarr"])
def test_a_store_of_bfloat16_becomes_bags_of_bfloat16(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8, dtype="bfloat16", backend=backend)
    record = make_record()
    store.write(record)
    bags = Bags.from_store(store, ["slide-1"])
    expected = torch.from_numpy(record.features).to(torch.float32).to(torch.bfloat16)
    assert bags.slide("slide-1").dtype == torch.bfloat16
    assert torch.equal(bags.slide("slide-1"), expected)
    mean, sd = bags.statistics(["slide-1"])
    np.testing.assert_allclose(mean, expected.double().mean(0))
    np.testing.assert_allclose(sd, expected.double().std(0, correction=0))


def test_a_row_of_bfloat16_that_is_not_finite_is_named():
    broken = slide(4, dtype=ml_dtypes.bfloat16)
    broken[2, 1] = np.inf
    with pytest.raises(StoreError, match=r"Slide b: the features of row 2 are not finite \(1 of 4 rows\)"):
        Bags.from_arrays({"a": slide(3, dtype=ml_dtypes.bfloat16), "b": broken})


def test_the_bag_of_a_case_has_the_rows_of_its_slides_in_turn(bags):
    assert rows(bags.bag(["a", "b"])) == [*range(10), 100, 101, 102]
    assert rows(bags.bag(["b", "a"])) == [100, 101, 102, *range(10)]


def test_pieces_are_views_not_copies(bags):
    drawn = bags.draw([["a", "c"], ["b"]])
    second, first = drawn.pieces([1, 0])
    assert [piece.data_ptr() for piece in first] == [bags.slide("a").data_ptr(), bags.slide("c").data_ptr()]
    assert [piece.data_ptr() for piece in second] == [bags.slide("b").data_ptr()]
    assert (len(drawn), drawn.lengths, drawn.dim) == (2, [17, 3], 3)


def test_without_a_draw_a_bag_is_the_first_rows(bags):
    assert rows(bags.bag(["a"], size=4)) == [0, 1, 2, 3]


def test_a_draw_is_a_cyclic_window_and_every_row_gets_its_turn(bags):
    seen = set()
    for epoch in range(200):
        window = rows(bags.bag(["a"], size=4, draw=Draw(0, epoch)))
        assert window == [(window[0] + i) % 10 for i in range(4)]
        seen.update(window)
    assert seen == set(range(10))


def test_a_draw_depends_on_seed_epoch_and_slide_alone(bags):
    def drawn(source, seed):
        return [rows(source.bag(["a"], size=1, draw=Draw(seed, epoch))) for epoch in range(20)]

    alone = Bags.from_arrays({"a": slide(10)})
    assert drawn(bags, 0) == drawn(alone, 0)
    assert drawn(bags, 0) != drawn(bags, 1)


def test_a_slide_with_fewer_tiles_than_asked_gives_all_of_them(bags):
    assert rows(bags.bag(["b"], size=32, draw=Draw(0, 1))) == [100, 101, 102]


def test_slides_of_a_case_share_its_bag_evenly(bags):
    bag = rows(bags.bag(["a", "b", "c"], size=8))
    assert len(bag) == 8
    assert {sum(low <= row < low + 100 for row in bag) for low in (0, 100, 200)} == {2, 3}


def test_a_bag_smaller_than_its_slides_takes_turns(bags):
    drawn = [rows(bags.bag(["a", "b", "c"], size=1, draw=Draw(0, epoch))) for epoch in range(6)]
    assert all(len(bag) == 1 for bag in drawn)
    assert {bag[0] // 100 for bag in drawn} == {0, 1, 2}


def test_statistics_are_those_of_all_tiles_of_the_slides():
    rng = np.random.default_rng(0)
    arrays = {name: (rng.normal(900, 2, (n, 4))).astype(np.float16) for name, n in [("a", 50), ("b", 1), ("c", 7)]}
    bags = Bags.from_arrays(arrays)
    mean, sd = bags.statistics(["a", "c"])
    together = np.concatenate([arrays["a"], arrays["c"]]).astype(np.float64)
    np.testing.assert_allclose(mean, together.mean(0), rtol=1e-7)
    np.testing.assert_allclose(sd, together.std(0), rtol=1e-6)
    np.testing.assert_allclose(bags.mean(["a", "c"])[0], together.mean(0), rtol=1e-6)
    assert bags.mean(["a"]).shape == (1, 4)


def test_means_are_those_of_the_tiles_drawn(bags):
    assert bags.draw([["a"], ["b", "c"]]).means()[:, 0].tolist() == [4.5, pytest.approx((303 + 1421) / 10)]
    assert bags.draw([["a"], ["b"]], size=3).means()[:, 0].tolist() == [1, 101]
    assert bags.draw([["a"]], size=3).means().dtype == torch.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_named_by_slide_and_row(bad):
    array = slide(10)
    array[7, 1] = bad
    with pytest.raises(StoreError, match=r"Slide b: the features of row 7 are not finite \(1 of 10 rows\)"):
        Bags.from_arrays({"a": slide(4), "b": array})


def test_large_finite_features_are_not_mistaken_for_inf():
    array = np.full((4, 3), 3e38, np.float32)
    assert len(Bags.from_arrays({"a": array})) == 1


def test_a_slide_without_tiles_is_left_out_and_named(caplog):
    with caplog.at_level(logging.WARNING, logger="mmsurv"):
        bags = Bags.from_arrays({"a": slide(4), "none": slide(0)})
    assert (bags.slide_ids, bags.empty) == (["a"], ("none",))
    assert "1 slides have no tiles and are left out: none" in caplog.text


def test_a_slide_that_was_not_read_is_named(bags):
    with pytest.raises(StoreError, match="Slide d is not among the 3 slides"):
        bags.bag(["d"])


def test_nothing_makes_no_bag(bags):
    with pytest.raises(ValueError, match="at least one slide"):
        bags.bag([])
    with pytest.raises(ValueError, match="at least one slide"):
        bags.statistics([])
    with pytest.raises(ValueError, match="at least one slide"):
        Bags.from_arrays({})


def test_arrays_of_different_widths_are_refused():
    with pytest.raises(ValueError, match=r"b: expected features of shape \(2, 3\), float16, found \(2, 4\)"):
        Bags.from_arrays({"a": slide(2), "b": slide(2, dim=4)})


def test_a_cohorts_slides_are_read_case_by_case(store):
    class Cohort:
        slides = pd.DataFrame({"slide_id": ["s1", "s2", "s3"], "case_id": ["p2", "p1", "p2"]})

    read = []
    bags = Bags.for_cohort(store, Cohort(), on_slide=read.append)
    assert bags.slide_ids == read == ["s2", "s1", "s3"]
