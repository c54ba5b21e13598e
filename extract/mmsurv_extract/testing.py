"""A job with an encoder one can see through, for tests that are about the job and not about torch.

Owns the encoder and the call. What a tile's features are can be said by looking at the tile, they are the same in any
batch and on any machine, and nothing heavy is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmsurv.store import FeatureStore, create_store
from mmsurv_extract.discover import find_slides
from mmsurv_extract.job import JobOptions, JobSummary, TileEncoder
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.progress import Progress
from mmsurv_extract.recipe import ExtractRecipe, TileSettings, fingerprint_table
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.run import run_job

RECIPE = ExtractRecipe(tiles=TileSettings(px=32, mpp=0.5), mask=MaskSettings(mpp=4))
"""Small tiles and a fine mask, for small slides."""


class MeanColour:
    """Mean and standard deviation of each channel, (B, 6) float32."""

    dim = 6
    device = "cpu"

    def __init__(self) -> None:
        self.n_batches = 0

    def describe(self) -> dict[str, Any]:
        return {"name": "mean-colour", "weights": "random"}

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        self.n_batches += 1
        flat = tiles.reshape(len(tiles), -1, 3).astype(np.float32)
        return np.concatenate([flat.mean(axis=1), flat.std(axis=1)], axis=1)


def see_through_store(path: Path, recipe: ExtractRecipe = RECIPE, *, backend: str = "hdf5") -> FeatureStore:
    """The store at ``path`` of this recipe and :class:`MeanColour`, made if missing."""
    table = fingerprint_table(recipe, MeanColour().describe())
    return create_store(path, recipe=table, dim=MeanColour.dim, dtype=recipe.dtype, backend=backend)


def see_through_job(
    slides: Iterable[Path],
    store: FeatureStore,
    recipe: ExtractRecipe = RECIPE,
    *,
    encoder: TileEncoder | None = None,
    stop: threading.Event | None = None,
    mpp: MppOptions | None = None,
    **options: Any,
) -> JobSummary:
    """Run the job on files and folders; ``options`` are those of :class:`JobOptions`."""
    discovery = find_slides(slides)
    job = JobOptions(mpp=mpp or MppOptions(), **{"workers": 2, **options})
    with Progress(len(discovery.sources) + len(discovery.collisions)) as progress:
        return run_job(
            discovery, store, recipe, encoder or MeanColour(), job, progress=progress, stop=stop or threading.Event()
        )
