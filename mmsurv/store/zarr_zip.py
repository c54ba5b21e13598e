"""The Zarr backend: one stored zip per slide, holding a Zarr 3 group.

Owns the layout of one file. Every array is one uncompressed chunk (the mask is gzipped), so that features can be read
at their offset in the zip, and mapped into memory. The few forms of metadata that occur are written and read here, by
the Zarr 3 specification: zarr itself takes a hundred times as long to open a file, stamps the time into it, and need
not be loaded to train. Any Zarr library opens the files (docs/format.md); `mmsurv store verify` reads each by zarr too.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmsurv.errors import CorruptRecordError, StoreError
from mmsurv.provenance import canonical_json
from mmsurv.store.base import FeatureStore
from mmsurv.store.dtypes import is_bfloat16, numpy_dtype
from mmsurv.store.extent import LARGE, PAGE, Extent
from mmsurv.store.record import MAX_MASK, OPTIONAL, REQUIRED, Scalar, SlideRecord, from_arrays, to_arrays
from mmsurv.store.unfold import unfolded

METADATA = "zarr.json"
DTYPE = "dtype"
"""Attribute that says what the bits of a uint16 array are. Few Zarr libraries know bfloat16; all know uint16."""
ALIGNMENT = 64
"""What is smaller than a page begins at a multiple of so many bytes, as mapped arrays should."""
MAX_METADATA = 1 << 24
"""Most bytes of one table of metadata; a record's have some thousands."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PADDING_ID = 0xD935
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES_OF_ONE = {"name": "bytes"}
_GZIP = {"name": "gzip", "configuration": {"level": 5}}
_DATA_TYPES = ("float16", "float32", "int32", "int64", "uint8")


class ZarrStore(FeatureStore):
    """Records as zip files of a Zarr 3 group; arrays and attributes have the names they have in HDF5."""

    backend = "zarr"
    suffix = ".zarr.zip"

    def write_file(self, path: Path, record: SlideRecord) -> None:
        arrays = to_arrays(record)
        with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as file:
            # The features first: their place in the file depends on nothing before them.
            for name, array in arrays.items():
                compressed = name == "mask"
                if array.size:
                    _add(file, _chunk_key(name, array.ndim), _encode(array, compressed=compressed))
                attributes = dict(record.coords_attributes) if name == "coords" else {}
                if is_bfloat16(array.dtype):
                    attributes[DTYPE] = "bfloat16"
                _add_json(file, f"{name}/{METADATA}", _array_metadata(array, attributes, compressed=compressed))
            _add_json(file, METADATA, {"zarr_format": 3, "node_type": "group", "attributes": dict(record.attributes)})

    def read_file(self, path: Path) -> SlideRecord:
        with _reading(path) as file:
            names = set(file.namelist())
            metadata = {
                name: _metadata(file, f"{name}/{METADATA}")
                for name in (*REQUIRED, *OPTIONAL)
                if f"{name}/{METADATA}" in names
            }
            arrays = {name: _read_array(file, name, found) for name, found in metadata.items()}
            coords_attributes = _attributes(metadata["coords"]) if "coords" in metadata else {}
            return from_arrays(arrays, _attributes(_metadata(file, METADATA)), coords_attributes)

    def read_attributes(self, path: Path) -> dict[str, Scalar]:
        with _reading(path) as file:
            return _attributes(_metadata(file, METADATA))

    def read_extent(self, path: Path) -> Extent:
        with _reading(path) as file:
            metadata = _metadata(file, f"features/{METADATA}")
            shape, dtype = _shape(metadata, 2), _data_type(metadata)
            info = _entry(file, _chunk_key("features", 2), math.prod(shape) * dtype.itemsize)
            return Extent(path, _data_offset(path, info), (shape[0], shape[1]), dtype)

    def read_shape(self, path: Path) -> tuple[int, int]:
        with _reading(path) as file:
            shape = _shape(_metadata(file, f"features/{METADATA}"), 2)
            return shape[0], shape[1]

    def read_rows(self, path: Path, rows: slice) -> np.ndarray:
        with _reading(path) as file:
            return _read_array(file, "features", _metadata(file, f"features/{METADATA}"))[rows]

    def problems_for_others(self, path: Path, record: SlideRecord) -> list[str]:
        """Read by the zarr library, which knows nothing of how the file was written."""
        import zarr
        from zarr.storage import ZipStore

        expected = to_arrays(record)
        try:
            with ZipStore(path, mode="r") as opened:
                group = zarr.open_group(opened, mode="r", use_consolidated=False)
                names = set(group.array_keys())
                # Only what is of the size we found is read: of others, a small file may claim any.
                found = {
                    name: np.asarray(group[name][...])  # type: ignore[index]
                    for name in sorted(names & expected.keys())
                    if group[name].shape == expected[name].shape  # type: ignore[union-attr]
                }
                attributes = dict(group.attrs)
        except (OSError, LookupError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
            return [f"the zarr library cannot read it: {error}"]
        differing = [name for name in sorted(expected.keys() | names) if not _same_bits(expected, found, name)]
        if attributes != dict(record.attributes):
            differing.append("attributes")
        return [f"the zarr library reads other {name} than mmsurv does." for name in differing]


def _array_metadata(array: np.ndarray, attributes: Mapping[str, Scalar], *, compressed: bool) -> dict[str, Any]:
    codecs = [_BYTES if array.dtype.itemsize > 1 else _BYTES_OF_ONE]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": "uint16" if is_bfloat16(array.dtype) else array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, size) for size in array.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if array.dtype.kind in "iu" or is_bfloat16(array.dtype) else 0.0,
        "codecs": [*codecs, _GZIP] if compressed else codecs,
        "attributes": dict(attributes),
        "storage_transformers": [],
    }


def _same_bits(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], name: str) -> bool:
    """Whether both have the array, of the same shape and bytes; bfloat16 is found as its bits."""
    if name not in expected or name not in found or expected[name].shape != found[name].shape:
        return False
    return np.ascontiguousarray(expected[name]).tobytes() == np.ascontiguousarray(found[name]).tobytes()


def _chunk_key(name: str, ndim: int) -> str:
    return f"{name}/c{'/0' * ndim}"


def _encode(array: np.ndarray, *, compressed: bool) -> memoryview | bytes:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if compressed:
        return gzip.compress(little.tobytes(), _GZIP["configuration"]["level"], mtime=0)  # type: ignore[index]
    return little.view(np.uint8).reshape(-1).data


def _add(file: zipfile.ZipFile, name: str, content: memoryview | bytes) -> None:
    """Add an entry whose bytes depend on its content only; its data is aligned."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    large = 20 if len(content) * 1.05 > zipfile.ZIP64_LIMIT else 0  # zipfile then puts a field before ours
    header = file.start_dir + 30 + len(name) + large + 4
    padding = -header % (PAGE if len(content) >= LARGE else ALIGNMENT)
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    file.writestr(info, content)


def _add_json(file: zipfile.ZipFile, name: str, table: Mapping[str, Any]) -> None:
    _add(file, name, canonical_json(table).encode())


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            packed = [info.filename for info in file.infolist() if info.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{packed[0]} is compressed in the zip, expected plain bytes")
            yield file
    except StoreError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, LookupError, ValueError,
        TypeError, AttributeError, OverflowError, MemoryError,
    ) as error:  # fmt: skip
        # What zipfile and json raise of broken bytes, and we of a table that lacks something.
        raise CorruptRecordError(
            f"{path} is not a readable record: {error}. Delete it and encode or import the slide again."
        ) from error


def _metadata(file: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if file.getinfo(name).file_size > MAX_METADATA:
        raise ValueError(f"{name} has {file.getinfo(name).file_size} bytes, expected a table of some thousands")
    table = json.loads(file.read(_entry(file, name)))
    if not isinstance(table, dict):
        raise ValueError(f"{name} is no table")
    return table


def _entry(file: zipfile.ZipFile, name: str, size: int | None = None) -> zipfile.ZipInfo:
    """An entry of plain bytes. Raises ValueError if it is not as large as it has to be, or than the file has room."""
    info = file.getinfo(name)
    end = os.fstat(file.fp.fileno()).st_size  # type: ignore[union-attr]
    if info.file_size != info.compress_size or info.header_offset + info.file_size > end:
        raise ValueError(f"{name} claims {info.file_size} bytes, more than are there")
    if size is not None and info.file_size != size:
        raise ValueError(f"{name} has {info.file_size} bytes, expected {size}")
    return info


def _attributes(metadata: Mapping[str, Any]) -> dict[str, Scalar]:
    found = dict(metadata.get("attributes") or {})
    for key, value in found.items():
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"attribute {key!r} is {type(value).__name__}, expected a string or a number")
    return found


def _shape(metadata: Mapping[str, Any], ndim: int | None = None) -> list[int]:
    shape, grid = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    if ndim is not None and len(shape) != ndim:
        raise ValueError(f"an array has {len(shape)} axes, expected {ndim}")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"an array has shape {shape}")
    if list(grid) != [max(1, size) for size in shape]:
        raise ValueError(f"an array of shape {shape} has chunks of {grid}, expected one")
    return shape


def _data_type(metadata: Mapping[str, Any]) -> np.dtype:
    if metadata["data_type"] == "uint16" and metadata["attributes"].get(DTYPE) == "bfloat16":
        return numpy_dtype("bfloat16")
    if metadata["data_type"] not in _DATA_TYPES:
        raise ValueError(f"an array is {metadata['data_type']}, expected one of {', '.join(_DATA_TYPES)}")
    return np.dtype(metadata["data_type"]).newbyteorder("<")


def _read_array(file: zipfile.ZipFile, name: str, metadata: Mapping[str, Any]) -> np.ndarray:
    shape, dtype = _shape(metadata), _data_type(metadata)
    codecs = [codec["name"] for codec in metadata["codecs"]]
    if codecs not in (["bytes"], ["bytes", "gzip"]):
        raise ValueError(f"{name} is coded by {codecs}, expected bytes, with or without gzip")
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    size, key = math.prod(shape) * dtype.itemsize, _chunk_key(name, len(shape))
    if codecs[-1] == "bytes":
        content = file.read(_entry(file, key, size))
    elif size > MAX_MASK:
        raise ValueError(f"{name} is {shape} and compressed, expected no more than {MAX_MASK} bytes")
    else:
        content = unfolded(file.read(_entry(file, key)), size, 16 + zlib.MAX_WBITS)  # 16: of gzip
    return np.frombuffer(content, dtype).reshape(shape).copy()  # else it could not be written to


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: after a local header, whose length the central directory does not say."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if magic != b"PK\x03\x04":
        raise ValueError("the features have no local header")
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
