from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_geometry, tile_positions
from mmsurv_extract.reader import TileReader
from mmsurv_extract.slide import open_slide
from mmsurv_extract.stop import JobStopped

PX = 64
EXACT = Geometry(level=0, side_level0=float(PX), side_level=float(PX))


def read_all(
    path: Path, coords: np.ndarray, geometry: Geometry = EXACT, *, workers: int = 2, batch_size: int = 8
) -> tuple[dict[int, np.ndarray], list[list[int]], int]:
    with TileReader(SlideSource(path.stem, path), geometry, tile_px=PX, workers=workers) as reader:
        batches = list(reader.batches(coords, batch_size=batch_size))
        tiles = {int(row): tile for batch in batches for row, tile in zip(batch.rows, batch.tiles, strict=True)}
        return tiles, [batch.rows.tolist() for batch in batches], reader.n_unreadable


def test_a_tile_is_the_pixels_at_its_coordinates(make_slide: Callable[..., Path]) -> None:
    path = make_slide()
    coords = tile_positions(512, 640, PX)
    tiles, _, _ = read_all(path, coords)
    assert len(tiles) == len(coords) == 80
    with open_slide(SlideSource("a", path)) as slide:
        for row in (0, 17, 79):
            x, y = coords[row].tolist()
            np.testing.assert_array_equal(tiles[row], np.asarray(slide.read_region(x, y, 0, PX, PX)))


def test_batches_are_the_same_whatever_the_number_of_threads(make_slide: Callable[..., Path]) -> None:
    path = make_slide()
    coords = np.random.default_rng(0).permutation(tile_positions(512, 640, PX))
    one, order_of_one, _ = read_all(path, coords, workers=1)
    four, order_of_four, _ = read_all(path, coords, workers=4)
    assert order_of_one == order_of_four
    for row in one:
        np.testing.assert_array_equal(one[row], four[row])


def test_batches_are_full_but_the_last(make_slide: Callable[..., Path]) -> None:
    _, order, _ = read_all(make_slide(), tile_positions(512, 640, PX)[:30], batch_size=7)
    assert [len(rows) for rows in order] == [7, 7, 7, 7, 2]


@pytest.mark.parametrize(("mpp", "level"), [(0.5, 0), (0.25, 1), (0.26, 0), (0.499, 0)])
def test_a_tile_shows_the_field_of_view_it_should(make_slide: Callable[..., Path], mpp: float, level: int) -> None:
    # A brightness that grows evenly with x and y shows by its range which extent a tile covers.
    ramp = np.add.outer(np.arange(512) * 0.15, np.arange(512) * 0.25) + 20
    path = make_slide(rgb=np.repeat(ramp.astype(np.uint8)[..., None], 3, axis=2), mpp=mpp, levels=2)
    geometry = tile_geometry(tile_px=PX, tile_mpp=0.5, mpp=mpp, level_downsamples=(1.0, 2.0))
    assert geometry.level == level
    coords = np.array([[100, 60], [101, 60], [232, 320]])
    tiles, _, _ = read_all(path, coords, geometry)
    for row, (x, y) in enumerate(coords):
        middle = 20 + 0.25 * (x + geometry.side_level0 / 2) + 0.15 * (y + geometry.side_level0 / 2)
        # Half a pixel from centre to corner, and half a level lost in the ramp's rounding down.
        assert tiles[row].mean() == pytest.approx(middle - 0.7, abs=0.35)
        across = tiles[row][:, -8:].mean() - tiles[row][:, :8].mean()
        assert across == pytest.approx(0.25 * geometry.side_level0 * (PX - 8) / PX, abs=0.35)


def test_an_unreadable_tile_is_counted_and_left_out(
    make_slide: Callable[..., Path], break_tiles: Callable[[Path, list[int]], None]
) -> None:
    path = make_slide()
    coords = tile_positions(512, 640, PX)
    whole, _, _ = read_all(path, coords)
    break_tiles(path, [3])  # file tiles of 256 px: column 1, row 1
    tiles, _, n_unreadable = read_all(path, coords)
    lost = {row for row, (x, y) in enumerate(coords.tolist()) if x >= 256 and 256 <= y < 512}
    assert n_unreadable == len(lost) == 16
    assert set(tiles) == set(whole) - lost
    for row in tiles:
        np.testing.assert_array_equal(tiles[row], whole[row])


def test_a_slide_most_of_which_is_unreadable_has_failed(
    make_slide: Callable[..., Path], break_tiles: Callable[[Path, list[int]], None]
) -> None:
    path = make_slide()
    break_tiles(path, [0, 1, 2, 3])
    with pytest.raises(UnreadableSlideError, match=r"slide\.tiff: more than half of its 80 tiles cannot be read"):
        read_all(path, tile_positions(512, 640, PX))


def test_a_reader_can_be_stopped(make_slide: Callable[..., Path]) -> None:
    path = make_slide()
    stop = threading.Event()
    with TileReader(SlideSource("a", path), EXACT, tile_px=PX, workers=2) as reader:
        batches = reader.batches(tile_positions(512, 640, PX), batch_size=4, stop=stop)
        next(batches)
        stop.set()
        with pytest.raises(JobStopped, match=r"^$"):
            list(batches)


def test_only_a_bounded_number_of_tiles_is_read_ahead(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide(height=2048, width=1024)
    coords = tile_positions(1024, 2048, PX)
    reads: list[int] = []
    read = TileReader._read_tile
    monkeypatch.setattr(TileReader, "_read_tile", lambda self, s, x, y: (reads.append(1), read(self, s, x, y))[1])
    with TileReader(SlideSource("a", path), EXACT, tile_px=PX, workers=2) as reader:
        next(reader.batches(coords, batch_size=8))
        reader._pool.shutdown(wait=True)
    assert len(reads) <= 8 + 2 * 8 + 2 * 8 < len(coords)
