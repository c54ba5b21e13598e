"""A dataset of an HDF5 file that lies in that file and is as large as it says.

Owns what is asked of a dataset before memory is made for it. HDF5 follows links to any path, takes a dataset's size on
trust, gives zeros for what was never written, and lets a compressed chunk unfold to any size.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import h5py
import numpy as np

from mmsurv.store.unfold import unfolded


def own_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset whose values lie in the file itself.

    Raises:
        KeyError: there is none of that name.
        ValueError: a link to elsewhere, a group, or values that are kept in another file.
    """
    if name not in set(group):  # `in group` would follow a link
        raise KeyError(f"no dataset {name!r}; found {', '.join(group) or 'nothing'}")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link to elsewhere, expected the values themselves")
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"no dataset {name!r}: it is a group")
    properties = found.id.get_create_plist()
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise ValueError(f"{name} is kept in other files, expected the values themselves")
    return found


def require_filled(dataset: h5py.Dataset, itemsize: int) -> None:
    """Check that every value was written and lies within the file.

    Args:
        dataset: of any layout and filters.
        itemsize: bytes of a value as stored.

    Raises:
        ValueError: the dataset claims more than the file holds.
    """
    claimed, stored = math.prod(dataset.shape) * itemsize, dataset.id.get_storage_size()
    within = stored <= dataset.file.id.get_filesize()
    if dataset.chunks is None:
        filled = stored >= claimed
    else:
        # Filters make any size of a chunk; that there is one for each part is what can be known.
        parts = (math.ceil(size / part) for size, part in zip(dataset.shape, dataset.chunks, strict=True))
        filled = dataset.id.get_num_chunks() >= math.prod(parts)
    if not within or not filled:
        raise ValueError(
            f"{dataset.name.lstrip('/')} claim {claimed} bytes, the file holds {stored} of them. It was cut or never "
            "filled"
        )


def read_gzipped(dataset: h5py.Dataset, limit: int) -> np.ndarray:
    """A chunked dataset of single bytes whose only filter is gzip, unfolded no further than its shape.

    Args:
        dataset: any number of axes, one byte per value.
        limit: the most bytes to make.

    Raises:
        ValueError: other filters, larger than the limit, or a chunk that unfolds to another size.
    """
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    part = math.prod(dataset.chunks)
    if filters != [h5py.h5z.FILTER_DEFLATE] or dataset.dtype.itemsize != 1:
        raise ValueError(f"{dataset.name.lstrip('/')} is not bytes compressed by gzip alone")
    if dataset.size > limit or part > limit:
        raise ValueError(f"{dataset.name.lstrip('/')} is {dataset.shape}, expected no more than {limit} values")
    require_filled(dataset, 1)
    values = np.empty(dataset.shape, dataset.dtype)
    for place in dataset.iter_chunks():
        corner = tuple(axis.start for axis in place)
        skipped, packed = dataset.id.read_direct_chunk(corner)
        chunk = np.frombuffer(packed if skipped else unfolded(packed, part, zlib.MAX_WBITS), dataset.dtype)
        inner = tuple(slice(0, axis.stop - axis.start) for axis in place)
        values[place] = _shaped(chunk, dataset.chunks)[inner]
    return values


def _shaped(chunk: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if chunk.size != math.prod(shape):
        raise ValueError(f"a chunk has {chunk.size} values, expected {math.prod(shape)}")
    return chunk.reshape(shape)
