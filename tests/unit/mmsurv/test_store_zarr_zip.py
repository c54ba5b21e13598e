"""A record's zip as others see it: plain Zarr 3, stored, the same bytes whenever it is written."""

import dataclasses
import gzip
import json
import re
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from mmsurv.errors import CorruptRecordError, StoreError
from mmsurv.store import FeatureStore, create_store
from mmsurv.store.record import to_arrays
from mmsurv.store.testing import RECIPE, make_record
from mmsurv.store.zarr_zip import ALIGNMENT


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = create_store(tmp_path / "store", recipe=RECIPE, dim=8, backend="zarr")
    opened.write(make_record())
    return opened


def test_plain_zarr_reads_every_array_and_attribute(store: FeatureStore) -> None:
    record = store.read("slide-1")
    with ZipStore(store.record_path("slide-1"), mode="r") as opened:
        group = zarr.open_group(opened, mode="r")
        assert dict(group.attrs) == record.attributes
        assert dict(group["coords"].attrs) == record.coords_attributes
        arrays = to_arrays(record)
        assert set(group.array_keys()) == set(arrays)
        for name, array in arrays.items():
            found = group[name]
            assert found.dtype == array.dtype, name
            np.testing.assert_array_equal(found[:], array, err_msg=name)


def test_plain_zarr_reads_bfloat16_as_its_bits_and_says_so(store: FeatureStore, tmp_path: Path) -> None:
    typed = create_store(tmp_path / "bfloat16", recipe=RECIPE, dim=8, dtype="bfloat16", backend="zarr")
    typed.write(make_record())
    with ZipStore(typed.record_path("slide-1"), mode="r") as opened:
        features = zarr.open_group(opened, mode="r")["features"]
        assert features.attrs["dtype"] == "bfloat16"
        values = (features[:].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(values, make_record().features.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_verify_notices_what_zarr_reads_otherwise(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.verify("slide-1") == []
    real = zarr.open_group

    def other(*arguments: object, **options: object) -> object:
        group = real(*arguments, **options)  # type: ignore[arg-type]
        arrays = {name: group[name] for name in group.array_keys()}
        arrays["coords"] = arrays["coords"][:] + 1
        return _Group(arrays)

    monkeypatch.setattr(zarr, "open_group", other)
    assert store.verify("slide-1") == [
        "the zarr library reads other coords than mmsurv does.",
        "the zarr library reads other attributes than mmsurv does.",
    ]


class _Group(dict[str, object]):
    """A Zarr group that is not what the file holds."""

    attrs = {"mpp": 9}  # noqa: RUF012 - read only

    def array_keys(self) -> list[str]:
        return list(self)


def test_the_zip_is_stored_and_its_features_are_aligned(store: FeatureStore) -> None:
    with zipfile.ZipFile(store.record_path("slide-1")) as file:
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert file.testzip() is None
    extent = store.extent("slide-1")
    assert extent is not None
    assert extent.offset % ALIGNMENT == 0


def test_what_was_read_may_be_written_to(store: FeatureStore) -> None:
    record = store.read("slide-1")
    assert record.features.any()
    record.features[:] = 0
    record.coords[:] = 0
    assert not record.features.any()
    assert not record.coords.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8]}}}, "chunks of .*expected one"),
        ({"codecs": [{"name": "bytes"}, {"name": "blosc"}]}, "coded by .*blosc"),
        ({"data_type": "float64"}, "is float64, expected one of"),
        ({"shape": [60, -8]}, "has shape"),
        ({"shape": "long"}, "has shape"),
        (
            {"shape": [60, 9], "chunk_grid": {"configuration": {"chunk_shape": [60, 9]}}},
            "features/c/0/0 has 960 bytes, expected 1080",
        ),
        ([], "is no table"),
    ],
)
def test_a_record_laid_out_otherwise_is_named(store: FeatureStore, change, message: str) -> None:
    path = store.record_path("slide-1")
    table = json.loads(entries(path)["features/zarr.json"])
    rewrite(path, {"features/zarr.json": json.dumps(table | change if change else change).encode()})
    with pytest.raises(CorruptRecordError, match=rf"slide-1\.zarr\.zip is not a readable record: .*{message}"):
        store.read("slide-1")


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def rewrite(path: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    content = entries(path) | change
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, value in content.items():
            file.writestr(name, value)


def table_of(shape: list[int], data_type: str = "uint8", codecs: tuple[str, ...] = ("bytes", "gzip")) -> bytes:
    configurations = {"bytes": {"endian": "little"}, "gzip": {"level": 5}}
    return json.dumps(
        {
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": data_type, "attributes": {},
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}, "fill_value": 0,
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": name, "configuration": configurations[name]} for name in codecs],
        }
    ).encode()  # fmt: skip


ZEROS = gzip.compress(bytes(1 << 28))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask/c/0/0": ZEROS}, "what should unfold to 600 bytes does not"),
        ({"mask/c/0/0": gzip.compress(bytes(600)) + ZEROS}, "what should unfold to 600 bytes does not"),
        (
            {"mask/zarr.json": table_of([1 << 14, 1 << 14]), "mask/c/0/0": ZEROS},
            "mask is .*no more than 67108864 bytes",
        ),
        ({"features/zarr.json": table_of([10**9, 8], "float16", ("bytes",))}, "960 bytes, expected 16000000000"),
        ({"coords/zarr.json": b" " * (1 << 24) + b"{}"}, "coords/zarr.json has 16777218 bytes"),
        ({"zarr.json": b"[" * 10**6}, "recursion"),
    ],
)
def test_a_record_that_claims_more_than_it_holds_takes_no_memory(store: FeatureStore, change, message: str) -> None:
    path = store.record_path("slide-1")
    rewrite(path, change)
    tracemalloc.start()
    try:
        (problem,) = store.verify("slide-1")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert re.search(rf"slide-1\.zarr\.zip is not a readable record: .*{message}", problem)
    assert peak < 20e6


def test_an_entry_that_is_compressed_in_the_zip_is_refused(store: FeatureStore) -> None:
    rewrite(store.record_path("slide-1"), {}, zipfile.ZIP_DEFLATED)
    for read in (store.read, store.attributes, store.n_tiles):
        with pytest.raises(CorruptRecordError, match=r"features/c/0/0 is compressed in the zip, expected plain bytes"):
            read("slide-1")


def test_an_array_that_no_record_has_is_named_and_not_read(store: FeatureStore) -> None:
    """zarr would make its fill values, a terabyte of them."""
    rewrite(store.record_path("slide-1"), {"more/zarr.json": table_of([10**6, 10**9])})
    assert store.verify("slide-1") == ["the zarr library reads other more than mmsurv does."]


def test_a_mask_that_could_not_be_read_again_is_not_written(store: FeatureStore) -> None:
    mask = np.broadcast_to(np.uint8(0), (1 << 14, 1 << 13))
    with pytest.raises(StoreError, match=r"big: a mask of \(16384, 8192\) pixels, at most 67108864 are kept"):
        store.write(dataclasses.replace(make_record("big"), mask=mask))
