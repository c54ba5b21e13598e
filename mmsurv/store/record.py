"""What the store keeps of one slide, and the digests that say it is unchanged.

Owns the record's fields, their shapes and types, and the two checksums: one over the feature bytes, one over
everything in the record.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmsurv.errors import StoreError
from mmsurv.provenance import canonical_json

Scalar = str | int | float | bool

RESERVED = ("slide_id", "recipe", "recipe_sha256", "row_order", "features_sha256", "record_sha256")

UNREADABLE, OUT_OF_FOCUS, NEAR_WHITE = 1, 2, 3
REASONS = {UNREADABLE: "unreadable", OUT_OF_FOCUS: "out of focus", NEAR_WHITE: "near white"}
"""Why a tile that was drawn has no row; codes of ``rejected_reason``."""

BACKGROUND, TISSUE, INK = 0, 1, 2
MASK_CODES = {BACKGROUND: "background", TISSUE: "tissue", INK: "pen ink"}
MAX_MASK = 1 << 26
"""Most pixels of a mask, 8192 × 8192: compressed, a few bytes may claim any number."""


@dataclass(frozen=True, kw_only=True)
class SlideRecord:
    """Features of one slide's tiles, in rank order, with all that is needed to use them without the slide."""

    slide_id: str
    features: np.ndarray
    """(N, D), one row per tile; the store's dtype (float16 unless said otherwise)."""
    coords: np.ndarray
    """(N, 2) int32, level-0 pixels (x, y) of each tile's top-left corner."""
    tissue: np.ndarray
    """(N,) float32, the share of the tile that is tissue, 0 to 1; NaN where it is not known."""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    """Facts about the slide, its resolution and its tiles; flat. The store adds those in ``RESERVED``."""
    coords_attributes: Mapping[str, Scalar] = field(default_factory=dict)
    """What TRIDENT keeps on ``coords``: patch_size, patch_size_level0, level0_magnification and so on."""
    thumbnail: bytes | None = None
    """A JPEG of the whole slide."""
    mask: np.ndarray | None = None
    """(H, W) uint8, codes of ``MASK_CODES``: 0 background, 1 tissue, 2 pen ink."""
    source_row: np.ndarray | None = None
    """(N,) int64, the row of each tile in the file it was imported from; None for records made here."""
    rejected: np.ndarray | None = None
    """(R, 2) int32, level-0 (x, y) of tiles that were drawn and have no row, in rank order; None: not known. Together
    with ``coords``, in rank order, they are a prefix of the rank order of the slide's tissue tiles."""
    rejected_reason: np.ndarray | None = None
    """(R,) uint8, codes of ``REASONS``."""

    @property
    def n_tiles(self) -> int:
        return len(self.features)

    @property
    def n_drawn(self) -> int:
        """Tiles that were drawn, with a row or rejected."""
        return self.n_tiles + (0 if self.rejected is None else len(self.rejected))


REQUIRED = ("features", "coords", "tissue")
OPTIONAL = ("source_row", "rejected", "rejected_reason", "mask", "thumbnail")


def to_arrays(record: SlideRecord) -> dict[str, np.ndarray]:
    """The arrays a record's file holds, by name; those that are None are left out."""
    found = {name: getattr(record, name) for name in (*REQUIRED, *OPTIONAL)}
    if record.thumbnail is not None:
        found["thumbnail"] = np.frombuffer(record.thumbnail, np.uint8)
    return {name: array for name, array in found.items() if array is not None}


def from_arrays(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Scalar], coords_attributes: Mapping[str, Scalar]
) -> SlideRecord:
    """The record of what a file held. Raises ValueError if an array is missing that every record has."""
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"it holds no {missing[0]!r}")
    known = {name: arrays[name] for name in (*REQUIRED, *OPTIONAL) if name in arrays}
    thumbnail = known.pop("thumbnail", None)
    return SlideRecord(
        slide_id=str(attributes.get("slide_id")),
        attributes=attributes,
        coords_attributes=coords_attributes,
        thumbnail=None if thumbnail is None else thumbnail.tobytes(),
        **known,
    )


def reason_counts(reasons: np.ndarray) -> dict[str, int]:
    """Tiles rejected for each reason, as the attributes ``n_unreadable``, ``n_out_of_focus``, ``n_near_white``.

    Args:
        reasons: (R,), codes of ``REASONS``.
    """
    return {f"n_{name.replace(' ', '_')}": int((reasons == code).sum()) for code, name in REASONS.items()}


def checked(record: SlideRecord, *, dim: int, dtype: np.dtype) -> SlideRecord:
    """The record with its arrays in the store's types, after checking that they fit together.

    Raises:
        StoreError: no tiles, shapes that disagree, another dimension, a value that is not finite, or one that
            the store's dtype cannot hold.
    """
    name = record.slide_id
    features = np.asarray(record.features)
    if features.ndim != 2 or features.shape[0] == 0:
        raise StoreError(f"{name}: features must be (N, D) with at least one tile, not {features.shape}.")
    count = len(features)
    if features.shape[1] != dim:
        raise StoreError(f"{name}: features have {features.shape[1]} dimensions, the store has {dim}.")
    bad_rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad_rows.size:
        raise StoreError(f"{name}: {bad_rows.size} of {count} rows hold NaN or Inf, the first is row {bad_rows[0]}.")
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(features, dtype=dtype)
    if not np.isfinite(cast).all():
        raise StoreError(
            f"{name}: features up to {np.abs(features).max():.3g} do not fit {dtype.name}. "
            "Use a store of dtype float32."
        )
    coords = np.ascontiguousarray(record.coords, dtype=np.int32)
    tissue = np.ascontiguousarray(record.tissue, dtype=np.float32)
    if coords.shape != (count, 2) or tissue.shape != (count,):
        raise StoreError(
            f"{name}: {count} feature rows, but coords {coords.shape} (expected ({count}, 2)) "
            f"and tissue {tissue.shape} (expected ({count},))."
        )
    rows = record.source_row
    if rows is not None:
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        if rows.shape != (count,):
            raise StoreError(f"{name}: source_row is {rows.shape}, expected ({count},).")
    mask = None if record.mask is None else np.ascontiguousarray(record.mask, dtype=np.uint8)
    if mask is not None and mask.size > MAX_MASK:
        raise StoreError(f"{name}: a mask of {mask.shape} pixels, at most {MAX_MASK} are kept. Make it coarser.")
    rejected, reasons = _checked_rejects(record)
    return dataclasses.replace(
        record, features=cast, coords=coords, tissue=tissue, source_row=rows, mask=mask,
        rejected=rejected, rejected_reason=reasons,
    )  # fmt: skip


def _checked_rejects(record: SlideRecord) -> tuple[np.ndarray | None, np.ndarray | None]:
    if record.rejected is None and record.rejected_reason is None:
        return None, None
    if record.rejected is None or record.rejected_reason is None:
        raise StoreError(f"{record.slide_id}: rejected and rejected_reason belong together, one of them is missing.")
    rejected = np.ascontiguousarray(record.rejected, dtype=np.int32)
    reasons = np.ascontiguousarray(record.rejected_reason, dtype=np.uint8)
    if rejected.shape != (len(reasons), 2) or reasons.ndim != 1:
        raise StoreError(
            f"{record.slide_id}: rejected is {rejected.shape} and rejected_reason {reasons.shape}, "
            "expected (R, 2) and (R,)."
        )
    unknown = sorted(set(reasons.tolist()) - set(REASONS))
    if unknown:
        raise StoreError(f"{record.slide_id}: rejected_reason {unknown[0]} is none of {sorted(REASONS)}.")
    return rejected, reasons


def features_digest(features: np.ndarray) -> str:
    """SHA-256 (hex) of the feature bytes, row by row, little-endian."""
    little = np.ascontiguousarray(features, dtype=features.dtype.newbyteorder("<"))
    return hashlib.sha256(little.view(np.uint8).reshape(-1).data).hexdigest()


def record_digest(record: SlideRecord, attributes: Mapping[str, Scalar]) -> str:
    """SHA-256 (hex) over every part of the record but the features, which enter by their own digest.

    Args:
        record: the record as stored.
        attributes: its attributes as stored, with ``features_sha256``; ``record_sha256`` is left out.
    """
    named = {key: value for key, value in attributes.items() if key != "record_sha256"}
    digest = hashlib.sha256(canonical_json([named, dict(record.coords_attributes)]).encode("utf-8"))
    arrays = {
        "coords": record.coords,
        "tissue": record.tissue,
        "mask": record.mask,
        "source_row": record.source_row,
        "thumbnail": None if record.thumbnail is None else np.frombuffer(record.thumbnail, np.uint8),
    }
    if record.rejected is not None:
        # Only where they are: records that know of no rejected tiles have the digest they always had.
        arrays |= {"rejected": record.rejected, "rejected_reason": record.rejected_reason}
    for name, array in arrays.items():
        if array is None:
            digest.update(f"{name}:none;".encode())
            continue
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name}:{little.dtype.str}{little.shape};".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
