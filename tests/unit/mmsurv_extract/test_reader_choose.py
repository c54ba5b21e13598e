"""Which reader a slide gets, on slides of many kinds; and that the fast one gives the slide library's pixels."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_positions
from mmsurv_extract.reader import choose, open_reader
from mmsurv_extract.reader.filetiles import FileTileReader
from mmsurv_extract.reader.regions import RegionReader
from mmsurv_extract.slide import Slide

PX = 64
EXACT = Geometry(level=0, side_level0=float(PX), side_level=float(PX))
APERIO = "Aperio Image Library v11.0.37\r\n300x520 (128x128) Q=70|AppMag = 20|MPP = 0.5"


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """520 × 300: no multiple of a file tile."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 220, (65, 38, 3)).repeat(8, axis=0).repeat(8, axis=1)[:520, :300]
    return (coarse + rng.integers(0, 20, coarse.shape)).astype(np.uint8)


def write(path: Path, rgb: np.ndarray, **options: object) -> Path:
    with tifffile.TiffWriter(path) as file:
        options = {"tile": (128, 128), "metadata": None, **options}
        file.write(rgb, **options)  # type: ignore[arg-type]
    return path


def check_same_as_openslide(path: Path, geometry: Geometry = EXACT, tolerance: int = 0) -> FileTileReader:
    """Every tile of the slide, through the reader it gets, against ``read_region``."""
    with openslide.OpenSlide(path) as slide:
        coords = tile_positions(*slide.dimensions, geometry.side_level0)
        reader = open_reader(SlideSource("a", path), geometry, tile_px=PX, workers=2, sample=coords)
        with reader:
            assert isinstance(reader, FileTileReader)
            n_tiles = 0
            for batch in reader.batches(coords, batch_size=8):
                for row, tile in zip(batch.rows, batch.tiles, strict=True):
                    x, y = coords[row].tolist()
                    region = slide.read_region((x, y), geometry.level, (PX, PX)).convert("RGB")
                    np.testing.assert_allclose(tile.astype(int), np.asarray(region).astype(int), rtol=0, atol=tolerance)
                    n_tiles += 1
        assert n_tiles == len(coords)
    return reader


KINDS: dict[str, dict[str, object]] = {
    "jpeg, YCbCr 4:2:0": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
    "jpeg, YCbCr 4:2:2": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 1)},
    "jpeg, YCbCr 4:4:4": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (1, 1)},
    "raw": {"photometric": "rgb"},
    "lzw": {"compression": "lzw", "photometric": "rgb"},
    "lzw, differences": {"compression": "lzw", "predictor": True, "photometric": "rgb"},
    "deflate, differences": {"compression": "zlib", "predictor": True, "photometric": "rgb"},
    "aperio jpeg 2000, RGB": {"compression": 33005, "photometric": "rgb", "description": APERIO},
    "aperio jpeg 2000, YCbCr": {"compression": 33003, "photometric": "rgb", "description": APERIO},
    "big tiff": {"compression": "jpeg", "photometric": "ycbcr"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_file_tiles_of_every_kind_are_openslides_pixels(tmp_path: Path, rgb: np.ndarray, kind: str) -> None:
    # Green is the sum of two products, and OpenSlide rounds it in another place than libjpeg does.
    tolerance = 1 if kind == "aperio jpeg 2000, YCbCr" else 0
    check_same_as_openslide(write(tmp_path / "slide.svs", rgb, **KINDS[kind]), tolerance=tolerance)


def test_a_level_of_no_whole_downsample_is_left_to_the_slide_library(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "slide.tiff"
    with tifffile.TiffWriter(path) as file:
        for level, size in enumerate([(300, 520), (149, 259)]):
            file.write(
                reduced(rgb, size),
                tile=(128, 128), compression="jpeg", photometric="ycbcr", subfiletype=int(level > 0), metadata=None,
            )  # fmt: skip
    with openslide.OpenSlide(path) as slide:
        downsample = slide.level_downsamples[1]
        assert downsample != round(downsample)
    geometry = Geometry(level=1, side_level0=64 * downsample, side_level=64.0)
    coords = tile_positions(300, 520, geometry.side_level0)
    with open_reader(SlideSource("a", path), geometry, tile_px=PX, workers=1, sample=coords) as reader:
        assert isinstance(reader, RegionReader)
        assert sum(len(batch.rows) for batch in reader.batches(coords, batch_size=8)) == len(coords)


def reduced(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))


def test_where_the_pixels_differ_the_slide_library_reads_and_the_log_says_why(
    tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "slide.tiff", rgb, **KINDS["lzw"])
    paste = FileTileReader._paste

    def one_brighter(self: FileTileReader, *arguments: object) -> np.ndarray:
        pixels = paste(self, *arguments)  # type: ignore[arg-type]
        pixels[-1, -1, 2] += 1
        return pixels

    monkeypatch.setattr(FileTileReader, "_paste", one_brighter)
    coords = tile_positions(300, 520, PX)
    with caplog.at_level(logging.INFO, logger="mmsurv"):
        reader = open_reader(SlideSource("a", path), EXACT, tile_px=PX, workers=1, sample=coords)
    with reader:
        assert isinstance(reader, RegionReader)
    assert "off by 1" in caplog.text


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("grey", {"photometric": "minisblack"}),
        ("planes", {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_other_kinds_of_tiff_are_left_to_the_slide_library(
    tmp_path: Path, rgb: np.ndarray, kind: str, options: dict[str, object]
) -> None:
    pixels = rgb[..., 0] if kind == "grey" else np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
    path = write(tmp_path / "slide.tiff", pixels, **options)
    coords = tile_positions(300, 520, PX)
    with open_reader(SlideSource("a", path), EXACT, tile_px=PX, workers=1, sample=coords) as reader:
        assert isinstance(reader, RegionReader)
        assert sum(len(batch.rows) for batch in reader.batches(coords, batch_size=8)) == len(coords)


def test_a_slide_none_of_whose_compared_tiles_can_be_read_is_left_to_the_slide_library(
    tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "slide.tiff", rgb, **KINDS["lzw"])
    monkeypatch.setattr(choose, "greatest_difference", lambda *_: None)
    coords = tile_positions(300, 520, PX)
    with open_reader(SlideSource("a", path), EXACT, tile_px=PX, workers=1, sample=coords) as reader:
        assert isinstance(reader, RegionReader)


def test_tiles_with_holes_are_left_to_the_slide_library(tmp_path: Path, rgb: np.ndarray) -> None:
    path = write(tmp_path / "slide.tiff", rgb, **KINDS["jpeg, YCbCr 4:2:0"])
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags["TileByteCounts"]
        sizes = list(tag.value)
        sizes[4] = 0
        tag.overwrite(sizes)
    with open_reader(
        SlideSource("a", path), EXACT, tile_px=PX, workers=1, sample=tile_positions(300, 520, PX)
    ) as reader:
        assert isinstance(reader, RegionReader)


def test_comparison_closes_what_it_opened(tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Slide] = []
    real = choose.open_slide

    def watched(source: SlideSource) -> Slide:
        opened.append(real(source))
        return opened[-1]

    monkeypatch.setattr(choose, "open_slide", watched)
    path = write(tmp_path / "slide.tiff", rgb, **KINDS["lzw"])
    with open_reader(SlideSource("a", path), EXACT, tile_px=PX, workers=1, sample=np.array([[0, 0]])):
        (slide,) = opened
        with pytest.raises(Exception, match="closed"):
            slide.read_region(0, 0, 0, 8, 8)
