"""What a job would cost: tiles, time and bytes, without encoding a slide or making a store.

Owns the dry run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmsurv.store import FeatureStore, open_store
from mmsurv.store.dtypes import numpy_dtype
from mmsurv.store.manifest import FILE_NAME, new_manifest, require_same
from mmsurv_extract.discover import Discovery, SlideSource
from mmsurv_extract.draw import n_wanted
from mmsurv_extract.job import SLIDE_ERRORS, FailedSlide, JobOptions, TileEncoder
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.progress import Progress
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.resume import has_too_few, held_draw, require_same_slide
from mmsurv_extract.slide import open_slide
from mmsurv_extract.stop import stop_if_set

BYTES_PER_TILE_BESIDE_FEATURES = 12
"""Coordinates (2 × int32) and tissue fraction (float32)."""
RECORD_OVERHEAD_BYTES = 8192
"""HDF5's own structures and the attributes, about."""
TIMED_TILES = 16


@dataclass
class Estimate:
    """What the job would do."""

    n_slides: int = 0
    """Slides to encode from their first tile."""
    n_extended: int = 0
    """Slides whose record would get more tiles."""
    n_tiles: int = 0
    """Tiles to encode; more are drawn for those that turn out to be unfit."""
    n_skipped: int = 0
    failed: list[FailedSlide] = field(default_factory=list)
    bytes: int = 0
    tiles_per_second: float = 0.0
    """Of the encoder alone."""

    @property
    def seconds(self) -> float:
        """Time the encoder needs; reading adds a little where it keeps up, more where it does not."""
        return self.n_tiles / self.tiles_per_second if self.n_tiles else 0.0

    def to_table(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "seconds": self.seconds}


def estimate_job(
    discovery: Discovery,
    store: FeatureStore | None,
    recipe: ExtractRecipe,
    encoder: TileEncoder,
    options: JobOptions,
    *,
    progress: Progress,
    stop: threading.Event,
) -> Estimate:
    """Open every slide, count its tiles and time the encoder on one small batch of noise.

    Raises:
        JobStopped: ``stop`` was set.
    """
    found = Estimate()
    feature_bytes = encoder.dim * numpy_dtype(recipe.dtype).itemsize
    for slide_id, paths in discovery.collisions.items():
        found.failed.append(FailedSlide(slide_id, "BadSlideIdError", f"several slides: {', '.join(map(str, paths))}"))
    for source in discovery.sources:
        stop_if_set(stop)
        try:
            outcome = _look_at(source, store, recipe, options, feature_bytes, found, stop)
        except SLIDE_ERRORS as error:
            found.failed.append(FailedSlide(source.slide_id, type(error).__name__, str(error)))
            outcome = f"WOULD FAIL, {type(error).__name__}: {error}"
        progress.end(source.slide_id, outcome)
    if found.n_tiles:
        found.tiles_per_second = _encoder_rate(encoder, min(options.batch_size, TIMED_TILES), recipe.tiles.px)
    return found


def _look_at(
    source: SlideSource,
    store: FeatureStore | None,
    recipe: ExtractRecipe,
    options: JobOptions,
    feature_bytes: int,
    found: Estimate,
    stop: threading.Event,
) -> str:
    """Count one slide into ``found`` and say in a few words what would be done with it."""
    n_held = 0
    with open_slide(source) as slide:
        identity = identify(slide, options.mpp)
        in_store = store is not None and source.slide_id in store
        if store is not None and in_store:
            require_same_slide(store, identity)
            if not has_too_few(store, source.slide_id, recipe.tiles.max_tiles):
                found.n_skipped += 1
                return "in the store already"
        prepared = prepare(slide, identity, recipe, stop)
    n_tiles = n_wanted(recipe.tiles.max_tiles, prepared.n_tissue_tiles)
    if store is not None and in_store and (held := held_draw(store, prepared)):
        n_held = len(held[1].kept)
        found.n_extended += 1
    else:
        found.n_slides += 1
    found.n_tiles += n_tiles - n_held
    found.bytes += _record_bytes(prepared, n_tiles, feature_bytes)
    more = f", of which {n_held} are in the store" if n_held else ""
    return f"{n_tiles} of {prepared.n_tissue_tiles} tissue tiles{more}"


def existing_store(path: Path, recipe: Mapping[str, Any], *, dim: int, dtype: str, backend: str) -> FeatureStore | None:
    """The store at ``path`` if there is one, checked against what is asked for; nothing is made.

    Raises:
        RecipeMismatchError: it is of another recipe or backend.
    """
    if not (path / FILE_NAME).is_file():
        return None
    store = open_store(path)
    wanted = new_manifest(backend=backend, recipe=recipe, dim=dim, dtype=dtype)
    require_same(store.manifest, wanted, path)
    return store


def _record_bytes(prepared: PreparedSlide, n_tiles: int, feature_bytes: int) -> int:
    tiles = n_tiles * (feature_bytes + BYTES_PER_TILE_BESIDE_FEATURES)
    return tiles + prepared.mask.size + len(prepared.thumbnail) + RECORD_OVERHEAD_BYTES


def _encoder_rate(encoder: TileEncoder, n_tiles: int, px: int) -> float:
    noise = np.random.default_rng(0).integers(0, 256, (n_tiles, px, px, 3), dtype=np.uint8)
    encoder(noise)  # the first call sets up kernels and memory
    started = time.perf_counter()
    encoder(noise)
    return n_tiles / (time.perf_counter() - started)
