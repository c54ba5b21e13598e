"""Opening a store's slides: what is missing, and which way of reading is chosen."""

from __future__ import annotations

import re

import pytest

from mmsurv.errors import CorruptRecordError, RecordNotFoundError, StoreError
from mmsurv.store import create_store, open_store
from mmsurv.store.testing import RECIPE, make_record
from mmsurv_train.bags import Bags, opening

TILES = {"s1": 60, "s2": 7, "s3": 33}
SIZE = 100 * 8 * 2


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    for index, (name, tiles) in enumerate(TILES.items()):
        store.write(make_record(name, tiles=tiles, seed=index))
    return store


def test_slides_without_a_record_are_counted_and_named(store):
    names = ["s1", *(f"t{i}" for i in range(7))]
    message = f"{store.path} has no record of 7 of 8 slides: t0, t1, t2, t3, t4, …. Encode them, or leave them out"
    with pytest.raises(RecordNotFoundError, match=re.escape(message)):
        Bags.from_store(store, names)


@pytest.mark.parametrize(("memory", "reading"), [(SIZE, "mapped"), (SIZE - 1, "streamed"), (0, "streamed")])
def test_slides_are_mapped_while_they_fit_and_streamed_otherwise(store, memory, reading):
    bags = Bags.from_store(store, TILES, memory=memory)
    assert (bags.reading, bags.nbytes) == (reading, SIZE)


def test_what_is_not_plain_bytes_is_held_in_memory(store, monkeypatch):
    monkeypatch.setattr(store, "read_extent", lambda _path: None)
    assert Bags.from_store(store, TILES, memory=SIZE).reading == "memory"


def test_beyond_as_many_mappings_as_a_process_may_have_slides_are_held_in_memory(store, monkeypatch):
    monkeypatch.setattr(opening, "MOST_MAPPINGS", 2)
    bags = Bags.from_store(store, TILES)
    assert bags.reading == "mapped"
    assert [len(bags.slide(name)) for name in TILES] == list(TILES.values())
    monkeypatch.setattr(opening, "MOST_MAPPINGS", 0)
    assert Bags.from_store(store, TILES).reading == "memory"


def test_a_slide_named_twice_is_opened_once(store):
    opened = []
    bags = Bags.from_store(store, ["s1", "s2", "s1"], on_slide=opened.append)
    assert bags.slide_ids == opened == ["s1", "s2"]


def test_a_record_is_hashed_when_it_is_first_opened(store, tmp_path, monkeypatch):
    path = store.record_path("s2")
    bits = bytearray(path.read_bytes())
    place = bits.index(store.features("s2").tobytes())
    bits[place] ^= 1
    path.write_bytes(bits)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    with pytest.raises(CorruptRecordError, match="s2"):
        Bags.from_store(open_store(store.path), TILES)


def test_features_of_a_store_that_are_not_finite_are_named_by_slide_and_row(store, monkeypatch):
    # A store writes none; other programs do.
    features = store.features("s3").copy()
    features[20, 3] = float("nan")
    path = store.record_path("s3")
    path.write_bytes(path.read_bytes().replace(store.features("s3").tobytes(), features.tobytes()))
    monkeypatch.setattr(store, "_require_intact", lambda _record, _path: None)
    with pytest.raises(StoreError, match=r"Slide s3: the features of row 20 are not finite \(1 of 33 rows\)"):
        Bags.from_store(store, TILES, memory=100)


def test_the_log_says_how_features_are_read(store, caplog):
    with caplog.at_level("INFO", logger="mmsurv"):
        Bags.from_store(store, TILES, memory=1000)
    assert "Features of 3 slides take 1.6 kB of 1 kB: streamed." in caplog.text
