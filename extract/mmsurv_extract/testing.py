"""A job with an encoder one can see through, for tests that are about the job and not about torch.

Owns the encoder and the call. What a tile's features are can be said by looking at the tile, they are the same in any
batch and on any machine, and nothing heavy is loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmsurv.store import FeatureStore, create_store
from mmsurv_extract.discover import find_slides
from mmsurv_extract.job import JobOptions, JobSummary, TileEncoder
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.progress import Progress
from mmsurv_extract.recipe import ExtractRecipe, TileSettings, fingerprint_table
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.run import run_job
from mmsurv_extract.stop import StopOnSignal

K = TypeVar("K")

RECIPE = ExtractRecipe(tiles=TileSettings(px=32, mpp=0.5), mask=MaskSettings(mpp=4))
"""Small tiles and a fine mask, for small slides."""


def asking_for(max_tiles: int) -> ExtractRecipe:
    """:data:`RECIPE` with so many tiles per slide; 0 means all."""
    return replace(RECIPE, tiles=replace(RECIPE.tiles, max_tiles=max_tiles))


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

    def encode_stream(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray]]:
        return ((key, self(tiles)) for key, tiles in batches)


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


class Slow(MeanColour):
    """Takes its time over each batch, so that a test can come in between."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds)
        return super().__call__(tiles)


def main(arguments: Sequence[str] | None = None) -> int:
    """The job as a process of its own: ``python -m mmsurv_extract.testing SLIDES... -o STORE``.

    Returns:
        The exit code of ``mmsurv extract``. The summary goes to standard output as JSON.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--tiles", type=int, default=RECIPE.tiles.max_tiles)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--backend", default="hdf5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=0.0, help="per batch")
    given = parser.parse_args(arguments)
    recipe = asking_for(given.tiles)
    with StopOnSignal() as signals:
        summary = see_through_job(
            given.slides,
            see_through_store(given.output, recipe, backend=given.backend),
            recipe,
            encoder=Slow(given.seconds),
            stop=signals.stop,
            batch_size=given.batch_size,
        )
        sys.stdout.write(json.dumps({**summary.to_table(), "device": given.device}) + "\n")
        return signals.exit_code if summary.stopped else int(bool(summary.failed))


if __name__ == "__main__":
    sys.exit(main())
