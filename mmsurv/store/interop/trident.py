"""TRIDENT's feature files: ``features_<encoder>/<slide>.h5``.

Owns the layout: ``features`` (N, D), (1, N, D) in some versions, with the encoder as attribute; ``coords`` (N, 2)
int64, level-0 top-left corner, with tile and slide sizes as attributes. What is not known is the text "None".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsurv.store.hdf5_datasets import own_dataset
from mmsurv.store.interop.foreign import (
    ForeignFeatures,
    ForeignOptions,
    beyond,
    level0_pixels,
    numbers,
    opened,
    require_rows,
    scalars,
)
from mmsurv.store.record import Scalar, SlideRecord

COORDS_ATTRIBUTES = (
    "patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap", "name",
    "level0_width", "level0_height",
)  # fmt: skip
NONE = "None"

Part = tuple[np.ndarray, Mapping[str, Any]]
"""A dataset to write, and its attributes."""


def looks_like(file: h5py.File) -> bool:
    return {"features", "coords"} <= set(file) and "patch_size_level0" in own_dataset(file, "coords").attrs


def read(path: Path, slide_id: str, options: ForeignOptions) -> ForeignFeatures:
    """Read one file. Raises ImportLayoutError if it is not what it claims."""
    with opened(path) as file:
        features, coords = numbers(file, "features", path), numbers(file, "coords", path)
        attributes, of_features = scalars(file["coords"].attrs), scalars(file["features"].attrs)
        lost = (
            *beyond(attributes, COORDS_ATTRIBUTES, "attribute of coords"),
            *beyond(of_features, ("encoder", "name"), "attribute of features"),
            *beyond(scalars(file.attrs), (), "attribute of the file"),
            *beyond(file, ("features", "coords"), "dataset"),
        )
    if features.ndim == 3 and features.shape[0] == 1:
        features = features[0]
    require_rows(features, coords, path)
    kept = {key: attributes[key] for key in COORDS_ATTRIBUTES if key in attributes}
    return ForeignFeatures(
        slide_id=slide_id,
        features=features,
        coords=level0_pixels(coords, path),
        coords_attributes=kept,
        facts={key: kept[key] for key in ("level0_width", "level0_height") if isinstance(kept.get(key), int | float)},
        encoder=None if "encoder" not in of_features else str(of_features["encoder"]),
        lost=lost,
    )


def files(record: SlideRecord, order: np.ndarray, folder: Path, encoder: str) -> dict[Path, dict[str, Part]]:
    """The files of one slide, by path, as datasets with their attributes."""
    place = folder / f"features_{re.sub(r'[^A-Za-z0-9._-]+', '_', encoder)}"
    known = dict(record.coords_attributes)
    for key in ("level0_width", "level0_height"):
        known.setdefault(key, record.attributes.get(key, NONE))
    known.setdefault("name", record.slide_id)
    on_coords: dict[str, Scalar] = {key: known.get(key, NONE) for key in COORDS_ATTRIBUTES}
    saved = {"name": record.slide_id, "savetodir": str(place)}
    return {
        place / f"{record.slide_id}.h5": {
            "features": (record.features[order].astype(np.float32), {**saved, "encoder": encoder}),
            "coords": (record.coords[order].astype(np.int64), {**on_coords, "savetodir": str(place)}),
        }
    }


def held(record: SlideRecord) -> set[str]:
    """Fields of a record that the files have a place for."""
    return {"features", "coords", "slide_id", "level0_width", "level0_height", *COORDS_ATTRIBUTES}
