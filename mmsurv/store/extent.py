"""Where a record's features lie in its file, and how some of their rows are read from there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsurv.errors import CorruptRecordError

LARGE, PAGE = 1 << 16, 4096
"""Features of so many bytes begin at a multiple of a page, which is written and mapped faster."""


@dataclass(frozen=True)
class Extent:
    """Where a record's features lie as plain bytes: row-major, little-endian, uncompressed."""

    path: Path
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype


def read_rows(descriptor: int, extent: Extent, rows: slice) -> np.ndarray:
    """Some rows of the features, read through an open file.

    Raises:
        ValueError: a step other than 1.
        CorruptRecordError: the file ends before the features do.
    """
    start, stop, step = rows.indices(extent.shape[0])
    if step != 1:
        raise ValueError(f"rows must be a slice of step 1, not {step}.")
    values = np.empty((max(0, stop - start), extent.shape[1]), extent.dtype)
    left = values.view(np.uint8).reshape(-1).data
    offset = extent.offset + start * extent.shape[1] * extent.dtype.itemsize
    while left:
        count = os.preadv(descriptor, [left], offset)
        if not count:
            raise CorruptRecordError(f"{extent.path} ends within its features. Delete it and encode the slide again.")
        left, offset = left[count:], offset + count
    return values
