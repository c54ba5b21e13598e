"""CLAM's feature and coordinate files: ``h5_files/<slide>.h5`` and ``patches/<slide>.h5``.

Owns the layout: ``features`` (N, D) float32 and ``coords`` (N, 2) int32, level-0 top-left corner, without attributes.
Tile sizes stand, if at all, in a coordinate file of the same name, where ``patch_size`` counts pixels of
``patch_level`` and ``downsample`` says how many level-0 pixels one of those is. CLAM's ``.pt`` files repeat the
features without coordinates; they are neither read nor written, since that takes torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsurv.errors import ImportLayoutError
from mmsurv.store.interop.foreign import (
    ForeignFeatures,
    ForeignOptions,
    beyond,
    dataset,
    level0_pixels,
    numbers,
    opened,
    require_rows,
    scalars,
)
from mmsurv.store.interop.trident import Part
from mmsurv.store.record import Scalar, SlideRecord

FEATURES, PATCHES = "h5_files", "patches"
_PATCH_ATTRIBUTES = ("patch_size", "patch_level", "downsample", "level_dim", "name")


def looks_like(file: h5py.File) -> bool:
    return {"features", "coords"} <= set(file)


def read(path: Path, slide_id: str, options: ForeignOptions) -> ForeignFeatures:
    """Read one feature file, and the coordinate file that belongs to it, if there is one.

    Raises:
        ImportLayoutError: one of them is not what it claims.
    """
    with opened(path) as file:
        features, coords = numbers(file, "features", path), numbers(file, "coords", path)
        lost = (
            *beyond(file, ("features", "coords"), "dataset"),
            *beyond(scalars(file["coords"].attrs), (), "attribute of coords"),
            *beyond(scalars(file["features"].attrs), (), "attribute of features"),
            *beyond(scalars(file.attrs), (), "attribute of the file"),
        )
    require_rows(features, coords, path)
    tile: dict[str, Scalar] = {}
    facts: dict[str, Scalar] = {}
    patches = _patches_of(path, options)
    if patches is not None:
        tile, facts, lost_there = _read_patches(patches)
        lost += lost_there
    return ForeignFeatures(
        slide_id=slide_id,
        features=features,
        coords=level0_pixels(coords, path),
        coords_attributes=tile,
        facts=facts,
        lost=lost,
    )


def tile_side(path: Path, options: ForeignOptions) -> int | None:
    """Side of the tiles of a feature file in level-0 pixels; None if its coordinate file does not say."""
    patches = _patches_of(path, options)
    try:
        side = None if patches is None else _read_patches(patches)[0].get("patch_size_level0")
    except ImportLayoutError:
        return None
    return side if isinstance(side, int) else None


def _patches_of(path: Path, options: ForeignOptions) -> Path | None:
    patches = options.patches / path.name if options.patches else None
    return patches if patches is not None and patches.is_file() else None


def _read_patches(path: Path) -> tuple[dict[str, Scalar], dict[str, Scalar], tuple[str, ...]]:
    with opened(path) as file:
        attributes = dict(dataset(file, "coords", path).attrs) if "coords" in set(file) else {}
    lost = beyond(attributes, _PATCH_ATTRIBUTES, "attribute of coords in patches")
    if "patch_size" not in attributes:
        return {}, {}, lost
    try:
        size, level = int(attributes["patch_size"]), int(attributes.get("patch_level", 0))
        downsample = float(np.ravel(attributes.get("downsample", 1.0))[0])
        side = round(size * downsample)
        facts = _level0_size(attributes) if level == 0 else {}
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise ImportLayoutError(f"{path}: patch_size and downsample must be numbers ({error}).") from error
    if level != 0 and "level_dim" in attributes:
        lost += (f"level_dim of level {level} (attribute of coords in patches)",)
    return {"patch_size": size, "patch_size_level0": side}, facts, lost


def _level0_size(attributes: dict[str, Any]) -> dict[str, Scalar]:
    size = np.ravel(attributes.get("level_dim", ()))
    return {} if len(size) != 2 else {"level0_width": int(size[0]), "level0_height": int(size[1])}


def files(record: SlideRecord, order: np.ndarray, folder: Path, encoder: str) -> dict[Path, dict[str, Part]]:
    """The files of one slide, by path, as datasets with their attributes.

    Tiles are given as regions of level 0, since a record does not say what other levels its slide has, and CLAM reads
    ``patch_size`` pixels of ``patch_level`` whatever ``downsample`` says.
    """
    coords = record.coords[order].astype(np.int32)
    name = f"{record.slide_id}.h5"
    made: dict[Path, dict[str, Part]] = {
        folder / FEATURES / name: {
            "features": (record.features[order].astype(np.float32), {}),
            "coords": (coords, {}),
        }
    }
    side = record.coords_attributes.get("patch_size_level0")
    if isinstance(side, int | float):
        attributes: dict[str, Any] = {
            "patch_size": round(side),
            "patch_level": 0,
            "downsample": (1.0, 1.0),
            "name": record.slide_id,
            "save_path": str(folder / PATCHES),
        }
        size = (record.attributes.get("level0_width"), record.attributes.get("level0_height"))
        if isinstance(size[0], int) and isinstance(size[1], int):
            attributes |= {"level_dim": (size[0], size[1]), "downsampled_level_dim": (size[0], size[1])}
        made[folder / PATCHES / name] = {"coords": (coords, attributes)}
    return made


def held(record: SlideRecord) -> set[str]:
    """Fields of a record that the files have a place for."""
    found = {"features", "coords", "slide_id", "name"}
    if "patch_size_level0" in record.coords_attributes:
        found |= {"patch_size_level0", "level0_width", "level0_height"}
    return found
