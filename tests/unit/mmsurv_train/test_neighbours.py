"""Which tiles lie next to one another, and that it is worked out once."""

from __future__ import annotations

import numpy as np
import pytest

from mmsurv.errors import StoreError
from mmsurv.store import open_store
from mmsurv_train.bags import Bags
from mmsurv_train.bags import neighbours as module
from mmsurv_train.bags.neighbours import Neighbours, nearest, warn_of_samples

GRID = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 448


def test_in_a_grid_they_are_the_eight_around():
    middle = nearest(GRID, 8)[12]
    assert sorted(middle.tolist()) == [6, 7, 8, 11, 13, 16, 17, 18]
    assert sorted(middle[:4].tolist()) == [7, 11, 13, 17]  # nearest first, ties in the order of the rows
    assert middle[:4].tolist() == sorted(middle[:4].tolist())


@pytest.mark.parametrize("k", [8, 20, 70, 90])
def test_of_equally_far_ones_the_first_rows_are_taken(k):
    """Twelve tiles of a grid lie 5 away, sixteen √65: as many as are wanted by the order of the rows."""
    points = np.random.default_rng(0).permutation([(x, y) for x in range(25) for y in range(25)])
    middle = int(np.flatnonzero((points == 12).all(axis=1))[0])
    far = ((points - points[middle]) ** 2).sum(1).astype(float)
    far[middle] = np.inf
    assert nearest(points, k)[middle].tolist() == np.argsort(far, kind="stable")[:k].tolist()


def test_no_tile_is_its_own_neighbour_unless_it_is_alone():
    found = nearest(GRID, 8)
    assert not (found == np.arange(25)[:, None]).any()
    assert nearest(GRID[:1], 3).tolist() == [[0, 0, 0]]


def test_few_tiles_are_repeated():
    assert nearest(GRID[:3], 4).tolist() == [[1, 2, 1, 2], [0, 2, 0, 2], [1, 0, 1, 0]]


def test_tiles_of_one_place_are_neighbours():
    assert nearest(np.zeros((4, 2)), 2).shape == (4, 2)


def test_no_neighbour_is_on_another_slide():
    features = {name: np.zeros((25, 2), np.float16) for name in ("one", "other")}
    bags = Bags.from_arrays(features, coords={"one": GRID, "other": GRID})
    found = bags.draw([["one", "other"]]).neighbours(0, 8).numpy()
    assert found[:25].max() < 25 <= found[25:].min()
    np.testing.assert_array_equal(found[25:] - 25, found[:25])


def test_parts_of_a_slide_have_none_and_places_must_be_known():
    features = {"one": np.zeros((25, 2), np.float16)}
    with pytest.raises(ValueError, match="draw whole bags"):
        Bags.from_arrays(features, coords={"one": GRID}).draw([["one"]], size=5).neighbours(0, 8)
    with pytest.raises(ValueError, match="not known where the tiles"):
        Bags.from_arrays(features).draw([["one"]]).neighbours(0, 8)


def test_they_are_worked_out_once_and_a_damaged_cache_is_not_believed(study, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store, calls = open_store(study / "store"), []
    monkeypatch.setattr(module, "nearest", lambda coords, k: calls.append(k) or nearest(coords, k))
    first = Neighbours.of_store(store).of("slide-03", 2, n_tiles=6)
    np.testing.assert_array_equal(Neighbours.of_store(store).of("slide-03", 2, n_tiles=6), first)
    assert calls == [2]
    (kept,) = (tmp_path / "mmsurv" / "neighbours").iterdir()
    kept.write_bytes(kept.read_bytes()[:-8])
    np.testing.assert_array_equal(Neighbours.of_store(store).of("slide-03", 2, n_tiles=6), first)
    assert calls == [2, 2]


def test_another_number_of_tiles_than_coordinates_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StoreError, match="6 coordinates for 7 tiles"):
        Neighbours.of_store(open_store(study / "store")).of("slide-03", 2, n_tiles=7)


def test_records_that_hold_a_sample_are_counted(caplog):
    class Store:
        def attributes(self, slide_id):
            return {"n_tissue_tiles": 9 if slide_id == "sample" else 5}

        def n_tiles(self, slide_id):
            return 5

    warn_of_samples(Store(), ["whole", "sample"])
    assert "1 of 2 slides hold a sample of their tissue tiles (sample)" in caplog.text
    assert "mmsurv extract --tiles all" in caplog.text
    caplog.clear()
    warn_of_samples(Store(), ["whole"])
    assert not caplog.text
