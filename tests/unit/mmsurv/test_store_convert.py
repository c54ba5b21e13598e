"""A store copied into another format is the same store."""

import dataclasses
import errno
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsurv.errors import ConfigError, RecipeMismatchError, StoreError
from mmsurv.store import FeatureStore, create_store, open_store
from mmsurv.store.convert import convert
from mmsurv.store.dtypes import DTYPES
from mmsurv.store.record import to_arrays
from mmsurv.store.testing import RECIPE, make_record
from mmsurv.store.zarr_zip import ZarrStore


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def filled(path: Path, *, dtype: str = "float16", backend: str = "hdf5") -> FeatureStore:
    """Records with everything a record may have, and with nothing it may lack."""
    store = create_store(path, recipe=RECIPE, dim=8, dtype=dtype, backend=backend)
    whole = make_record("whole")
    odd = {"ü": "日本 ", "empty": "", "yes": True, "count": 2**62, "tiny": 5e-324, "third": 1 / 3, "round": 2.0}
    store.write(dataclasses.replace(whole, attributes={**whole.attributes, **odd}, source_row=np.arange(60)[::-1]))
    bare = make_record("bare", tiles=1)
    nothing = dict.fromkeys(("thumbnail", "mask", "rejected", "rejected_reason"))
    store.write(
        dataclasses.replace(
            bare, attributes={"sample_seed": 0}, coords_attributes={}, tissue=np.array([np.nan]), **nothing
        )
    )
    none = np.zeros((0, 2), np.int32)
    store.write(
        dataclasses.replace(
            make_record("none rejected", tiles=5),
            rejected=none,
            rejected_reason=none[:, 0],
            attributes={"sample_seed": 0},
        )
    )
    store.write_failure("torn", ValueError("half a file"), source="torn.svs")
    return store


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["hdf5", "zarr"])
def test_there_and_back_every_byte_is_the_same(tmp_path: Path, backend: str, dtype: str) -> None:
    store = filled(tmp_path / "store", dtype=dtype, backend=backend)
    other = {"hdf5": "zarr", "zarr": "hdf5"}[backend]
    there = convert(store, tmp_path / "there", backend=other)
    back = convert(there.store, tmp_path / "back", backend=backend)
    assert there.copied == back.copied == store.slide_ids()
    assert there.problems == back.problems == {}
    for slide_id in store.slide_ids():
        left, right = store.read(slide_id), there.store.read(slide_id)
        assert left.attributes == right.attributes
        assert {key: type(value) for key, value in left.attributes.items()} == {
            key: type(value) for key, value in right.attributes.items()
        }
        assert left.coords_attributes == right.coords_attributes
        arrays = to_arrays(right)
        assert list(arrays) == list(to_arrays(left))
        for name, array in to_arrays(left).items():
            assert (array.dtype, array.shape, array.tobytes()) == (
                arrays[name].dtype, arrays[name].shape, arrays[name].tobytes(),
            )  # fmt: skip
        assert there.store.verify(slide_id) == store.verify(slide_id) == []
        assert back.store.record_path(slide_id).read_bytes() == store.record_path(slide_id).read_bytes()
    assert back.store.failures() == there.store.failures() == store.failures()
    assert (back.store.path / "store.json").read_bytes() == (store.path / "store.json").read_bytes()


def test_an_interrupted_copy_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "store")
    writing = ZarrStore.write_file

    def full(self: ZarrStore, path: Path, record: object) -> None:
        if "whole" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writing(self, path, record)  # type: ignore[arg-type]

    monkeypatch.setattr(ZarrStore, "write_file", full)
    with pytest.raises(StoreError, match=r"cannot be written: No space left on device.*it goes on from here"):
        convert(store, tmp_path / "copy", backend="zarr")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = convert(store, tmp_path / "copy", backend="zarr")
    assert (done.copied, done.kept) == (["whole"], ["bare", "none rejected"])
    assert [failure.slide_id for failure in done.store.failures()] == ["torn"]


def test_a_copy_follows_a_record_that_was_extended(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    store.write(make_record(tiles=20))
    convert(store, tmp_path / "copy", backend="zarr")
    store.write(make_record(tiles=60), extend=True)
    assert convert(store, tmp_path / "copy", backend="zarr").copied == ["slide-1"]
    assert open_store(tmp_path / "copy").n_tiles("slide-1") == 60


def test_damaged_and_other_records_are_named_and_the_rest_is_copied(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    path = store.record_path("whole")
    path.write_bytes(path.read_bytes()[:-100])
    copy = create_store(tmp_path / "copy", recipe=RECIPE, dim=8, backend="zarr")
    copy.write(make_record("bare", tiles=1, seed=5))
    done = convert(store, tmp_path / "copy", backend="zarr")
    assert done.copied == ["none rejected"]
    assert set(done.problems) == {"bare", "whole"}
    assert "is another record than" in done.problems["bare"]
    assert "CorruptRecordError" in done.problems["whole"]


def test_a_record_without_its_digest_is_named_and_the_rest_is_copied(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    with h5py.File(store.record_path("whole"), "r+") as file:
        del file.attrs["record_sha256"]
    done = convert(store, tmp_path / "copy", backend="zarr")
    assert done.copied == ["bare", "none rejected"]
    assert re.search(r"CorruptRecordError: .*whole\.h5 has no record_sha256.*Delete it", done.problems["whole"])


def test_a_store_of_another_recipe_or_the_store_itself_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    create_store(tmp_path / "other", recipe={"encoder": {"name": "uni"}}, dim=8, backend="zarr")
    with pytest.raises(RecipeMismatchError, match=r"encoder\.name +uni → resnet50"):
        convert(store, tmp_path / "other", backend="zarr")
    create_store(tmp_path / "hdf5", recipe=RECIPE, dim=8)
    with pytest.raises(RecipeMismatchError, match=r"store\.backend +hdf5 → zarr"):
        convert(store, tmp_path / "hdf5", backend="zarr")
    with pytest.raises(ConfigError, match="is the store itself"):
        convert(store, tmp_path / "store", backend="zarr")
