"""All that is known of a slide before its tiles are read: resolution, mask, and which tiles hold tissue.

Owns the steps from an open slide to the list of tiles in rank order; how many of them are encoded is the job's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from mmsurv.errors import MppError, NoTissueError
from mmsurv.store import check_slide_id, rank_order
from mmsurv.store.record import INK, TISSUE
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry, tile_positions, tissue_fractions
from mmsurv_extract.mask import classify
from mmsurv_extract.overview import overview_downsample, read_overview, thumbnail
from mmsurv_extract.patches import PatchFolder
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
    """(H, W) uint8, codes of :data:`mmsurv.store.record.MASK_CODES`."""
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
    _require_fine_enough(slide, identity, recipe)
    geometry, positions = _layout(slide, identity, recipe)
    downsample = overview_downsample(
        slide.width, slide.height, mpp=mpp, target_mpp=recipe.mask.mpp, max_px=recipe.mask.max_px
    )
    overview = read_overview(slide, downsample, stop)
    mask = classify(overview.rgb, recipe.mask)
    fractions = _tissue(slide, mask == TISSUE, positions, geometry.side_level0, downsample)
    inked = tissue_fractions(mask == INK, positions, geometry.side_level0, downsample) > recipe.mask.max_ink
    enough = (fractions >= tiles.min_tissue) & ~inked
    if isinstance(slide, PatchFolder):
        # Its patch could not be shown to the mask: a candidate, so that the record says it is unreadable.
        enough[sorted(slide.unreadable)] = True
    chosen = np.flatnonzero(enough)
    if not chosen.size:
        raise NoTissueError(_nothing_to_encode(identity, recipe, mask, fractions))
    order = chosen[rank_order(identity.source.slide_id, positions[chosen], tiles.seed)]
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


def _layout(slide: Slide, identity: Identity, recipe: ExtractRecipe) -> tuple[Geometry, np.ndarray]:
    """How a tile lies on the slide, and all places one can be: a grid, or those of its patches."""
    px, tile_mpp, mpp = recipe.tiles.px, recipe.tiles.mpp, identity.resolution.mpp
    if isinstance(slide, PatchFolder):
        return slide.geometry(tile_px=px, tile_mpp=tile_mpp, mpp=mpp), slide.locations.coords
    geometry = tile_geometry(tile_px=px, tile_mpp=tile_mpp, mpp=mpp, level_downsamples=slide.level_downsamples)
    return geometry, tile_positions(slide.width, slide.height, geometry.side_level0)


def _tissue(slide: Slide, mask: np.ndarray, positions: np.ndarray, side: float, downsample: int) -> np.ndarray:
    """(T,) float32, the share of tissue in each tile: as loc.txt has it, else by the mask."""
    if isinstance(slide, PatchFolder) and slide.locations.tissue is not None:
        return slide.locations.tissue
    return tissue_fractions(mask, positions, side, downsample)


def _require_fine_enough(slide: Slide, identity: Identity, recipe: ExtractRecipe) -> None:
    mpp, wanted = identity.resolution.mpp, recipe.tiles.mpp
    if isinstance(slide, PatchFolder):
        mpp = slide.resolution(mpp)
    if mpp > wanted * MAX_UPSAMPLING:
        raise MppError(
            f"{identity.source.path}: one pixel is {mpp:g} µm ({identity.resolution.source}), the tiles are to have "
            f"{wanted:g} µm, so they would be blown up {mpp / wanted:.1f} times. Encode this slide with --tile-mpp "
            f"{mpp:g} or coarser into a store of its own; if its resolution is wrong, give the truth: --override-mpp."
        )


def _nothing_to_encode(identity: Identity, recipe: ExtractRecipe, mask: np.ndarray, fractions: np.ndarray) -> str:
    path, tiles = identity.source.path, recipe.tiles
    if not len(fractions):
        side = tiles.px * tiles.mpp
        return (
            f"{path}: {identity.width} × {identity.height} pixels of {identity.resolution.mpp:g} µm hold no whole tile "
            f"of {side:g} µm. Check the resolution (--override-mpp UM), or use smaller tiles (--tile-px)."
        )
    tissue = mask == TISSUE
    if not tissue.any():
        return (
            f"{path}: no tissue found: nothing in it is coloured enough (HSV saturation) to be told from glass. "
            "Leave the slide out, or lower mask.min_saturation in the recipe."
        )
    if fractions.max() >= tiles.min_tissue:
        return (
            f"{path}: every tile with tissue is covered with pen ink by more than {recipe.mask.max_ink:.0%}. Leave the "
            "slide out, or raise mask.max_ink in the recipe."
        )
    return (
        f"{path}: {tissue.mean():.1%} of it is tissue, but no tile holds {tiles.min_tissue:.0%}; the fullest holds "
        f"{fractions.max():.0%}. Lower tiles.min_tissue in the recipe."
    )
