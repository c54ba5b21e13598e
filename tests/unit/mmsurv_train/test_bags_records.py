"""Records that change while bags are made of them, and records of another store."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest
import torch

from mmsurv.errors import StoreError
from mmsurv.store import create_store
from mmsurv.store.checked import signature
from mmsurv.store.testing import RECIPE, make_record
from mmsurv_train.bags import Bags, rows
from mmsurv_train.bags.records import open_record


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rows, "LOOK_EVERY", 0.0)


@pytest.fixture(params=["hdf5", "zarr"])
def store(tmp_path, request):
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8, backend=request.param)
    for index, tiles in enumerate([60, 7, 33]):
        store.write(make_record(f"s{index + 1}", tiles=tiles, seed=index))
    return store


WAYS = {"mapped": None, "streamed": 60 * 16}


def opened(store, way):
    bags = Bags.from_store(store, ["s1", "s2", "s3"], memory=WAYS[way])
    assert bags.reading == way
    return bags


def read(bags):
    return [[piece.clone() for piece in pieces] for pieces in bags.draw([["s1"], ["s2"], ["s3"]]).pieces([0, 1, 2])]


def replaced(store, slide_id):
    """Another record takes the file's name, as writers do; the old file lives on as long as anyone has it."""
    path = store.record_path(slide_id)
    path.rename(path.with_name("old"))
    store.write(make_record(slide_id, tiles=9, seed=99))
    path.with_name("old").unlink()


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_was_written_to_is_refused_by_name(store, way):
    bags = opened(store, way)
    with store.record_path("s2").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x00")
    with pytest.raises(StoreError, match=r"Slide s2: .*s2\S+ is not the file it was when it was opened.*start again"):
        read(bags)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_was_cut_short_is_refused_by_name(store, way):
    bags = opened(store, way)
    os.truncate(store.record_path("s3"), 100)
    with pytest.raises(StoreError, match=r"Slide s3: .* is not the file it was when it was opened"):
        read(bags)


@pytest.mark.parametrize("damage", [replaced, lambda store, slide_id: store.record_path(slide_id).unlink()])
def test_a_mapped_file_whose_name_another_took_is_read_as_it_was(store, damage):
    bags = opened(store, "mapped")
    before = read(bags)
    damage(store, "s2")
    assert all(torch.equal(old, new) for (old,), (new,) in zip(before, read(bags), strict=True))


@pytest.mark.parametrize("damage", [replaced, lambda store, slide_id: store.record_path(slide_id).unlink()])
def test_a_streamed_file_whose_name_another_took_is_refused_by_name(store, damage):
    bags = opened(store, "streamed")
    damage(store, "s2")
    with pytest.raises(StoreError, match=r"Slide s2: .* is not the file it was when it was opened"):
        read(bags)


def test_a_record_that_is_not_plain_bytes_is_watched_too(store, monkeypatch):
    monkeypatch.setattr(store, "read_extent", lambda _path: None)
    bags = opened(store, "streamed")
    replaced(store, "s1")
    with pytest.raises(StoreError, match=r"Slide s1: .* is not the file it was when it was opened"):
        read(bags)


def test_a_record_of_another_width_is_refused(store, tmp_path):
    other = create_store(tmp_path / "other", recipe=RECIPE, dim=4, backend=store.backend)
    other.write(make_record("s4", dim=4))
    shutil.copy(other.record_path("s4"), store.record_path("s4"))
    message = r"Slide s4: .* has features of 4 dimensions of float16, the store 8 of float16.*encode the slide again"
    with pytest.raises(StoreError, match=message):
        Bags.from_store(store, ["s1", "s4"])


def test_mapped_features_are_the_bytes_of_the_file(store):
    bags = opened(store, "mapped")
    first = bags.bag(["s1"])[0]
    with store.record_path("s1").open("r+b") as file:  # what nobody may do: it shows whose bytes they are
        file.seek(file.read().index(store.features("s1").tobytes()))
        file.write(np.full(8, 3, np.float16).tobytes())
    assert first.tolist() == [3.0] * 8


def test_features_where_their_type_may_not_lie_in_memory_are_read_instead(store, monkeypatch):
    real = store.read_extent
    shifted = store.path / "shifted"

    def moved(path):
        extent = real(path)
        shifted.write_bytes(b"x" + path.read_bytes())
        return dataclasses.replace(extent, offset=extent.offset + 1)

    monkeypatch.setattr(store, "read_extent", moved)
    record = open_record(store, "s1")
    assert not record.can_be_mapped
    assert torch.equal(
        dataclasses.replace(record, path=shifted, signature=signature(shifted)).whole(),
        torch.from_numpy(np.frombuffer(shifted.read_bytes(), np.uint8)[record.offset :][: 60 * 16].copy())
        .view(torch.float16)
        .view(60, 8),
    )
