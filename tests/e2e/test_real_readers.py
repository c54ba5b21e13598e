"""Both readers on real slides: the file's own tiles, decoded directly, are what OpenSlide shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry, tile_positions
from mmsurv_extract.reader import TileReader, open_reader
from mmsurv_extract.reader.filetiles import FileTileReader
from mmsurv_extract.slide import open_slide

PX = 224

CASES = [
    ("CMU-1-Small-Region.svs", 0.499, 0.499, "jpeg"),
    ("CMU-1-Small-Region.svs", 0.499, 0.5, "jpeg"),
    ("CMU-1-Small-Region.svs", 0.25, 0.5, "jpeg"),
    ("CMU-1-wrong-mpp.tiff", 0.499, 0.499, "jpeg"),
    ("TCGA-CR-7395-01A-01-TS1.svs", 0.5, 0.5, "jpeg2000"),
    ("slaid-test.tif", 0.5, 1.0, "lossless"),
]
"""Slide, its µm per pixel (level 0), that of the tiles, and the codec of its tiles."""


def tiles_of(reader: TileReader, coords: np.ndarray) -> dict[int, np.ndarray]:
    with reader:
        batches = list(reader.batches(coords, batch_size=16))
    assert reader.rejected == {}
    return {int(row): tile for batch in batches for row, tile in zip(batch.rows, batch.tiles, strict=True)}


@pytest.mark.parametrize(("name", "mpp", "tile_mpp", "codec"), CASES)
def test_file_tiles_and_regions_are_the_same_bytes(
    shared_data: Path, name: str, mpp: float, tile_mpp: float, codec: str
) -> None:
    source = SlideSource("a", shared_data / "slides" / name)
    with open_slide(source) as slide:
        geometry = tile_geometry(tile_px=PX, tile_mpp=tile_mpp, mpp=mpp, level_downsamples=slide.level_downsamples)
        coords = tile_positions(slide.width, slide.height, geometry.side_level0)
    direct = open_reader(source, geometry, tile_px=PX, workers=2, sample=coords)
    assert isinstance(direct, FileTileReader)
    assert direct.name.endswith(f", {codec}")
    ours, theirs = tiles_of(direct, coords), tiles_of(open_reader(source, geometry, tile_px=PX, workers=2), coords)
    assert ours.keys() == theirs.keys() == set(range(len(coords)))
    for row in ours:
        np.testing.assert_array_equal(ours[row], theirs[row])


def test_a_level_between_whole_downsamples_is_read_by_regions(shared_data: Path) -> None:
    """Level 1 of this slide has a downsample of 2.0005; OpenSlide interpolates between its pixels."""
    source = SlideSource("a", shared_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs")
    with open_slide(source) as slide:
        downsample = slide.level_downsamples[1]
    assert downsample == pytest.approx(2.0005, abs=1e-4)
    geometry = Geometry(level=1, side_level0=PX * downsample, side_level=float(PX))
    coords = np.array([[0, 0], [1000, 1000]])
    with open_reader(source, geometry, tile_px=PX, workers=1, sample=coords) as reader:
        assert reader.name.startswith("openslide")
        assert sum(len(batch.rows) for batch in reader.batches(coords, batch_size=2)) == 2


def test_a_dicom_series_is_read_by_regions(shared_data: Path) -> None:
    source = SlideSource("a", shared_data / "slides" / "CMU-1-Small-Region-dicom")
    geometry = Geometry(level=0, side_level0=224.0, side_level=224.0)
    coords = np.array([[0, 0], [448, 448]])
    with open_reader(source, geometry, tile_px=PX, workers=1, sample=coords) as reader:
        assert reader.name.startswith("openslide")
        assert sum(len(batch.rows) for batch in reader.batches(coords, batch_size=2)) == 2
