"""What a slide's record says besides its features.

Owns the names and values of a record's attributes, as docs/format.md lists them.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from mmsurv import provenance
from mmsurv.store import SlideRecord
from mmsurv.store.record import reason_counts
from mmsurv_extract.draw import Draw
from mmsurv_extract.prepare import PreparedSlide
from mmsurv_extract.recipe import ExtractRecipe

LIBRARIES = (
    "mmsurv", "numpy", "torch", "torchvision", "timm", "openslide-python", "openslide-bin", "pillow", "tifffile",
    "imagecodecs", "simplejpeg", "scikit-image", "h5py", "zarr",
)  # fmt: skip
"""What a feature passes through on its way into the record."""


def make_record(
    prepared: PreparedSlide,
    drawn: Draw,
    recipe: ExtractRecipe,
    *,
    reader: str,
    device: str,
    extended: SlideRecord | None = None,
) -> SlideRecord:
    """The slide's record.

    Args:
        prepared: the slide.
        drawn: what came of its tiles.
        recipe: what it was made by.
        reader: what decoded the pixels, with its version.
        device: what the encoder ran on, such as "cpu".
        extended: the record whose rows are the first of this one's.
    """
    kept = drawn.kept
    return SlideRecord(
        slide_id=prepared.slide_id,
        features=drawn.features,
        coords=prepared.coords[kept].astype(np.int32),
        tissue=prepared.tissue[kept],
        attributes={
            **_facts(prepared, recipe),
            **reason_counts(drawn.reasons),
            "reader": reader,
            "made_with": _made_with(device, reader, extended),
        },
        coords_attributes=_as_trident(prepared, recipe),
        thumbnail=prepared.thumbnail,
        mask=prepared.mask.astype(np.uint8),
        rejected=prepared.coords[drawn.rejected].astype(np.int32),
        rejected_reason=drawn.reasons,
    )


def _facts(prepared: PreparedSlide, recipe: ExtractRecipe) -> dict[str, str | int | float]:
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
        "sample_seed": tiles.seed,
        "thumbnail_downsample": prepared.thumbnail_downsample,
        "mask_downsample": prepared.mask_downsample,
    }


@functools.cache
def _versions() -> dict[str, str]:
    return provenance.versions(LIBRARIES)


def _made_with(device: str, reader: str, extended: SlideRecord | None) -> str:
    """JSON list, an entry for each run of rows made by the same: from_row, device, reader, versions."""
    ours: dict[str, Any] = {"device": device, "reader": reader, "versions": _versions()}
    if extended is None:
        return provenance.canonical_json([{"from_row": 0, **ours}])
    entries = json.loads(str(extended.attributes.get("made_with", "[]")))
    if not entries or {key: entries[-1].get(key) for key in ours} != ours:
        entries.append({"from_row": extended.n_tiles, **ours})
    return provenance.canonical_json(entries)


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
