"""Checks of a record from its bytes.

Owns what ``mmsurv store verify`` looks for. Every problem is a sentence; the caller names the slide.
"""

from __future__ import annotations

import numpy as np

from mmsurv.errors import MmsurvError
from mmsurv.store.base import FeatureStore
from mmsurv.store.rank import ROW_ORDER, tile_ranks
from mmsurv.store.record import SlideRecord


def problems(store: FeatureStore, slide_id: str) -> list[str]:
    """Everything wrong with one record; an empty list means it is good.

    Looks at: both checksums, the recipe, shapes and type, NaN and Inf, duplicated coordinates, the row order.
    """
    try:
        record = store.read(slide_id)
    except (MmsurvError, OSError) as error:
        return [str(error)]
    return [*_shape_problems(record, store), *_value_problems(record), *_order_problems(record)]


def _shape_problems(record: SlideRecord, store: FeatureStore) -> list[str]:
    count = len(record.features)
    found = []
    if record.features.shape != (count, store.dim) or count == 0:
        found.append(f"features are {record.features.shape}, expected (N, {store.dim}) with N of at least 1")
    if record.features.dtype != store.dtype:
        found.append(f"features are {record.features.dtype}, expected {store.dtype}")
    if record.coords.shape != (count, 2):
        found.append(f"coords are {record.coords.shape}, expected ({count}, 2)")
    if record.tissue.shape != (count,):
        found.append(f"tissue is {record.tissue.shape}, expected ({count},)")
    return found


def _value_problems(record: SlideRecord) -> list[str]:
    found = []
    bad = np.flatnonzero(~np.isfinite(record.features).all(axis=1))
    if bad.size:
        found.append(f"{bad.size} rows of features hold NaN or Inf, the first is row {bad[0]}")
    doubles = len(record.coords) - len(np.unique(record.coords, axis=0))
    if doubles:
        found.append(f"{doubles} tiles have the coordinates of another tile")
    outside = np.flatnonzero((record.tissue < 0) | (record.tissue > 1))
    if outside.size:
        found.append(f"tissue of row {outside[0]} is {record.tissue[outside[0]]}, expected 0 to 1")
    return found


def _order_problems(record: SlideRecord) -> list[str]:
    order, seed = record.attributes.get("row_order"), record.attributes.get("sample_seed")
    if order != ROW_ORDER:
        return [f"row_order is {order!r}, expected {ROW_ORDER!r}"]
    if not isinstance(seed, int):
        return ["sample_seed is missing, so the row order cannot be checked"]
    ranks = tile_ranks(record.slide_id, record.coords, seed)
    if (ranks[1:] < ranks[:-1]).any():
        return ["rows are not in rank order, so a prefix of them is not a random sample"]
    return []
