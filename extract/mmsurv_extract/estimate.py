"""What a job would cost: tiles, time and bytes, without encoding a slide or making a store.

Owns the dry run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsurv.store import FeatureStore, open_store
from mmsurv.store.manifest import FILE_NAME, new_manifest, require_same
from mmsurv_extract.discover import Discovery
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.progress import Progress
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.run import SLIDE_ERRORS, FailedSlide, JobOptions, first_tiles
from mmsurv_extract.slide import open_slide
from mmsurv_extract.stop import stop_if_set

if TYPE_CHECKING:
    from mmsurv_extract.encoder import Encoder

BYTES_PER_TILE_BESIDE_FEATURES = 12
"""Coordinates (2 × int32) and tissue fraction (float32)."""
RECORD_OVERHEAD_BYTES = 8192
"""HDF5's own structures and the attributes, about."""
TIMED_TILES = 16


@dataclass
class Estimate:
    """What the job would do."""

    n_slides: int = 0
    """Slides to encode."""
    n_tiles: int = 0
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
    encoder: Encoder,
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
    itemsize = np.dtype(recipe.dtype).itemsize
    for slide_id, paths in discovery.collisions.items():
        found.failed.append(FailedSlide(slide_id, "BadSlideIdError", f"several slides: {', '.join(map(str, paths))}"))
    for source in discovery.sources:
        stop_if_set(stop)
        try:
            with open_slide(source) as slide:
                identity = identify(slide, options.mpp)
                if store is not None and source.slide_id in store:
                    found.n_skipped += 1
                    progress.end(source.slide_id, "in the store already")
                    continue
                prepared = first_tiles(prepare(slide, identity, recipe, stop), recipe.tiles.max_tiles)
        except SLIDE_ERRORS as error:
            found.failed.append(FailedSlide(source.slide_id, type(error).__name__, str(error)))
            progress.end(source.slide_id, f"WOULD FAIL, {type(error).__name__}: {error}")
            continue
        found.n_slides += 1
        found.n_tiles += len(prepared.coords)
        found.bytes += _record_bytes(prepared, encoder.dim * itemsize)
        progress.end(source.slide_id, f"{len(prepared.coords)} of {prepared.n_tissue_tiles} tissue tiles")
    if found.n_tiles:
        found.tiles_per_second = _encoder_rate(encoder, min(options.batch_size, TIMED_TILES), recipe.tiles.px)
    return found


def existing_store(path: Path, recipe: Mapping[str, Any], *, dim: int, dtype: str) -> FeatureStore | None:
    """The store at ``path`` if there is one, checked against the recipe; nothing is made.

    Raises:
        RecipeMismatchError: it is of another recipe.
    """
    if not (path / FILE_NAME).is_file():
        return None
    store = open_store(path)
    wanted = new_manifest(backend=store.backend, recipe=recipe, dim=dim, dtype=dtype)
    require_same(store.manifest, wanted, path)
    return store


def _record_bytes(prepared: PreparedSlide, feature_bytes: int) -> int:
    tiles = len(prepared.coords) * (feature_bytes + BYTES_PER_TILE_BESIDE_FEATURES)
    return tiles + prepared.mask.size + len(prepared.thumbnail) + RECORD_OVERHEAD_BYTES


def _encoder_rate(encoder: Encoder, n_tiles: int, px: int) -> float:
    noise = np.random.default_rng(0).integers(0, 256, (n_tiles, px, px, 3), dtype=np.uint8)
    encoder(noise)  # the first call sets up kernels and memory
    started = time.perf_counter()
    encoder(noise)
    return n_tiles / (time.perf_counter() - started)
