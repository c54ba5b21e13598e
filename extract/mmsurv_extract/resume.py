"""Whether a record in the store may stand for the slide at hand, and whether it is to be extended.

Owns that judgement. A name alone is no proof: another file may have it, or another resolution may be meant now.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from mmsurv.errors import CorruptRecordError, MppError, StoreError
from mmsurv.store import FeatureStore, SlideRecord
from mmsurv.store.extend import KEPT, drawn
from mmsurv.store.record import REASONS
from mmsurv_extract.draw import Draw
from mmsurv_extract.prepare import Identity, PreparedSlide

logger = logging.getLogger("mmsurv")


def require_same_slide(store: FeatureStore, identity: Identity) -> None:
    """Check that a slide's record was made from this file, at this resolution.

    Facts the record does not have (an imported one may not) are not held against it.

    Raises:
        StoreError: the record was made from another file.
        MppError: the record was made at another resolution than the slide or the options now say.
    """
    slide_id, path = identity.source.slide_id, identity.source.path
    attributes = store.attributes(slide_id)
    if attributes.get("source_digest_kind") == identity.digest_kind:
        theirs = attributes.get("source_digest")
        if theirs != identity.digest:
            raise StoreError(
                f"{path}: {store.path} has a record of {slide_id} made from another file "
                f"({attributes.get('source')}, digest {str(theirs)[:12]}…; this one is {identity.digest[:12]}…). "
                f"{_remedy(store, slide_id)}"
            )
    mpp = attributes.get("mpp")
    if isinstance(mpp, float) and not math.isclose(mpp, identity.resolution.mpp, rel_tol=1e-6):
        raise MppError(
            f"{path}: its record in {store.path} was made at {mpp:g} µm per pixel ({attributes.get('mpp_source')}), "
            f"now it is {identity.resolution.mpp:g} ({identity.resolution.source}). {_remedy(store, slide_id)}"
        )


def has_too_few(store: FeatureStore, slide_id: str, max_tiles: int) -> bool:
    """Whether a slide's record holds fewer tiles than are asked for now and the slide has some that were not drawn.

    Args:
        max_tiles: tiles asked for; 0 means all.
    """
    attributes = store.attributes(slide_id)
    available = attributes.get("n_tissue_tiles")
    if not isinstance(available, int):
        return False  # an imported record, which does not say
    held = store.n_tiles(slide_id)
    n_drawn = held + sum(int(attributes.get(f"n_{name.replace(' ', '_')}", 0)) for name in REASONS.values())
    return n_drawn < available and (max_tiles == 0 or held < max_tiles)


def held_draw(store: FeatureStore, prepared: PreparedSlide) -> tuple[SlideRecord, Draw] | None:
    """The record to extend and its draw, after checking that the slide's tiles are those it was drawn from.

    Returns:
        None if the record turns out to be damaged: the slide is then to be encoded from its first tile.

    Raises:
        StoreError: the record's tiles are not the first of this slide's.
    """
    slide_id = prepared.slide_id
    try:
        record = store.read(slide_id)
    except CorruptRecordError as error:
        logger.warning("%s", error)
        return None
    tiles = drawn(record)
    _require_same_tiles(store, prepared, record, tiles)
    codes = tiles[:, 2]
    kept, rejected = np.flatnonzero(codes == KEPT), np.flatnonzero(codes != KEPT)
    found = Draw(kept=kept, features=record.features, rejected=rejected, reasons=codes[rejected].astype(np.uint8))
    return record, found


def _require_same_tiles(store: FeatureStore, prepared: PreparedSlide, record: SlideRecord, tiles: np.ndarray) -> None:
    path, identity = prepared.identity.source.path, prepared.identity
    facts = {
        "level0_width": identity.width,
        "level0_height": identity.height,
        "n_tissue_tiles": prepared.n_tissue_tiles,
        "tile_side_level0": prepared.geometry.side_level0,
    }
    for name, now in facts.items():
        then = record.attributes.get(name)
        if then != now:
            raise StoreError(
                f"{path}: its record in {store.path} cannot be extended: it was made with {name} {then}, now it is "
                f"{now}. {_remedy(store, prepared.slide_id)}"
            )
    now_first = prepared.coords[: len(tiles)]
    differing = np.flatnonzero((tiles[: len(now_first), :2] != now_first).any(axis=1))
    if differing.size or len(now_first) < len(tiles):
        row = int(differing[0]) if differing.size else len(now_first)
        raise StoreError(
            f"{path}: its record in {store.path} cannot be extended: drawn tile {row} is at {tuple(tiles[row, :2])} "
            f"there and is not that tile now. {_remedy(store, prepared.slide_id)}"
        )


def _remedy(store: FeatureStore, slide_id: str) -> str:
    return f"To encode it anew, delete {store.record_path(slide_id)}; to keep both, use a new store."
