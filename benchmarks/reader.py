"""Speed of the tile reader against OpenSlide's own ``read_region``, tile by tile.

    python benchmarks/reader.py [--side 20480] [--rounds 3] [--threads 1] [--texture FOLDER]

The slide is made here: a JPEG-tiled pyramid (256-px tiles, 4:2:0, quality 75) of 20,480 × 20,480 pixels, of real glioma
tissue (``$MMSURV_TEST_DATA/tiles/glioma_*.png``, flipped and turned at random) where it is at hand, else painted.
That is 0.28 bytes a pixel; the fuller half of the tiles of CMU-1-Small-Region.svs, a real scanner's, has 0.30. Every
part is read from the page cache by the same number of threads and no tile is encoded.

    all     every tile of 224 px at 0.5 µm on a slide of 0.5 µm
    sample  the first 2000 of them in rank order
    fine    every tile of 224 px at 0.5 µm on a slide of 0.25 µm (448 px, resampled by the same filter on both sides)

    ours    the reader as a job opens it, with its comparison with OpenSlide, to the last batch
    loop    one ``OpenSlide.read_region`` and ``convert("RGB")`` per tile, in sample order; ``loop_rows``: row by row
    decode  bare JPEG decoding of the file tiles touched, in file order

The last line is one JSON object. ``ratio`` is tiles/s of ours ÷ loop in ``all``, medians over rounds that take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import tifffile
from machine import cpu_name
from measure import seconds
from PIL import Image

from mmsurv import provenance
from mmsurv.store import rank_order
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry, tile_positions
from mmsurv_extract.reader import open_reader
from mmsurv_extract.reader.codec import decoder
from mmsurv_extract.tile import resample

TARGETS = {"ratio": 6.0, "sample_ratio": 3.0, "decode_share": 0.5}
TILE_PX, TILE_MPP = 224, 0.5
FILE_TILE = 256
SAMPLE = 2000


@dataclass(frozen=True)
class Case:
    name: str
    path: Path
    geometry: Geometry
    coords: np.ndarray
    """In rank order."""


def textures(folder: Path | None) -> tuple[list[np.ndarray], str]:
    """Square pieces of tissue of one size, and what they are."""
    files = sorted(folder.glob("glioma_*.png")) if folder else []
    if files:
        return [np.asarray(Image.open(file).convert("RGB")) for file in files], "real glioma tissue"
    from mmsurv.demo.painter import Morphology, paint

    pieces = [paint(Morphology(), np.random.default_rng(i), height=1024, width=1024) for i in range(3)]
    return pieces, "painted tissue"


def write_slide(path: Path, pieces: list[np.ndarray], side: int, mpp: float) -> None:
    """A pyramid of pieces placed, flipped and turned at random: full resolution, and a sixteenth for an overview."""
    rng = np.random.default_rng(0)
    size = len(pieces[0])
    across = -(-side // size)
    choice = rng.integers(0, len(pieces) * 8, (across, across))
    turned = [np.rot90(piece[:, ::flip], turn) for piece in pieces for flip in (1, -1) for turn in range(4)]
    options = {
        "tile": (FILE_TILE, FILE_TILE),
        "compression": "jpeg",
        "compressionargs": {"level": 75},
        "photometric": "rgb",
        "subsampling": (2, 2),
        "resolutionunit": "CENTIMETER",
        "dtype": np.uint8,
    }

    def blocks() -> Iterator[np.ndarray]:
        for top in range(0, side, FILE_TILE):
            for left in range(0, side, FILE_TILE):
                piece = turned[choice[top // size, left // size]]
                row, column = top % size, left % size
                yield np.ascontiguousarray(piece[row : row + FILE_TILE, column : column + FILE_TILE])

    small = [np.asarray(Image.fromarray(np.ascontiguousarray(piece)).reduce(16)) for piece in turned]
    overview = np.concatenate([np.concatenate([small[i] for i in row], axis=1) for row in choice], axis=0)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        per_cm = 1e4 / mpp
        file.write(blocks(), shape=(side, side, 3), resolution=(per_cm, per_cm), **options)
        file.write(
            overview[: side // 16, : side // 16], subfiletype=1, resolution=(per_cm / 16, per_cm / 16), **options
        )


def make_case(name: str, path: Path, mpp: float, limit: int | None = None) -> Case:
    with openslide.OpenSlide(path) as slide:
        geometry = tile_geometry(tile_px=TILE_PX, tile_mpp=TILE_MPP, mpp=mpp, level_downsamples=slide.level_downsamples)
        coords = tile_positions(*slide.dimensions, geometry.side_level0)
    return Case(name, path, geometry, coords[rank_order(path.stem, coords, 0)][:limit])


def ours(case: Case, threads: int) -> str:
    source = SlideSource(case.path.stem, case.path)
    with open_reader(source, case.geometry, tile_px=TILE_PX, workers=threads, sample=case.coords) as reader:
        n_tiles = sum(len(batch.rows) for batch in reader.batches(case.coords, batch_size=32))
        assert n_tiles == len(case.coords), (n_tiles, len(case.coords))
        return reader.name


def loop(case: Case, coords: np.ndarray, threads: int) -> None:
    """Each thread has a handle and every n-th tile."""

    def read(start: int) -> None:
        side = case.geometry.side_level
        with openslide.OpenSlide(case.path) as slide:
            for x, y in coords[start::threads].tolist():
                region = slide.read_region((x, y), case.geometry.level, (int(side), int(side))).convert("RGB")
                resample(region, side, TILE_PX)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))


def decode(case: Case, threads: int) -> int:
    """Decode the file tiles that the tiles touch, as our reader does; how many there are."""
    with tifffile.TiffFile(case.path) as file:
        page = file.pages[0]
        offsets, sizes, columns = page.dataoffsets, page.databytecounts, page.chunked[1]
        found = decoder(page)
    assert found is not None
    side = int(case.geometry.side_level0)
    first, last = case.coords // FILE_TILE, (case.coords + side - 1) // FILE_TILE
    touched = sorted(
        {
            int(row * columns + column)
            for (x0, y0), (x1, y1) in zip(first, last, strict=True)
            for row in range(y0, y1 + 1)
            for column in range(x0, x1 + 1)
        }
    )
    descriptor = os.open(case.path, os.O_RDONLY)

    def read(part: list[int]) -> None:
        out = np.empty((FILE_TILE, FILE_TILE, 3), np.uint8)
        for index in part:
            found[1](os.pread(descriptor, sizes[index], offsets[index]), out)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, [touched[i::threads] for i in range(threads)]))
    os.close(descriptor)
    return len(touched)


def measure(case: Case, rounds: int, threads: int) -> dict[str, float]:
    rows = case.coords[np.lexsort((case.coords[:, 0], case.coords[:, 1]))]
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(case, threads),
        "loop": lambda: loop(case, case.coords, threads),
        "loop_rows": lambda: loop(case, rows, threads),
        "decode": lambda: decode(case, threads),
    }
    reader = ours(case, threads)  # also fills the page cache
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(seconds(side))
    found = {name: len(case.coords) / statistics.median(taken) for name, taken in times.items()}
    print(f"{case.name}: {len(case.coords)} tiles, {decode(case, threads)} file tiles; {reader}")
    print("  tiles/s  " + "  ".join(f"{name} {rate:.0f}" for name, rate in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=20480, help="of the slide, in pixels; a multiple of 256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    data = os.environ.get("MMSURV_TEST_DATA")
    parser.add_argument("--texture", type=Path, default=Path(data) / "tiles" if data else None)
    given = parser.parse_args()
    pieces, texture = textures(given.texture)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, mpp in ((folder / "20x.tiff", 0.5), (folder / "40x.tiff", 0.25)):
            write_slide(path, pieces, given.side, mpp)
        cases = [
            make_case("all", folder / "20x.tiff", 0.5),
            make_case("sample", folder / "20x.tiff", 0.5, SAMPLE),
            make_case("fine", folder / "40x.tiff", 0.25),
        ]
        rates = {case.name: measure(case, given.rounds, given.threads) for case in cases}
    share = {
        case: {side: round(found["ours"] / found[side], 2) for side in ("loop", "loop_rows", "decode")}
        for case, found in rates.items()
    }
    result = {
        "benchmark": "reader",
        "ratio": share["all"]["loop"],
        "sample_ratio": share["sample"]["loop"],
        "decode_share": share["all"]["decode"],
        "target": TARGETS,
        "met": share["all"]["loop"] >= TARGETS["ratio"]
        and share["sample"]["loop"] >= TARGETS["sample_ratio"]
        and share["all"]["decode"] >= TARGETS["decode_share"],
        "ours_over": share,
        "tiles_per_second": {
            case: {side: round(rate) for side, rate in found.items()} for case, found in rates.items()
        },
        "slide": f"{given.side} × {given.side}, 256-px JPEG tiles of {texture}",
        "threads": given.threads,
        "rounds": given.rounds,
        "cpu": cpu_name(),
        "versions": provenance.versions(["openslide-python", "openslide-bin", "tifffile", "simplejpeg", "pillow"]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
