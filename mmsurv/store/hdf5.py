"""The HDF5 backend: one file per slide, features contiguous and uncompressed.

Owns the layout of one file. Contiguous features can be read at their offset as fast as a flat file, and mapped into
memory. bfloat16, which HDF5 has no name for, is described to it bit by bit, so that every HDF5 library reads it as
float32. Metadata is written in the format of HDF5 1.10, which checksums it; strings are of fixed length, because those
of variable length lie in a heap without a checksum, where one flipped bit can make the library loop for ever.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsurv.errors import CorruptRecordError, StoreError
from mmsurv.store.base import FeatureStore
from mmsurv.store.dtypes import is_bfloat16, numpy_dtype
from mmsurv.store.extent import LARGE, PAGE, Extent
from mmsurv.store.hdf5_datasets import own_dataset, read_gzipped, require_filled
from mmsurv.store.record import MAX_MASK, OPTIONAL, REQUIRED, Scalar, SlideRecord, from_arrays, to_arrays
from mmsurv.store.sink import Sink


class Hdf5Store(FeatureStore):
    """Records as HDF5 files, laid out as TRIDENT does: ``features``, ``coords`` and attributes on ``coords``."""

    backend = "hdf5"
    suffix = ".h5"

    def write_file(self, path: Path, record: SlideRecord) -> None:
        aligned = {"alignment_threshold": LARGE, "alignment_interval": PAGE}
        with Sink(path) as sink, h5py.File(sink, "w", libver=("v110", "v110"), **aligned) as file:
            _write_attributes(file, record.attributes)
            for name, array in to_arrays(record).items():
                if name == "mask":
                    file.create_dataset(name, data=array, compression="gzip")
                    continue
                dataset = _write_contiguous(file, name, array)
                if name == "coords":
                    _write_attributes(dataset, record.coords_attributes)

    def read_file(self, path: Path) -> SlideRecord:
        with _record(path) as file:
            there = set(file)
            arrays = {name: _read(own_dataset(file, name)) for name in (*REQUIRED, *OPTIONAL) if name in there}
            return from_arrays(arrays, _plain(file.attrs), _plain(own_dataset(file, "coords").attrs))

    def read_attributes(self, path: Path) -> dict[str, Scalar]:
        with _record(path) as file:
            return _plain(file.attrs)

    def read_extent(self, path: Path) -> Extent | None:
        with _record(path) as file:
            dataset = own_dataset(file, "features")
            offset = dataset.id.get_offset()
            if offset is None or dataset.chunks is not None:
                return None
            require_filled(dataset, _dtype(dataset).itemsize)
            return Extent(path, int(offset), dataset.shape, _dtype(dataset))

    def read_shape(self, path: Path) -> tuple[int, int]:
        with _record(path) as file:
            return own_dataset(file, "features").shape

    def read_rows(self, path: Path, rows: slice) -> np.ndarray:
        with _record(path) as file:
            return _read(own_dataset(file, "features"), rows)


def _write_contiguous(file: h5py.File, name: str, array: np.ndarray) -> h5py.Dataset:
    """A contiguous, uncompressed dataset; by h5py's low-level calls, which cost half of ``create_dataset``."""
    space = h5py.h5s.create_simple(array.shape)
    if is_bfloat16(array.dtype):
        kind, array = _bfloat16(), array.view("<u2")
    else:
        kind = h5py.h5t.py_create(array.dtype, logical=True)
    timeless = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    timeless.set_obj_track_times(False)  # the same record is the same bytes, whenever it is written
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, timeless)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array, mtype=kind)
    return h5py.Dataset(dataset)


def _bfloat16() -> h5py.h5t.TypeFloatID:
    """A float of 16 bits: sign in bit 15, 8 bits of exponent (bias 127) from bit 7, 7 bits of mantissa from bit 0."""
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    return kind


def _dtype(dataset: h5py.Dataset) -> np.dtype:
    """The type of a dataset as it is stored; h5py takes bfloat16 for float32."""
    return numpy_dtype("bfloat16") if dataset.id.get_type() == _bfloat16() else dataset.dtype


def _read(dataset: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
    """Values of a dataset that is as large as it says. Raises ValueError if it is not."""
    dtype = _dtype(dataset)
    if dataset.compression is not None:
        return read_gzipped(dataset, MAX_MASK)[rows]
    if dataset.id.get_create_plist().get_nfilters():
        raise ValueError(f"{dataset.name.lstrip('/')} is filtered, expected plain values")
    require_filled(dataset, dtype.itemsize)
    if not is_bfloat16(dtype):
        return dataset[rows] if dataset.shape else dataset[()]
    bits = np.empty(dataset.shape, "<u2")
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=_bfloat16())
    return bits.view(dtype)[rows]


@contextmanager
def reading(path: Path, damaged: Callable[[str], StoreError]) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever HDF5 says of it becomes the error that ``damaged`` makes of a reason.

    Without file locks: records never change once published, and locks fail on some network file systems.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except StoreError:
        raise
    except (
        OSError,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
        zlib.error,
    ) as error:
        # What h5py raises of broken metadata, or of a group where a dataset should be; a KeyError's text is quoted.
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise damaged(str(reason)) from error


def _record(path: Path) -> AbstractContextManager[h5py.File]:
    def damaged(reason: str) -> StoreError:
        return CorruptRecordError(
            f"{path} is not a readable record: {reason}. Delete it and encode or import the slide again."
        )

    return reading(path, damaged)


def _write_attributes(target: h5py.File | h5py.Dataset, attributes: Mapping[str, Scalar]) -> None:
    for key, value in sorted(attributes.items()):  # so that the bytes do not depend on who collected them
        if isinstance(value, str):
            text = value.encode()
            target.attrs.create(key, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        else:
            target.attrs[key] = value


def _plain(attributes: Mapping[str, Any]) -> dict[str, Scalar]:
    """HDF5 attributes as plain Python scalars; ValueError for anything else."""
    found: dict[str, Scalar] = {}
    for key, value in attributes.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, bytes):
            plain = plain.decode("utf-8")
        if not isinstance(plain, str | int | float | bool):
            raise ValueError(f"attribute {key!r} is {type(plain).__name__}, expected a string or a number")
        found[key] = plain
    return found
