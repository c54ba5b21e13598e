"""What every reader of a slide's tiles must do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from mmsurv.demo.tissue import write_slide
from mmsurv.store.record import UNREADABLE
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry, tile_positions
from mmsurv_extract.reader import TileReader, open_reader
from mmsurv_extract.reader.base import GROUP
from mmsurv_extract.reader.filetiles import FileTileReader
from mmsurv_extract.reader.regions import RegionReader
from mmsurv_extract.stop import JobStopped

PX = 64
WIDTH, HEIGHT = 512, 640
EXACT = Geometry(level=0, side_level0=float(PX), side_level=float(PX))
FRACTIONAL = Geometry(level=0, side_level0=64.13, side_level=64.13)
HALF = Geometry(level=1, side_level0=128.0, side_level=64.0)
DOUBLE = Geometry(level=0, side_level0=128.0, side_level=128.0)
KINDS = {"regions": RegionReader, "file tiles": FileTileReader}

Make = Callable[..., TileReader]


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 220, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return (coarse + rng.integers(0, 20, coarse.shape)).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path, rgb: np.ndarray) -> Path:
    write_slide(tmp_path / "slide.tiff", rgb, mpp=0.5, levels=2, quality=95)
    return tmp_path / "slide.tiff"


@pytest.fixture(params=sorted(KINDS))
def make(request: pytest.FixtureRequest) -> Make:
    """Opens the reader of one kind: ``make(path, geometry, workers=2, inspect=None)``."""

    def make(path: Path, geometry: Geometry = EXACT, *, workers: int = 2, **options: object) -> TileReader:
        sample = tile_positions(WIDTH, HEIGHT, geometry.side_level0) if request.param == "file tiles" else None
        source = SlideSource(path.stem, path)
        reader = open_reader(source, geometry, tile_px=PX, workers=workers, sample=sample, **options)  # type: ignore[arg-type]
        assert type(reader) is KINDS[request.param]
        return reader

    return make


def collect(reader: TileReader, coords: np.ndarray, *, batch_size: int = 8) -> tuple[dict[int, np.ndarray], list[int]]:
    """Tile by row, and the sizes of the batches."""
    with reader:
        batches = list(reader.batches(coords, batch_size=batch_size))
    tiles = {int(row): tile for batch in batches for row, tile in zip(batch.rows, batch.tiles, strict=True)}
    assert sum(len(batch.rows) for batch in batches) == len(tiles), "no tile twice"
    return tiles, [len(batch.rows) for batch in batches]


def test_a_tile_is_the_pixels_at_its_coordinates(make: Make, path: Path) -> None:
    coords = tile_positions(WIDTH, HEIGHT, PX)
    tiles, _ = collect(make(path), coords)
    assert len(tiles) == len(coords) == 80
    with openslide.OpenSlide(path) as slide:
        for row, (x, y) in enumerate(coords.tolist()):
            np.testing.assert_array_equal(tiles[row], slide.read_region((x, y), 0, (PX, PX)).convert("RGB"))


def test_a_tile_of_a_lower_level_is_the_pixels_of_that_level(make: Make, path: Path) -> None:
    coords = tile_positions(WIDTH, HEIGHT, 128.0)
    tiles, _ = collect(make(path, HALF), coords)
    with openslide.OpenSlide(path) as slide:
        for row, (x, y) in enumerate(coords.tolist()):
            np.testing.assert_array_equal(tiles[row], slide.read_region((x, y), 1, (PX, PX)).convert("RGB"))


@pytest.mark.parametrize("geometry", [EXACT, FRACTIONAL, HALF, DOUBLE])
def test_all_readers_give_the_same_bytes(path: Path, geometry: Geometry) -> None:
    coords = tile_positions(WIDTH, HEIGHT, geometry.side_level0)
    found = []
    for sample in (None, coords):
        source = SlideSource(path.stem, path)
        found.append(collect(open_reader(source, geometry, tile_px=PX, workers=2, sample=sample), coords)[0])
    assert found[0].keys() == found[1].keys() == set(range(len(coords)))
    for row in found[0]:
        np.testing.assert_array_equal(found[0][row], found[1][row])


def test_a_tile_is_the_same_whichever_others_are_read(make: Make, path: Path) -> None:
    coords = np.random.default_rng(1).permutation(tile_positions(WIDTH, HEIGHT, FRACTIONAL.side_level0))
    everything, _ = collect(make(path, FRACTIONAL), coords)
    few, _ = collect(make(path, FRACTIONAL), coords[:7])
    for row in few:
        np.testing.assert_array_equal(few[row], everything[row])


def test_batches_are_the_same_whatever_the_number_of_threads(make: Make, path: Path) -> None:
    coords = np.random.default_rng(0).permutation(tile_positions(WIDTH, HEIGHT, PX))

    def rows_and_tiles(workers: int) -> list[tuple[list[int], bytes]]:
        with make(path, workers=workers) as reader:
            return [(batch.rows.tolist(), batch.tiles.tobytes()) for batch in reader.batches(coords, batch_size=8)]

    assert rows_and_tiles(1) == rows_and_tiles(4)


@pytest.mark.parametrize(("batch_size", "sizes"), [(7, [7, 7, 7, 7, 2]), (30, [30]), (100, [30]), (1, [1] * 30)])
def test_batches_are_full_but_the_last(make: Make, path: Path, batch_size: int, sizes: list[int]) -> None:
    assert collect(make(path), tile_positions(WIDTH, HEIGHT, PX)[:30], batch_size=batch_size)[1] == sizes


def test_no_tiles_are_no_batches(make: Make, path: Path) -> None:
    assert collect(make(path), np.empty((0, 2), np.int64)) == ({}, [])


@pytest.mark.parametrize("workers", [1, 3])
def test_an_unreadable_tile_is_left_out_with_its_reason(
    make: Make, path: Path, break_tiles: Callable[[Path, list[int]], None], workers: int
) -> None:
    coords = tile_positions(WIDTH, HEIGHT, PX)
    whole, _ = collect(make(path), coords)
    break_tiles(path, [3])  # file tiles of 256 px: column 1, row 1
    reader = make(path, workers=workers)
    tiles, _ = collect(reader, coords)
    lost = {row for row, (x, y) in enumerate(coords.tolist()) if x >= 256 and 256 <= y < 512}
    assert reader.rejected == dict.fromkeys(lost, UNREADABLE)
    assert len(lost) == 16
    assert "slide.tiff" in str(reader.last_error)
    assert set(tiles) == set(whole) - lost
    for row in tiles:
        np.testing.assert_array_equal(tiles[row], whole[row])


@pytest.mark.parametrize("damage", ["ends early", "zeros", "noise", "a few bits"])
def test_damage_within_a_jpeg_stream_is_seen_and_never_filled_with_grey(make: Make, path: Path, damage: str) -> None:
    """Where libjpeg could go on with a warning, filling up with one colour, no reader may."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        begin, size = page.dataoffsets[3], page.databytecounts[3]
    with path.open("r+b") as file:
        file.seek(begin + size // 3)
        rest = size - size // 3
        file.write(
            {
                "ends early": b"\xff\xd9" + bytes(rest - 2),
                "zeros": bytes(rest),
                "noise": np.random.default_rng(0).integers(0, 255, rest, dtype=np.uint8).tobytes(),
                "a few bits": b"\xff\xff\xff",
            }[damage]
        )
    coords = tile_positions(WIDTH, HEIGHT, PX)
    lost = {row for row, (x, y) in enumerate(coords.tolist()) if x >= 256 and 256 <= y < 512}
    reader = make(path)
    if isinstance(reader, RegionReader) and damage in ("zeros", "noise"):
        lost = set()  # OpenSlide does not look beyond the last row, and takes any bits for a picture until then
    tiles, _ = collect(reader, coords)
    assert reader.rejected == dict.fromkeys(lost, UNREADABLE)
    assert set(tiles) == set(range(len(coords))) - lost


def test_a_tile_that_does_not_pass_inspection_is_left_out_with_the_reason_given(make: Make, path: Path) -> None:
    coords = tile_positions(WIDTH, HEIGHT, PX)
    threads: set[str] = set()

    def inspect(tile: np.ndarray) -> int:
        threads.add(threading.current_thread().name)
        return 2 if tile.mean() > 150 else 0

    whole, _ = collect(make(path), coords)
    reader = make(path, inspect=inspect)
    tiles, sizes = collect(reader, coords)
    assert reader.rejected == {row: 2 for row, tile in whole.items() if tile.mean() > 150}
    assert 0 < len(reader.rejected) < len(coords)
    assert set(tiles) == set(whole) - set(reader.rejected)
    assert all(size == 8 for size in sizes[:-1])
    assert all(name.startswith("tile-reader") for name in threads)


def test_reading_again_starts_anew(make: Make, path: Path, break_tiles: Callable[[Path, list[int]], None]) -> None:
    break_tiles(path, [3])
    coords = tile_positions(WIDTH, HEIGHT, PX)
    with make(path) as reader:
        list(reader.batches(coords, batch_size=8))
        assert len(reader.rejected) == 16
        first = [batch.rows.tolist() for batch in reader.batches(coords[:8], batch_size=8)]
        assert reader.rejected == {}
        assert sorted(first[0]) == list(range(8))


def test_a_reader_can_be_stopped(make: Make, path: Path) -> None:
    stop = threading.Event()
    with make(path) as reader:
        batches = reader.batches(tile_positions(WIDTH, HEIGHT, PX), batch_size=4, stop=stop)
        next(batches)
        stop.set()
        with pytest.raises(JobStopped, match=r"^$"):
            list(batches)


def test_a_reader_left_half_way_closes(make: Make, path: Path) -> None:
    with make(path) as reader:
        next(reader.batches(tile_positions(WIDTH, HEIGHT, PX), batch_size=4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tile-reader")]


def test_only_a_bounded_number_of_tiles_is_read_ahead(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tall = rng.integers(60, 220, (8192, 512, 3), dtype=np.uint8)
    write_slide(tmp_path / "tall.tiff", tall, mpp=0.5, levels=1, quality=50)
    coords = tile_positions(512, 8192, PX)
    seen: list[int] = []

    def inspect(tile: np.ndarray) -> int:
        seen.append(1)
        return 0

    reader = make(tmp_path / "tall.tiff", workers=2, inspect=inspect)
    with reader:
        next(reader.batches(coords, batch_size=8))
        reader._pool.shutdown(wait=True)
    super_tile = 2048 // PX * 512 // PX
    assert len(seen) <= (2 + 1 + 1) * (GROUP if isinstance(reader, FileTileReader) else super_tile)
    assert len(seen) < len(coords)


def test_the_reader_says_what_decodes_the_pixels(make: Make, path: Path) -> None:
    with make(path) as reader:
        assert any(word in reader.name for word in ("openslide 4", "imagecodecs"))


@pytest.mark.parametrize(("mpp", "level"), [(0.5, 0), (0.25, 1), (0.26, 0), (0.499, 0)])
def test_a_tile_shows_the_field_of_view_it_should(make: Make, tmp_path: Path, mpp: float, level: int) -> None:
    # A brightness that grows evenly with x and y shows by its range which extent a tile covers.
    ramp = np.add.outer(np.arange(HEIGHT) * 0.15, np.arange(WIDTH) * 0.25) + 20
    path = tmp_path / "ramp.tiff"
    write_slide(path, np.repeat(ramp.astype(np.uint8)[..., None], 3, axis=2), mpp=mpp, levels=2, quality=95)
    geometry = tile_geometry(tile_px=PX, tile_mpp=0.5, mpp=mpp, level_downsamples=(1.0, 2.0))
    assert geometry.level == level
    coords = np.array([[100, 60], [101, 60], [232, 320]])
    tiles, _ = collect(make(path, geometry), coords)
    for row, (x, y) in enumerate(coords):
        middle = 20 + 0.25 * (x + geometry.side_level0 / 2) + 0.15 * (y + geometry.side_level0 / 2)
        # Half a pixel from centre to corner, and half a level lost in the ramp's rounding down.
        assert tiles[row].mean() == pytest.approx(middle - 0.7, abs=0.35)
        across = tiles[row][:, -8:].mean() - tiles[row][:, :8].mean()
        assert across == pytest.approx(0.25 * geometry.side_level0 * (PX - 8) / PX, abs=0.35)
