"""One feature file of another tool, read with distrust.

Owns what is common to the layouts: what a file may give, and the checks of datasets, shapes, values and names.
Coordinates leave here as level-0 pixels of a tile's top-left corner, whatever the file counts in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsurv.errors import ImportLayoutError
from mmsurv.store.hdf5 import reading
from mmsurv.store.hdf5_datasets import own_dataset, require_filled
from mmsurv.store.record import Scalar

MAX_BYTES = 16 * 2**30
"""Most bytes of a dataset that are read: 10^6 tiles of 4096 float32. Compressed, a small file may claim any number."""


@dataclass(frozen=True, kw_only=True)
class ForeignOptions:
    """What the files do not say and the user does."""

    patches: Path | None = None
    """CLAM's folder of coordinate files."""
    mpp: Mapping[str, float] | float | None = None
    """STAMP: µm per level-0 pixel of each slide, or of all."""


@dataclass(frozen=True, kw_only=True)
class ForeignFeatures:
    """One file, read and checked."""

    slide_id: str
    features: np.ndarray
    """(N, D) in the file's dtype and row order."""
    coords: np.ndarray
    """(N, 2) int64, level-0 pixels (x, y), top-left."""
    coords_attributes: dict[str, Scalar] = field(default_factory=dict)
    """In TRIDENT's names and units."""
    facts: dict[str, Scalar] = field(default_factory=dict)
    """Attributes of the record."""
    encoder: str | None = None
    """What the file says encoded it."""
    lost: tuple[str, ...] = ()
    """Fields of the file that a store has no place for."""


def opened(path: Path) -> AbstractContextManager[h5py.File]:
    """The file, open for reading. Raises ImportLayoutError if it is no HDF5 file."""
    return reading(path, lambda reason: ImportLayoutError(f"{path} is not a readable HDF5 file: {reason}."))


def dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset whose values lie in the file. Raises ImportLayoutError if there is none, or a link to elsewhere."""
    try:
        return own_dataset(file, name)
    except (KeyError, ValueError) as error:
        raise ImportLayoutError(f"{path}: {error.args[0]}.") from error


def numbers(file: h5py.File, name: str, path: Path) -> np.ndarray:
    """A dataset of numbers, once its type and size are known and all of it is in the file."""
    found = dataset(file, name, path)
    if found.dtype.kind not in "fiu" or found.shape is None:
        raise ImportLayoutError(f"{path}: {name} are {found.dtype}, expected numbers.")
    try:
        require_filled(found, found.id.get_type().get_size())
    except ValueError as error:
        raise ImportLayoutError(f"{path}: {error}.") from error
    part = math.prod(found.chunks or ()) * found.dtype.itemsize
    if max(found.nbytes, part) > MAX_BYTES:
        raise ImportLayoutError(
            f"{path}: {name} are {found.shape} {found.dtype}, {max(found.nbytes, part) / 2**30:.1f} GiB in memory; at "
            f"most {MAX_BYTES / 2**30:.0f} GiB of a slide are imported. Is it one slide? Split it, or encode it here."
        )
    return found[()]


def scalars(attributes: h5py.AttributeManager) -> dict[str, Scalar]:
    """Scalar attributes as plain values; TRIDENT writes the text "None" where it has none."""
    found: dict[str, Scalar] = {}
    for key, value in attributes.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, bytes):
            plain = plain.decode("utf-8", "replace")
        if isinstance(plain, float) and not math.isfinite(plain):
            continue
        if isinstance(plain, str | int | float | bool) and plain != "None":
            found[key] = plain
    return found


def beyond(found: Iterable[Any], known: Iterable[str], what: str) -> tuple[str, ...]:
    """Names in a file that are not among those that are kept, each with what it is."""
    return tuple(f"{name} ({what})" for name in sorted(set(map(str, found)) - set(known)))


def require_rows(features: np.ndarray, coords: np.ndarray, path: Path) -> None:
    """A row of floats for each coordinate, and at least one."""
    if features.ndim != 2 or features.dtype.kind != "f":
        raise ImportLayoutError(f"{path}: features are {features.dtype} {features.shape}, expected floats (N, D).")
    if coords.shape != (len(features), 2):
        raise ImportLayoutError(f"{path}: coords are {coords.shape}, expected ({len(features)}, 2) as for features.")
    if len(features) == 0:
        raise ImportLayoutError(
            f"{path}: the slide has no tiles, its features are {features.shape}. A store has no empty records; the "
            "slide is noted as failed."
        )


def level0_pixels(coords: np.ndarray, path: Path) -> np.ndarray:
    """Coordinates as (N, 2) int64, after checking that they are whole level-0 pixels, each once."""
    if coords.dtype.kind == "f" and not (np.isfinite(coords).all() and (coords == np.round(coords)).all()):
        raise ImportLayoutError(
            f"{path}: coords are fractions of a pixel or not numbers, expected level-0 pixels. STAMP keeps µm: import "
            "its files with --layout stamp."
        )
    if coords.min() < 0 or coords.max() > np.iinfo(np.int32).max:
        raise ImportLayoutError(f"{path}: coords from {coords.min()} to {coords.max()}, expected level-0 pixels.")
    doubles = len(coords) - len(np.unique(coords, axis=0))
    if doubles:
        raise ImportLayoutError(f"{path}: {doubles} tiles have the coordinates of another tile, expected each once.")
    return coords.astype(np.int64)
