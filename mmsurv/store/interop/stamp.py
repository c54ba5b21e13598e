"""STAMP's feature files: ``<extractor>-<hash>/<slide>.h5``.

Owns the layout: ``feats`` (N, D) and ``coords`` (N, 2), the top-left corner in **µm**, with the tile's side in µm and
pixels and the extractor as attributes of the file. How many µm a level-0 pixel is stands nowhere in it: the user says
so. Early files of STAMP 2 have the side as ``tile_size`` beside ``unit``; older ones say neither, and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from mmsurv.errors import ImportLayoutError
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
from mmsurv.store.record import Scalar

_KNOWN = ("extractor", "unit", "tile_size", "tile_size_um", "tile_size_px", "feat_type")


def looks_like(file: h5py.File) -> bool:
    return {"feats", "coords"} <= set(file)


def read(path: Path, slide_id: str, options: ForeignOptions) -> ForeignFeatures:
    """Read one file. Raises ImportLayoutError if it is not what it claims, or its µm cannot become pixels."""
    with opened(path) as file:
        features, coords_um = numbers(file, "feats", path), numbers(file, "coords", path)
        attributes = scalars(file.attrs)
        lost = (
            *beyond(attributes, _KNOWN, "attribute of the file"),
            *beyond(file, ("feats", "coords"), "dataset"),
        )
    require_rows(features, coords_um, path)
    if attributes.get("feat_type", "tile") != "tile":
        raise ImportLayoutError(f"{path}: feat_type is {attributes['feat_type']!r}, expected 'tile'.")
    side_um = _side_um(attributes, path)
    mpp = _mpp(options, slide_id, path)
    facts: dict[str, Scalar] = {"mpp": mpp, "mpp_source": "given on import", "tile_side_level0": side_um / mpp}
    tile: dict[str, Scalar] = {"patch_size_level0": round(side_um / mpp), "overlap": 0, "name": slide_id}
    px = attributes.get("tile_size_px")
    if isinstance(px, int | float) and px > 0:
        facts |= {"tile_px": int(px), "tile_mpp": side_um / px}
        tile["patch_size"] = int(px)
    return ForeignFeatures(
        slide_id=slide_id,
        features=features,
        coords=level0_pixels(np.round(coords_um.astype(np.float64) / mpp), path),
        coords_attributes=tile,
        facts=facts,
        encoder=None if "extractor" not in attributes else str(attributes["extractor"]),
        lost=lost,
    )


def _side_um(attributes: Mapping[str, Scalar], path: Path) -> float:
    unit = attributes.get("unit", "um")
    side = attributes.get("tile_size_um", attributes.get("tile_size") if "unit" in attributes else None)
    if unit != "um" or not isinstance(side, int | float) or not side > 0:
        raise ImportLayoutError(
            f"{path}: its attributes do not say that coords are µm (unit is {attributes.get('unit', 'missing')!s}, "
            f"tile_size_um is {side if side is not None else 'missing'}). Files of old versions of STAMP do not; "
            "extract them again with STAMP 2, or from the slides."
        )
    return float(side)


def _mpp(options: ForeignOptions, slide_id: str, path: Path) -> float:
    mpp = options.mpp.get(slide_id) if isinstance(options.mpp, Mapping) else options.mpp
    if mpp is None:
        raise ImportLayoutError(
            f"{path}: coords are µm, and nothing says how many of them a level-0 pixel of {slide_id} is. Give --mpp, "
            "or a row for it in --mpp-table."
        )
    return float(mpp)
