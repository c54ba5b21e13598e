"""A store written out in another tool's layout: float32, rows in raster order (y, then x).

Owns the work over a store. A file appears whole or not at all; one that is there already stays if it holds the same,
and is a problem if it does not, since it may be the other tool's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np

from mmsurv.errors import MmsurvError, StoreError
from mmsurv.store.base import FeatureStore
from mmsurv.store.commit import publish
from mmsurv.store.hdf5_datasets import own_dataset
from mmsurv.store.interop import clam, trident
from mmsurv.store.interop.foreign import opened
from mmsurv.store.interop.trident import Part
from mmsurv.store.record import SlideRecord, to_arrays
from mmsurv.store.sink import Sink

LAYOUTS: dict[str, ModuleType] = {"clam": clam, "trident": trident}


@dataclass
class Exported:
    """What came of the slides of a store."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Slides whose files were there already, with the same content."""
    problems: dict[str, str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    """Fields of records that the layout has no place for, and in how many slides they were."""


def export_store(
    store: FeatureStore,
    folder: Path,
    *,
    layout: str,
    slide_ids: Iterable[str] | None = None,
    on_slide: Callable[[str], None] | None = None,
) -> Exported:
    """Write the slides of a store as files of another tool.

    Args:
        store: the store.
        folder: where the tool's folders are made.
        layout: "clam" or "trident".
        slide_ids: which slides; None: all.
        on_slide: called with each id once it is dealt with.

    Returns:
        What was written. A damaged record, or a file that is in the way, is a problem; the rest is written.

    Raises:
        StoreError: the folder cannot be written.
    """
    encoder = store.recipe.get("encoder")
    named = str(encoder.get("name", "unknown")) if isinstance(encoder, Mapping) else "unknown"
    done = Exported()
    for slide_id in store.slide_ids() if slide_ids is None else slide_ids:
        try:
            new = _export(store.read(slide_id), folder, LAYOUTS[layout], named, done.lost)
            (done.written if new else done.kept).append(slide_id)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written: {error.strerror or error}. What was exported is whole; make room, then "
                "give the same command again: it goes on from here."
            ) from error
        except MmsurvError as error:
            done.problems[slide_id] = f"{type(error).__name__}: {error}"
        if on_slide:
            on_slide(slide_id)
    return done


def raster_order(coords: np.ndarray) -> np.ndarray:
    """The permutation that puts tiles in order of y, then x."""
    return np.lexsort((coords[:, 0], coords[:, 1]))


def _export(record: SlideRecord, folder: Path, layout: ModuleType, encoder: str, lost: Counter[str]) -> bool:
    """Write the files of one slide; False if all of them were there."""
    made = layout.files(record, raster_order(record.coords), folder, encoder)
    new = [_write(path, parts) for path, parts in made.items()]
    kept = layout.held(record)
    for name in to_arrays(record):
        if name not in kept and not (name == "tissue" and np.isnan(record.tissue).all()):
            lost[f"{name} (dataset)"] += 1
    lost.update(f"{name} (attribute)" for name in record.attributes if name not in kept)
    lost.update(f"{name} (attribute of coords)" for name in record.coords_attributes if name not in kept)
    return any(new)


def _write(path: Path, parts: dict[str, Part]) -> bool:
    """Publish one file; False if it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        with Sink(temporary) as sink, h5py.File(sink, "w") as file:
            for name, (array, attributes) in parts.items():
                file.create_dataset(name, data=array).attrs.update(attributes)

    def check(written: Path) -> None:
        with opened(written) as file:
            for name, (array, _) in parts.items():
                if not _holds(file, name, array):
                    raise StoreError(f"{path}: {name} is not what was to be written. Is it another tool's file?")

    if not path.exists() and publish(path, write, check):
        return True
    check(path)
    return False


def _holds(file: h5py.File, name: str, array: np.ndarray) -> bool:
    if name not in set(file):
        return False
    found = own_dataset(file, name)  # read only once it is of the size that is expected, whosever file it is
    return found.shape == array.shape and np.array_equal(found[()], array)
