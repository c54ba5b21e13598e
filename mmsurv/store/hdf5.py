"""The HDF5 backend: one file per slide, features contiguous and uncompressed.

Owns the layout of one file. Contiguous features can be read at their offset as fast as a flat file, and mapped into
memory. Metadata is written in the format of HDF5 1.10, which checksums it; strings are of fixed length, because those
of variable length lie in a heap without a checksum, where one flipped bit can make the library loop for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsurv.errors import CorruptRecordError, StoreError
from mmsurv.store.base import Extent, FeatureStore
from mmsurv.store.record import OPTIONAL, REQUIRED, Scalar, SlideRecord, from_arrays, to_arrays
from mmsurv.store.sink import Sink


class Hdf5Store(FeatureStore):
    """Records as HDF5 files, laid out as TRIDENT does: ``features``, ``coords`` and attributes on ``coords``."""

    backend = "hdf5"
    suffix = ".h5"

    def write_file(self, path: Path, record: SlideRecord) -> None:
        with Sink(path) as sink, h5py.File(sink, "w", libver=("v110", "v110")) as file:
            _write_attributes(file, record.attributes)
            for name, array in to_arrays(record).items():
                if name == "mask":
                    file.create_dataset(name, data=array, compression="gzip")
                else:
                    _write_contiguous(file, name, array)
            _write_attributes(file["coords"], record.coords_attributes)

    def read_file(self, path: Path) -> SlideRecord:
        with _record(path) as file:
            arrays = {name: file[name][()] for name in (*REQUIRED, *OPTIONAL) if name in file}
            return from_arrays(arrays, _plain(file.attrs), _plain(file["coords"].attrs))

    def read_attributes(self, path: Path) -> dict[str, Scalar]:
        with _record(path) as file:
            return _plain(file.attrs)

    def read_extent(self, path: Path) -> Extent | None:
        with _record(path) as file:
            dataset = file["features"]
            offset = dataset.id.get_offset()
            if offset is None or dataset.chunks is not None:
                return None
            return Extent(path, int(offset), dataset.shape, dataset.dtype)

    def read_shape(self, path: Path) -> tuple[int, int]:
        with _record(path) as file:
            return file["features"].shape

    def read_rows(self, path: Path, rows: slice) -> np.ndarray:
        with _record(path) as file:
            return file["features"][rows]


def _write_contiguous(file: h5py.File, name: str, array: np.ndarray) -> None:
    """A contiguous, uncompressed dataset; by h5py's low-level calls, which cost half of ``create_dataset``."""
    space = h5py.h5s.create_simple(array.shape)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)


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
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        # What h5py raises of broken metadata, or of a group where a dataset should be.
        raise damaged(str(error)) from error


def _record(path: Path) -> AbstractContextManager[h5py.File]:
    def damaged(reason: str) -> StoreError:
        return CorruptRecordError(
            f"{path} is not a readable record: {reason}. Delete it and encode or import the slide again."
        )

    return reading(path, damaged)


def _write_attributes(target: h5py.File | h5py.Dataset, attributes: Mapping[str, Scalar]) -> None:
    for key, value in attributes.items():
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
