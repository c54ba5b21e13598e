"""Whether a record in the store may stand for the slide at hand.

Owns that judgement. A name alone is no proof: another file may have it, or another resolution may be meant now.
"""

from __future__ import annotations

import logging
import math

from mmsurv.errors import MppError, StoreError
from mmsurv.store import FeatureStore
from mmsurv_extract.prepare import Identity

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
    remedy = f"To encode it anew, delete {store.record_path(slide_id)}; to keep both, use a new store."
    if attributes.get("source_digest_kind") == identity.digest_kind:
        theirs = attributes.get("source_digest")
        if theirs != identity.digest:
            raise StoreError(
                f"{path}: {store.path} has a record of {slide_id} made from another file "
                f"({attributes.get('source')}, digest {str(theirs)[:12]}…; this one is {identity.digest[:12]}…). "
                f"{remedy}"
            )
    mpp = attributes.get("mpp")
    if isinstance(mpp, float) and not math.isclose(mpp, identity.resolution.mpp, rel_tol=1e-6):
        raise MppError(
            f"{path}: its record in {store.path} was made at {mpp:g} µm per pixel ({attributes.get('mpp_source')}), "
            f"now it is {identity.resolution.mpp:g} ({identity.resolution.source}). {remedy}"
        )


def warn_if_smaller(store: FeatureStore, slide_id: str, max_tiles: int) -> None:
    """Warn when a record holds fewer tiles than are asked for now and the slide has more."""
    attributes = store.attributes(slide_id)
    available = attributes.get("n_tissue_tiles")
    if not isinstance(available, int):
        return
    held = store.n_tiles(slide_id) + int(attributes.get("n_unreadable", 0))
    wanted = min(max_tiles, available) if max_tiles else available
    if held < wanted:
        logger.warning(
            "%s: its record holds %d tiles; %d are asked for, the slide has %d. It is kept; delete %s to encode more.",
            slide_id, held, wanted, available, store.record_path(slide_id),
        )  # fmt: skip
