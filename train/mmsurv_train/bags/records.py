"""Records of a store while bags are made of them: opened once, then mapped or read in part.

Owns that the bytes used later are those that were checked at opening: a file that has become another one since is
refused by name. No file stays open; a mapping outlives its descriptor.

Shape suffixes: N tiles, D feature dim.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmsurv.errors import StoreError
from mmsurv.store.base import ATTEMPTS
from mmsurv.store.checked import Signature, signature
from mmsurv.store.place import restless

if TYPE_CHECKING:
    from mmsurv.store import FeatureStore


@dataclass(frozen=True, eq=False)
class Record:
    """A slide's record as it was when it was opened."""

    store: FeatureStore
    slide_id: str
    path: Path
    signature: Signature
    offset: int | None
    """Where the features begin in the file; None where they do not lie there as plain bytes."""
    n_tiles: int

    @cached_property
    def row_bytes(self) -> int:
        return self.store.dim * self.store.dtype.itemsize

    @cached_property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.store.dtype)

    @property
    def nbytes(self) -> int:
        return self.n_tiles * self.row_bytes

    def blocks(self, rows: int) -> Iterator[Tensor]:
        """All features, so many rows at a time; each block takes the memory of the one before."""
        if self.offset is None:
            yield from self.whole().split(rows)
            return
        buffer_ND = torch.empty((min(rows, self.n_tiles), self.store.dim), dtype=self.dtype)
        for start in range(0, self.n_tiles, rows):
            block = buffer_ND[: min(rows, self.n_tiles - start)]
            self.read_into(block, start)
            yield block

    def whole(self) -> Tensor:
        """All features in memory of their own, (N, D)."""
        rows_ND = torch.empty((self.n_tiles, self.store.dim), dtype=self.dtype)
        self.read_into(rows_ND, 0)
        return rows_ND

    def read_into(self, target_ND: Tensor, start: int) -> None:
        """Read rows from ``start`` on into contiguous memory of the store's dtype.

        Raises:
            StoreError: the file is not the one that was opened.
        """
        if self.offset is None:
            self._require_same(_seen(self.path))
            array = self.store.features(self.slide_id, slice(start, start + len(target_ND)))
            target_ND.copy_(as_tensor(array))
            self._require_same(_seen(self.path))
            return
        with self._opened() as descriptor:
            self._fill(target_ND, descriptor, self.offset + start * self.row_bytes)
            self._require_same(signature(descriptor))  # nor may it have been written to meanwhile

    def _fill(self, target_ND: Tensor, descriptor: int, offset: int) -> None:
        left = target_ND.view(torch.uint8).numpy().reshape(-1).data
        while left:
            count = os.preadv(descriptor, [left], offset)
            if not count:
                raise self._changed()
            left, offset = left[count:], offset + count

    @property
    def can_be_mapped(self) -> bool:
        """Whether the features lie in the file as plain bytes, and where values of their type may lie in memory.

        In small HDF5 files float32 may begin at an odd half.
        """
        return self.offset is not None and self.offset % self.store.dtype.itemsize == 0

    def mapped(self) -> Tensor:
        """All features as the file's own pages, (N, D), for reading; the system may drop and read them again.

        The mapping is of the file that was opened, even when another takes its name, and keeps no descriptor (Python's
        own mappings do, and only some thousand files may be open). It is private: whatever is written stays here.

        Raises:
            StoreError: the file is not the one that was opened.
        """
        assert self.offset is not None
        stop = self.offset + self.nbytes
        with self._opened() as descriptor:
            whole = torch.from_file(f"/dev/fd/{descriptor}", shared=False, size=stop, dtype=torch.uint8)
        return whole[self.offset : stop].view(self.dtype).view(self.n_tiles, self.store.dim)

    def require_unchanged(self) -> None:
        """Refuse a mapped file that was written to or cut short; one that another has replaced lives on unchanged.

        Raises:
            StoreError: names the slide and the file.
        """
        found = _seen(self.path)
        if found is not None and _inode(found) == _inode(self.signature):
            self._require_same(found)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the file that was opened."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._changed() from None
        try:
            self._require_same(signature(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    def _require_same(self, found: Signature | None) -> None:
        if found != self.signature:
            raise self._changed()

    def _changed(self) -> StoreError:
        return StoreError(
            f"Slide {self.slide_id}: {self.path} is not the file it was when it was opened. Find out what writes to "
            "the store, and start again."
        )


def open_record(store: FeatureStore, slide_id: str) -> Record:
    """Look a record up and, the first time this user meets it, have the store hash it.

    Raises:
        RecordNotFoundError, CorruptRecordError, RecipeMismatchError: as ``FeatureStore.read``.
        StoreError: features of another width or dtype than the store's.
    """
    path = store.record_path(slide_id)
    for _ in range(ATTEMPTS):
        before = _seen(path)
        extent = store.extent(slide_id)
        shape = extent.shape if extent else store.read_shape(path)
        if before is None or _seen(path) != before:
            continue
        if shape[1] != store.dim or (extent and extent.dtype != store.dtype):
            found = f"{shape[1]} dimensions" + (f" of {extent.dtype.name}" if extent else "")
            raise StoreError(
                f"Slide {slide_id}: {path} has features of {found}, the store {store.dim} of {store.dtype.name}. "
                "It is another store's: delete it and encode the slide again."
            )
        return Record(store, slide_id, path, before, extent.offset if extent else None, shape[0])
    raise restless(path)


def some(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    return as_tensor(np.empty(0, dtype)).dtype


def as_tensor(array: np.ndarray) -> Tensor:
    """The same memory as a tensor; torch has bfloat16 and takes it from NumPy as bits only."""
    if array.dtype.name == "bfloat16":
        return as_tensor(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _seen(path: Path) -> Signature | None:
    try:
        return signature(path)
    except FileNotFoundError:
        return None


def _inode(found: Signature) -> int:
    return found[2]
