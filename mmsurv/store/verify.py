"""Checks of a record from its bytes.

Owns what ``mmsurv store verify`` looks for. Every finding is a sentence; the caller names the slide. A problem means
that the record must not be used, a warning that someone should look at it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmsurv.errors import MmsurvError
from mmsurv.store.base import FeatureStore
from mmsurv.store.rank import ROW_ORDER, tile_ranks
from mmsurv.store.record import MASK_CODES, REASONS, SlideRecord, reason_counts

DUPLICATE_SHARE = 0.05
"""Share of rows that repeat another row above which a warning is due: a few tiles of plain glass may look the same."""


@dataclass(frozen=True)
class Findings:
    """What was found in one record; a good one has no problems."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examine(store: FeatureStore, slide_id: str) -> Findings:
    """Read one record, whatever was remembered of it, and check all of it.

    Problems: a checksum, the recipe, shapes and types, NaN and Inf, constant rows, coordinates that stand twice or
    lie outside the slide, counts that disagree, codes that are none, the row order, and what the format's own library
    reads otherwise. Warnings: repeated rows, tiles off the grid.
    """
    try:
        record = store.read(slide_id)
    except (MmsurvError, OSError) as error:
        return Findings([str(error)])
    shapes = _shape_problems(record, store)
    if shapes:
        return Findings(shapes)
    found = [
        *_feature_problems(record),
        *_place_problems(record),
        *_count_problems(record),
        *_code_problems(record),
        *_order_problems(record),
        *store.problems_for_others(store.record_path(slide_id), record),
    ]
    return Findings(found, [*_duplicate_warnings(record), *_grid_warnings(record)])


def _shape_problems(record: SlideRecord, store: FeatureStore) -> list[str]:
    count = len(record.features)
    found = []
    if record.features.shape != (count, store.dim) or count == 0:
        found.append(f"features are {record.features.shape}, expected (N, {store.dim}) with N of at least 1.")
    if record.features.dtype != store.dtype:
        found.append(f"features are {record.features.dtype}, expected {store.dtype}.")
    expected = {"coords": (count, 2), "tissue": (count,)}
    if record.source_row is not None:
        expected["source_row"] = (count,)
    if (record.rejected is None) != (record.rejected_reason is None):
        found.append("rejected and rejected_reason belong together, one of them is missing.")
    elif record.rejected is not None and record.rejected_reason is not None:
        expected |= {"rejected": (len(record.rejected_reason), 2), "rejected_reason": (record.rejected_reason.size,)}
    for name, shape in expected.items():
        if getattr(record, name).shape != shape:
            found.append(f"{name} is {getattr(record, name).shape}, expected {shape}.")
    return found


def _feature_problems(record: SlideRecord) -> list[str]:
    bad = np.flatnonzero(~np.isfinite(record.features).all(axis=1))
    if bad.size:
        return [f"{bad.size} rows of features hold NaN or Inf, the first is row {bad[0]}."]
    count, dim = record.features.shape
    found = []
    constant = np.flatnonzero((record.features == record.features[:, :1]).all(axis=1))
    if dim > 1 and constant.size:
        found.append(
            f"{constant.size} rows of features hold one value all along, the first is row {constant[0]}: no encoder "
            "gives that of a tile."
        )
    if count > 1 and (record.features == record.features[0]).all():
        found.append(f"all {count} rows of features are the same: the encoder did not see the tiles.")
    return found


def _place_problems(record: SlideRecord) -> list[str]:
    found = []
    places = record.coords if record.rejected is None else np.concatenate([record.coords, record.rejected])
    doubles = len(places) - len(np.unique(places, axis=0))
    if doubles:
        found.append(f"{doubles} tiles have the coordinates of another tile, drawn or rejected.")
    width, height = (_number(record, name) for name in ("level0_width", "level0_height"))
    side = _number(record, "tile_side_level0") or 1.0
    for name in ("coords", "rejected"):
        tiles = getattr(record, name)
        if tiles is None:
            continue
        outside = (tiles < 0).any(axis=1)
        if width and height:
            # A tile begins at a whole pixel and its side is a float, so its end may be half a pixel off.
            outside |= (tiles + side > np.array([width, height]) + 0.5).any(axis=1)
        rows = np.flatnonzero(outside)
        if rows.size:
            x, y = tiles[rows[0]]
            found.append(
                f"{rows.size} tiles of {name} lie outside the slide of {width or '?'} × {height or '?'} pixels, the "
                f"first is row {rows[0]} at ({x}, {y})."
            )
    return found


def _count_problems(record: SlideRecord) -> list[str]:
    found = []
    if record.rejected_reason is not None:
        for name, count in reason_counts(record.rejected_reason).items():
            said = record.attributes.get(name, count)
            if said != count:
                found.append(f"{name} says {said}, but {count} tiles were rejected for that reason.")
    total = record.attributes.get("n_tissue_tiles")
    if isinstance(total, int) and record.n_drawn > total:
        found.append(f"{record.n_drawn} tiles were drawn, more than the {total} that n_tissue_tiles says.")
    return found


def _code_problems(record: SlideRecord) -> list[str]:
    found = []
    outside = np.flatnonzero((record.tissue < 0) | (record.tissue > 1))
    if outside.size:
        found.append(f"tissue of row {outside[0]} is {record.tissue[outside[0]]}, expected 0 to 1.")
    for name, array, known in (
        ("rejected_reason", record.rejected_reason, REASONS),
        ("mask", record.mask, MASK_CODES),
    ):
        unknown = [] if array is None else sorted(set(np.unique(array).tolist()) - set(known))
        if unknown:
            found.append(f"{name} holds {unknown[0]}, expected one of {sorted(known)}.")
    return found


def _order_problems(record: SlideRecord) -> list[str]:
    order, seed = record.attributes.get("row_order"), record.attributes.get("sample_seed")
    if order != ROW_ORDER:
        return [f"row_order is {order!r}, expected {ROW_ORDER!r}."]
    if not isinstance(seed, int):
        return ["sample_seed is missing, so the row order cannot be checked."]
    found = []
    if _out_of_order(record.slide_id, record.coords, seed):
        found.append("rows are not in rank order, so a prefix of them is not a random sample.")
    if record.rejected is not None and _out_of_order(record.slide_id, record.rejected, seed):
        found.append("rejected tiles are not in rank order.")
    return found


def _duplicate_warnings(record: SlideRecord) -> list[str]:
    rows = np.ascontiguousarray(record.features)
    as_bytes = rows.view(np.uint8).reshape(len(rows), -1)
    keys = as_bytes.view(np.dtype((np.void, as_bytes.shape[1]))).ravel()
    repeated = len(keys) - len(np.unique(keys))
    if repeated <= DUPLICATE_SHARE * len(keys):
        return []
    return [
        f"{repeated} of {len(keys)} rows of features repeat another row, more than {DUPLICATE_SHARE:.0%}: are those "
        "tiles blank, or was one tile encoded many times?"
    ]


def _grid_warnings(record: SlideRecord) -> list[str]:
    """Tiles of one slide are cut on the grid whose i-th tile begins at round(i × side)."""
    side = _number(record, "tile_side_level0")
    if not side:
        return []
    places = record.coords if record.rejected is None else np.concatenate([record.coords, record.rejected])
    off = np.flatnonzero((np.rint(np.rint(places / side) * side) != places).any(axis=1))
    if not off.size:
        return []
    x, y = places[off[0]]
    return [
        f"{off.size} of {len(places)} tiles do not begin at a multiple of their side of {side:g} level-0 pixels, the "
        f"first at ({x}, {y}); a folder of patches may be cut so, a slide is not."
    ]


def _number(record: SlideRecord, name: str) -> float | None:
    value = record.attributes.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _out_of_order(slide_id: str, coords: np.ndarray, seed: int) -> bool:
    ranks = tile_ranks(slide_id, coords, seed)
    return bool((ranks[1:] < ranks[:-1]).any())
