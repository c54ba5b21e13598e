"""The field of view of a tile, measured from its pixels on slides whose brightness says where one is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry
from mmsurv_extract.reader import open_reader
from mmsurv_extract.slide import open_slide

PX, TILE_MPP = 224, 0.5
PERIOD = 64
"""Level-0 pixels from one bright stripe to the next."""
HEIGHT = 1280


def stripes(edges: np.ndarray) -> np.ndarray:
    """Brightness of pixels that each cover level-0 from one edge to the next: the mean of a sine wave over that."""
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    return 128 + 100 * np.sinc(width / PERIOD) * np.sin(2 * np.pi * middle / PERIOD)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float, bool], Path]:
    """A slide whose second level is so many times smaller; made once for all tests."""
    folder = tmp_path_factory.mktemp("pyramids")

    def make(downsample: float, tiled: bool) -> Path:
        path = folder / f"{downsample}-{tiled}.tiff"
        if not path.exists():
            write_pyramid(path, LEVELS[downsample], tiled=tiled)
        return path

    return make


def write_pyramid(path: Path, sizes: list[tuple[int, int]], *, tiled: bool) -> None:
    """Levels of these (width, height), each pixel of a level the mean of what it covers of level 0."""
    layout = {"tile": (256, 256)} if tiled else {"rowsperstrip": 64}
    with tifffile.TiffWriter(path) as file:
        for level, (width, height) in enumerate(sizes):
            edges = np.arange(width + 1) * (sizes[0][0] / width)
            grey = np.rint(stripes(edges)).astype(np.uint8)
            pixels = np.broadcast_to(grey[None, :, None], (height, width, 3))
            file.write(
                pixels,
                photometric="rgb",
                compression="zlib",
                subfiletype=1 if level else 0,
                metadata=None,
                **layout,  # type: ignore[arg-type]
            )


def read_tile(path: Path, geometry: Geometry, x: int, y: int) -> np.ndarray:
    corner = np.array([[x, y]])
    with open_reader(SlideSource("a", path), geometry, tile_px=PX, workers=1, sample=corner) as reader:
        (batch,) = reader.batches(corner, batch_size=1)
        return batch.tiles[0]


def measure(tile: np.ndarray, x: int) -> tuple[float, float]:
    """Level-0 width a tile shows, and where its left edge lies, by the stripes: their number and their phase."""
    columns = tile[..., 0].mean(axis=0) - 128
    window = np.hanning(PX)
    # The whole range of what a downsample cut to a whole number could do, then finer around the best.
    per_pixel = np.linspace(1, 8, 7001)
    for _ in range(3):
        waves = np.exp(-2j * np.pi * np.outer(per_pixel, np.arange(PX) + 0.5 - PX / 2) / PERIOD)
        found = waves @ (columns * window)
        best = int(np.argmax(np.abs(found)))
        step = per_pixel[1] - per_pixel[0]
        scale, phase = per_pixel[best], np.angle(found[best])
        per_pixel = np.linspace(scale - step, scale + step, 201)
    middle = (phase + np.pi / 2) / (2 * np.pi) * PERIOD
    expected = x + scale * PX / 2
    middle += round((expected - middle) / PERIOD) * PERIOD
    return float(scale * PX), float(middle - scale * PX / 2)


# Width of level 1 chosen so that the mean of both axes' ratios, which is what OpenSlide calls the downsample, is this.
LEVELS = {
    3.9999: [(19_999, HEIGHT), (5_000, HEIGHT // 4)],
    4.0003: [(20_003, HEIGHT), (5_000, HEIGHT // 4)],
    2.0: [(20_000, HEIGHT), (10_000, HEIGHT // 2)],
    1.9801: [(19_801, 1980), (10_000, 1000)],
}


@pytest.mark.parametrize("tiled", [True, False], ids=["openslide", "tifffile"])
@pytest.mark.parametrize(
    ("mpp", "downsample", "level"),
    [
        (0.125, 3.9999, 1),
        (0.125, 4.0003, 1),
        (0.1252, 3.9999, 1),
        (0.1263, 3.9999, 0),
        (0.25, 3.9999, 0),
        (0.2525, 2.0, 1),
        (0.2525, 1.9801, 1),
        (0.2474, 2.0, 1),
        (0.26, 2.0, 0),
    ],
)
def test_a_tile_shows_its_field_of_view_to_half_a_pixel_of_level_0(
    pyramid: Callable[[float, bool], Path], mpp: float, downsample: float, level: int, tiled: bool
) -> None:
    path = pyramid(downsample, tiled)
    with open_slide(SlideSource("a", path)) as slide:
        assert slide.reader.startswith("openslide" if tiled else "tifffile")
        downsamples = slide.level_downsamples
    assert downsamples[1] == pytest.approx(downsample, abs=1e-4)
    geometry = tile_geometry(tile_px=PX, tile_mpp=TILE_MPP, mpp=mpp, level_downsamples=downsamples)
    assert geometry.level == level
    for x in (20, 3757, 16_360):
        width, left = measure(read_tile(path, geometry, x, 30), x)
        assert width == pytest.approx(PX * TILE_MPP / mpp, abs=0.5)
        # The axes of these levels differ from their mean, by up to 0.0003: that adds up along the slide.
        drift = abs(LEVELS[downsample][0][0] / LEVELS[downsample][1][0] - downsamples[1]) / downsample
        assert left == pytest.approx(x, abs=0.5 + drift * x)


def test_the_measure_would_notice_a_downsample_cut_to_a_whole_number(pyramid: Callable[[float, bool], Path]) -> None:
    path = pyramid(3.9999, True)
    cut = Geometry(level=1, side_level0=896.0, side_level=896 / int(3.9999))
    width, _ = measure(read_tile(path, cut, 20, 10), 20)
    assert width == pytest.approx(896 * 4 / 3, rel=0.01)
