"""Every way of reading bags gives the same bits and obeys the same interface, whatever the store."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from mmsurv.errors import StoreError
from mmsurv.store import create_store
from mmsurv.store.testing import RECIPE, make_record
from mmsurv_train.bags import Bags, Draw

TILES = {"s1": 2100, "s2": 7, "s3": 33, "s4": 1, "s5": 20}
"""The first is large enough for its features to begin at a page, as those of real slides do."""
CHOSEN = [["s1"], ["s2", "s3"], ["s4"], ["s5", "s1"], ["s3"]]
DIM = 8


@pytest.fixture(scope="module", params=["hdf5", "zarr"])
def stores(request, tmp_path_factory):
    """One store of each dtype."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        found = {}
        for dtype in ("float16", "bfloat16", "float32"):
            found[dtype] = create_store(folder / dtype, recipe=RECIPE, dim=DIM, dtype=dtype, backend=request.param)
            for index, (slide_id, tiles) in enumerate(TILES.items()):
                found[dtype].write(make_record(slide_id, tiles=tiles, dim=DIM, seed=index))
        yield found


@pytest.fixture(params=["float16", "bfloat16", "float32"])
def store(request, stores, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return stores[request.param]


@pytest.fixture(params=["mapped", "memory", "streamed", "streamed, not plain"])
def bags(request, store, monkeypatch):
    if request.param in ("memory", "streamed, not plain"):
        monkeypatch.setattr(store, "read_extent", lambda _path: None)
        monkeypatch.setattr(store, "_extents", {})
    largest = 2120 * DIM * store.dtype.itemsize  # of the bags chosen
    bags = Bags.from_store(store, TILES, memory=largest if request.param.startswith("streamed") else None)
    assert bags.reading == request.param.split(",")[0]
    yield bags
    assert "read-ahead" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def expected(store):
    """The features as the store gives them."""
    features = {}
    for slide_id in TILES:
        array = store.features(slide_id)
        bits = array.view(np.uint16 if array.itemsize == 2 else np.uint32)
        features[slide_id] = torch.from_numpy(bits)
    return features


def bits(tensor):
    return tensor.view(torch.uint16 if tensor.element_size() == 2 else torch.uint32)


def in_turn(drawn, order):
    """A copy of each bag's pieces, since they are valid for one turn only."""
    return [[piece.clone() for piece in pieces] for pieces in drawn.pieces(order)]


def window(x_ND, share, start):
    return torch.cat([x_ND, x_ND])[start : start + share] if share < len(x_ND) else x_ND


def test_pieces_are_the_rows_of_each_slide_in_the_order_asked_for(bags, expected):
    drawn = bags.draw(CHOSEN)
    order = [3, 0, 4, 1, 2, 0]
    for index, pieces in zip(order, in_turn(drawn, order), strict=True):
        assert len(pieces) == len(CHOSEN[index])
        for piece, slide_id in zip(pieces, CHOSEN[index], strict=True):
            assert torch.equal(bits(piece), expected[slide_id])
            assert piece.dtype == bags.dtype
            assert piece.is_contiguous()


def test_windows_are_those_that_the_draw_names(bags, expected):
    draw = Draw(3, 5)
    drawn = bags.draw([["s1"], ["s3"], ["s2"]], size=25, draw=draw)
    assert drawn.lengths == [25, 25, 7]
    for slide_id, pieces in zip(("s1", "s3", "s2"), in_turn(drawn, range(3)), strict=True):
        start = draw.start(slide_id, TILES[slide_id])
        assert torch.equal(bits(torch.cat(pieces)), window(expected[slide_id], 25, start))
        assert len(pieces) == (2 if TILES[slide_id] > 25 and start + 25 > TILES[slide_id] else 1)


def test_a_bag_as_a_whole_has_the_rows_of_its_pieces(bags):
    for size, draw in [(0, None), (6, None), (6, Draw(0, 2))]:
        drawn = bags.draw(CHOSEN, size=size, draw=draw)
        for slide_ids, pieces in zip(CHOSEN, in_turn(drawn, range(len(CHOSEN))), strict=True):
            assert torch.equal(bits(bags.bag(slide_ids, size=size, draw=draw)), bits(torch.cat(pieces)))


def test_numbers_are_the_same_bits_as_those_of_arrays(bags, store):
    arrays = Bags.from_arrays({slide_id: store.features(slide_id) for slide_id in TILES})
    for found, wanted in zip(bags.statistics(list(TILES)), arrays.statistics(list(TILES)), strict=True):
        assert np.array_equal(found, wanted)
    for size in (0, 5):
        drawn, same = (each.draw(CHOSEN, size=size, draw=Draw(0, 1)) for each in (bags, arrays))
        assert torch.equal(drawn.means(), same.means())
        assert drawn.lengths == same.lengths
    assert torch.equal(bags.mean(["s2", "s3"]), arrays.mean(["s2", "s3"]))


def test_statistics_are_those_of_all_tiles(bags, store):
    mean, sd = bags.statistics(["s1", "s4", "s5"])
    together = np.concatenate([store.features(name).astype(np.float64) for name in ("s1", "s4", "s5")])
    np.testing.assert_allclose(mean, together.mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sd, together.std(0), rtol=1e-6)


def test_it_says_what_it_holds(bags, store):
    assert (bags.slide_ids, len(bags), bags.dim) == (list(TILES), 5, DIM)
    assert bags.nbytes == sum(TILES.values()) * DIM * store.dtype.itemsize
    assert "s4" in bags
    assert "s6" not in bags
    assert bags.n_tiles("s3") == 33
    assert bags.to(torch.device("cpu")) is bags


def test_a_slide_that_was_not_opened_is_named(bags):
    with pytest.raises(StoreError, match="Slide s6 is not among the 5 slides"):
        bags.draw([["s1"], ["s2", "s6"]])


def test_bags_may_be_left_early_and_drawn_again(bags, expected):
    drawn = bags.draw(CHOSEN)
    for _ in range(3):
        pieces = drawn.pieces(range(5))
        assert torch.equal(bits(next(pieces)[0]), expected["s1"])
        pieces.close()
    assert len(in_turn(drawn, range(5))) == 5
    assert in_turn(drawn, []) == []


def test_several_threads_go_through_bags_at_once(bags, expected):
    drawn = bags.draw(CHOSEN)
    wrong = []

    def read(order):
        for index, pieces in zip(order, drawn.pieces(order, readers=2), strict=True):
            if not all(torch.equal(bits(x), expected[s]) for x, s in zip(pieces, CHOSEN[index], strict=True)):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(order * 20,)) for order in ([0, 1, 4], [3, 2])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
