"""What a slide's record says besides its features.

Owns the names and values of a record's attributes, as docs/format.md lists them.
"""

from __future__ import annotations

import numpy as np

from mmsurv.store import SlideRecord
from mmsurv_extract.prepare import PreparedSlide
from mmsurv_extract.recipe import ExtractRecipe


def make_record(prepared: PreparedSlide, features: np.ndarray, read: np.ndarray, recipe: ExtractRecipe) -> SlideRecord:
    """The slide's record.

    Args:
        prepared: the slide.
        features: (N, D), a row for each of the prepared tiles.
        read: (N,) bool, False for a tile that could not be read; its row is left out.
        recipe: what it was made by.
    """
    return SlideRecord(
        slide_id=prepared.slide_id,
        features=features[read],
        coords=prepared.coords[read].astype(np.int32),
        tissue=prepared.tissue[read],
        attributes=_facts(prepared, recipe, n_unreadable=int(np.count_nonzero(~read))),
        coords_attributes=_as_trident(prepared, recipe),
        thumbnail=prepared.thumbnail,
        mask=prepared.mask.astype(np.uint8),
    )


def _facts(prepared: PreparedSlide, recipe: ExtractRecipe, *, n_unreadable: int) -> dict[str, str | int | float]:
    identity, tiles = prepared.identity, recipe.tiles
    return {
        "source": identity.source.path.name or identity.source.slide_id,
        "source_digest": identity.digest,
        "source_digest_kind": identity.digest_kind,
        "level0_width": identity.width,
        "level0_height": identity.height,
        "mpp": identity.resolution.mpp,
        "mpp_source": identity.resolution.source,
        "tile_px": tiles.px,
        "tile_mpp": tiles.mpp,
        "tile_side_level0": prepared.geometry.side_level0,
        "n_tissue_tiles": prepared.n_tissue_tiles,
        "n_unreadable": n_unreadable,
        "sample_seed": tiles.seed,
        "thumbnail_downsample": prepared.thumbnail_downsample,
        "mask_downsample": prepared.mask_downsample,
        "reader": identity.reader,
    }


def _as_trident(prepared: PreparedSlide, recipe: ExtractRecipe) -> dict[str, str | int | float]:
    """The attributes TRIDENT keeps on coordinates, in its names and its whole numbers."""
    return {
        "patch_size": recipe.tiles.px,
        "patch_size_level0": round(prepared.geometry.side_level0),
        "level0_magnification": round(10 / prepared.identity.resolution.mpp),
        "target_magnification": round(10 / recipe.tiles.mpp),
        "overlap": 0,
        "name": prepared.slide_id,
        "level0_width": prepared.identity.width,
        "level0_height": prepared.identity.height,
    }
