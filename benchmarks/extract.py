"""Speed of the whole extraction job against the bare encoder on tiles that are decoded already.

    python benchmarks/extract.py [--encoder resnet50] [--tiles 400] [--batch 32] [--rounds 3] [--slides 100]

Theirs is the encoder called on uint8 tiles in memory, batch after batch. Ours is all of ``mmsurv extract`` but
building the encoder, which both sides share: opening the slide, tissue mask, reading and resampling, encoding, and the
commit with its hashes and fsync. The slide is painted tissue in a JPEG-tiled pyramid of 0.499 µm per pixel, so every
tile is resampled, as on a real 20x slide. Both sides encode the same tiles in the same batches with the same threads;
they take turns, and the medians are compared.

Then a job of many slides (16 tiles each) shows whether memory grows: ``memory_growth`` is the peak of the process's
anonymous memory (RssAnon, looked at every 20 ms) in all of them over the peak in the first ten.

The last line is one JSON object; ``ratio`` is tiles/s of the job over tiles/s of the encoder.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import cpu_name
from measure import rss_anon

from mmsurv import provenance
from mmsurv.demo.painter import Morphology, paint
from mmsurv.demo.tissue import write_slide
from mmsurv.store import create_store
from mmsurv_extract.discover import Discovery, find_slides
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder
from mmsurv_extract.job import JobOptions, default_workers
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.progress import Progress
from mmsurv_extract.reader import open_reader
from mmsurv_extract.recipe import ExtractRecipe, fingerprint_table
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.run import run_job
from mmsurv_extract.slide import open_slide

TARGETS = {"ratio": 0.95, "memory_growth": 1.05}
FIRST = 10
"""Slides after which memory should have stopped growing."""
TILES_EACH = 16
MPP = 0.499
TISSUE_SHARE = 0.55
"""Of a painted slide, about."""


class Silent(Progress):
    def say(self, line: str) -> None:
        """Nothing."""


def make_slide(folder: Path, recipe: ExtractRecipe, n_tiles: int) -> PreparedSlide:
    """Paint a slide with at least so many tissue tiles, and prepare it."""
    side = recipe.tiles.px * recipe.tiles.mpp / MPP
    px = math.ceil(side * math.sqrt(n_tiles / TISSUE_SHARE))
    while True:
        path = folder / "painted.tiff"
        write_slide(path, paint(Morphology(), np.random.default_rng(0), height=px, width=px), mpp=MPP)
        with open_slide(find_slides([path]).sources[0]) as slide:
            prepared = prepare(slide, identify(slide, MppOptions()), recipe)
        if len(prepared.coords) >= n_tiles:
            return prepared
        px = math.ceil(px * 1.15)


def decode(prepared: PreparedSlide, recipe: ExtractRecipe, batch: int) -> list[np.ndarray]:
    """The tiles the job will encode, in its batches."""
    with open_reader(
        prepared.identity.source, prepared.geometry, tile_px=recipe.tiles.px, workers=2, sample=prepared.coords
    ) as reader:
        return [found.tiles for found in reader.batches(prepared.coords[: recipe.tiles.max_tiles], batch_size=batch)]


def bare_seconds(encoder: Encoder, batches: list[np.ndarray]) -> float:
    started = time.perf_counter()
    for tiles in batches:
        encoder(tiles)
    return time.perf_counter() - started


def job_seconds(
    encoder: Encoder, discovery: Discovery, store_path: Path, recipe: ExtractRecipe, options: JobOptions
) -> float:
    table = fingerprint_table(recipe, encoder.describe())
    started = time.perf_counter()
    store = create_store(store_path, recipe=table, dim=encoder.dim, dtype=recipe.dtype)
    with Silent(len(discovery.sources)) as progress:
        summary = run_job(discovery, store, recipe, encoder, options, progress=progress, stop=threading.Event())
    taken = time.perf_counter() - started
    assert summary.n_tiles == recipe.tiles.max_tiles, summary
    return taken


class MemoryPeaks(Silent):
    """The peak of RssAnon in the first slides and in all, in bytes."""

    def __init__(self, n_slides: int) -> None:
        super().__init__(n_slides)
        self.first = self.all = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryPeaks:
        self._sampler.start()
        return self

    def close(self) -> None:
        self._over.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            self.all = max(self.all, rss_anon())
            if self.n_ended < FIRST:
                self.first = self.all


def memory_peaks(
    encoder: Encoder, folder: Path, recipe: ExtractRecipe, options: JobOptions, n_slides: int
) -> MemoryPeaks:
    """Run a job of many small slides."""
    slides = folder / "many"
    slides.mkdir()
    px = math.ceil(math.sqrt(2 * TILES_EACH / TISSUE_SHARE) * recipe.tiles.px * recipe.tiles.mpp / MPP)
    for number in range(n_slides):
        rgb = paint(Morphology(), np.random.default_rng(number % 5), height=px, width=px)
        write_slide(slides / f"{number:03}.tiff", rgb, mpp=MPP)
    recipe = replace(recipe, tiles=replace(recipe.tiles, max_tiles=TILES_EACH))
    discovery = find_slides([slides])
    store = create_store(
        folder / "many-store", recipe=fingerprint_table(recipe, encoder.describe()), dim=encoder.dim, dtype=recipe.dtype
    )
    peaks = MemoryPeaks(n_slides)
    with peaks:
        summary = run_job(discovery, store, recipe, encoder, options, progress=peaks, stop=threading.Event())
    assert len(summary.done) == n_slides, summary
    return peaks


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=default_workers("cpu"), help="reading threads")
    parser.add_argument("--slides", type=int, default=100, help="of the job that shows memory")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    torch.set_num_threads(given.threads)
    recipe = ExtractRecipe()
    recipe = replace(recipe, tiles=replace(recipe.tiles, max_tiles=given.tiles))
    encoder = build_encoder(EncoderSettings(name=given.encoder, weights="random"), device="cpu")
    options = JobOptions(batch_size=given.batch, workers=given.workers)
    times: dict[str, list[float]] = {"job": [], "encoder": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = make_slide(folder, recipe, given.tiles)
        discovery = find_slides([prepared.identity.source.path])
        batches = decode(prepared, recipe, given.batch)
        encoder(batches[0])
        for number in range(given.rounds):
            times["encoder"].append(bare_seconds(encoder, batches))
            times["job"].append(job_seconds(encoder, discovery, folder / f"store-{number}", recipe, options))
            print(f"round {number + 1}: encoder {times['encoder'][-1]:.2f} s, whole job {times['job'][-1]:.2f} s")
        peaks = memory_peaks(encoder, folder, recipe, options, given.slides)
    growth = peaks.all / peaks.first
    print(f"memory: peak {peaks.first / 1e6:.0f} MB in {FIRST} slides, {peaks.all / 1e6:.0f} MB in {given.slides}")
    speed = {side: given.tiles / statistics.median(values) for side, values in times.items()}
    ratio = speed["job"] / speed["encoder"]
    result = {
        "benchmark": "extract",
        "ratio": round(ratio, 3),
        "memory_growth": round(growth, 3),
        "target": TARGETS,
        "met": ratio >= TARGETS["ratio"] and growth <= TARGETS["memory_growth"],
        "rss_anon_mb": {f"first {FIRST} slides": peaks.first // 10**6, f"{given.slides} slides": peaks.all // 10**6},
        "tiles_per_second": {side: round(value, 2) for side, value in speed.items()},
        "encoder": given.encoder,
        "weights": encoder.weights_description,
        "tiles": given.tiles,
        "batch": given.batch,
        "rounds": given.rounds,
        "threads": given.threads,
        "workers": given.workers,
        "cpu": cpu_name(),
        "versions": provenance.versions(["torch", "torchvision", "openslide-bin", "h5py", "numpy"]),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
