"""All that is known of a slide before its tiles are read: resolution, mask, and which tiles hold tissue.

Owns the steps from an open slide to the list of tiles in rank order; how many of them are encoded is the job's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from mmsurv.errors import MppError, NoTissueError
from mmsurv.store import check_slide_id, rank_order
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry, tile_positions, tissue_fractions
from mmsurv_extract.mask import tissue_mask
from mmsurv_extract.overview import overview_downsample, read_overview, thumbnail
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.resolution import MppOptions, Resolution, resolve_mpp
from mmsurv_extract.slide import Slide

MAX_UPSAMPLING = 1.5
"""A slide this much coarser than the recipe's tiles has not the detail they are meant to show."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a slide is, known as soon as it is open."""

    source: SlideSource
    digest: str
    digest_kind: str
    width: int
    height: int
    resolution: Resolution
    reader: str
    """What decodes its pixels, with the version."""


@dataclass(frozen=True, kw_only=True)
class PreparedSlide:
    """A slide and the tiles that can be encoded."""

    identity: Identity
    geometry: Geometry
    coords: np.ndarray
    """(N, 2) int64 level-0 (x, y) of all tiles with enough tissue, in rank order."""
    tissue: np.ndarray
    """(N,) float32 tissue fraction."""
    n_tissue_tiles: int
    """Tiles with enough tissue; a job encodes the first of them."""
    mask: np.ndarray
    mask_downsample: int
    thumbnail: bytes
    thumbnail_downsample: float

    @property
    def slide_id(self) -> str:
        return self.identity.source.slide_id


def identify(slide: Slide, options: MppOptions) -> Identity:
    """A slide's digest, size and resolution.

    Raises:
        BadSlideIdError: its id cannot be a file name.
        MppError: no resolution, or an absurd one.
    """
    check_slide_id(slide.source.slide_id)
    resolution = resolve_mpp(slide.properties, options, name=str(slide.source.path))
    digest, kind = slide.digest()
    return Identity(
        source=slide.source,
        digest=digest,
        digest_kind=kind,
        width=slide.width,
        height=slide.height,
        resolution=resolution,
        reader=slide.reader,
    )


def prepare(
    slide: Slide, identity: Identity, recipe: ExtractRecipe, stop: threading.Event | None = None
) -> PreparedSlide:
    """Find the tissue of a slide and put its tiles in rank order, all of them.

    The order depends on the recipe, the slide's id and its pixels only.

    Raises:
        MppError: the slide is much coarser than the recipe's tiles.
        NoTissueError: nothing to encode.
        UnreadableSlideError: the overview could not be read.
        JobStopped: ``stop`` was set.
    """
    mpp, tiles = identity.resolution.mpp, recipe.tiles
    _require_fine_enough(identity, recipe)
    geometry = tile_geometry(tile_px=tiles.px, tile_mpp=tiles.mpp, mpp=mpp, level_downsamples=slide.level_downsamples)
    downsample = overview_downsample(
        slide.width, slide.height, mpp=mpp, target_mpp=recipe.mask.mpp, max_px=recipe.mask.max_px
    )
    overview = read_overview(slide, downsample, stop)
    mask = tissue_mask(overview.rgb, recipe.mask)
    positions = tile_positions(slide.width, slide.height, geometry.side_level0)
    fractions = tissue_fractions(mask, positions, geometry.side_level0, downsample)
    chosen = np.flatnonzero(fractions >= tiles.min_tissue)
    if not chosen.size:
        raise NoTissueError(_nothing_to_encode(identity, recipe, mask, len(positions), fractions))
    rank = rank_order(identity.source.slide_id, positions[chosen], tiles.seed)
    order = chosen[rank]
    jpeg, jpeg_downsample = thumbnail(overview)
    return PreparedSlide(
        identity=identity,
        geometry=geometry,
        coords=positions[order],
        tissue=fractions[order],
        n_tissue_tiles=int(chosen.size),
        mask=mask,
        mask_downsample=downsample,
        thumbnail=jpeg,
        thumbnail_downsample=jpeg_downsample,
    )


def _require_fine_enough(identity: Identity, recipe: ExtractRecipe) -> None:
    mpp, wanted = identity.resolution.mpp, recipe.tiles.mpp
    if mpp > wanted * MAX_UPSAMPLING:
        raise MppError(
            f"{identity.source.path}: one pixel is {mpp:g} µm ({identity.resolution.source}), the tiles are to have "
            f"{wanted:g} µm, so they would be blown up {mpp / wanted:.1f} times. Encode this slide with --tile-mpp "
            f"{mpp:g} or coarser into a store of its own; if its resolution is wrong, give the truth: --override-mpp."
        )


def _nothing_to_encode(
    identity: Identity, recipe: ExtractRecipe, mask: np.ndarray, n_positions: int, fractions: np.ndarray
) -> str:
    path, tiles = identity.source.path, recipe.tiles
    if not n_positions:
        side = tiles.px * tiles.mpp
        return (
            f"{path}: {identity.width} × {identity.height} pixels of {identity.resolution.mpp:g} µm hold no whole tile "
            f"of {side:g} µm. Check the resolution (--override-mpp UM), or use smaller tiles (--tile-px)."
        )
    if not mask.any():
        return (
            f"{path}: no tissue found: nothing in it is coloured enough (HSV saturation) to be told from glass. "
            "Leave the slide out, or lower mask.min_saturation in the recipe."
        )
    return (
        f"{path}: {mask.mean():.1%} of it is tissue, but no tile holds {tiles.min_tissue:.0%}; the fullest holds "
        f"{fractions.max():.0%}. Lower tiles.min_tissue in the recipe."
    )
