"""Checks of a record from its bytes.

Owns what ``mmsurv store verify`` looks for. Every problem is a sentence; the caller names the slide.
"""

from __future__ import annotations

import numpy as np

from mmsurv.errors import MmsurvError
from mmsurv.store.base import FeatureStore
from mmsurv.store.rank import ROW_ORDER, tile_ranks
from mmsurv.store.record import REASONS, SlideRecord, reason_counts


def problems(store: FeatureStore, slide_id: str) -> list[str]:
    """Everything wrong with one record; an empty list means it is good.

    Looks at: both checksums, the recipe, shapes and type, NaN and Inf, duplicated coordinates, the row order.
    """
    try:
        record = store.read(slide_id)
    except (MmsurvError, OSError) as error:
        return [str(error)]
    return [
        *_shape_problems(record, store),
        *_value_problems(record),
        *_rejected_problems(record),
        *_order_problems(record),
    ]


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


def _rejected_problems(record: SlideRecord) -> list[str]:
    if record.rejected is None or record.rejected_reason is None:
        return []
    found = []
    both = np.concatenate([record.coords, record.rejected])
    doubles = len(both) - len(np.unique(both, axis=0))
    if doubles:
        found.append(f"{doubles} tiles stand twice among coords and rejected, expected each once")
    unknown = np.setdiff1d(record.rejected_reason, list(REASONS))
    if unknown.size:
        found.append(f"rejected_reason holds code {unknown[0]}, expected one of {sorted(REASONS)}")
    for name, count in reason_counts(record.rejected_reason).items():
        said = record.attributes.get(name, count)
        if said != count:
            found.append(f"{name} says {said}, but {count} tiles were rejected for that reason")
    total = record.attributes.get("n_tissue_tiles")
    if isinstance(total, int) and record.n_drawn > total:
        found.append(f"{record.n_drawn} tiles were drawn, more than the {total} that n_tissue_tiles says")
    return found


def _order_problems(record: SlideRecord) -> list[str]:
    order, seed = record.attributes.get("row_order"), record.attributes.get("sample_seed")
    if order != ROW_ORDER:
        return [f"row_order is {order!r}, expected {ROW_ORDER!r}"]
    if not isinstance(seed, int):
        return ["sample_seed is missing, so the row order cannot be checked"]
    found = []
    if _out_of_order(record.slide_id, record.coords, seed):
        found.append("rows are not in rank order, so a prefix of them is not a random sample")
    if record.rejected is not None and _out_of_order(record.slide_id, record.rejected, seed):
        found.append("rejected tiles are not in rank order")
    return found


def _out_of_order(slide_id: str, coords: np.ndarray, seed: int) -> bool:
    ranks = tile_ranks(slide_id, coords, seed)
    return bool((ranks[1:] < ranks[:-1]).any())
