"""The cache of decoded file tiles: each decoded once, none kept longer than it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsurv.store import rank_order
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.grid import Geometry, tile_positions
from mmsurv_extract.reader import filetiles, open_reader
from mmsurv_extract.reader.filetiles import FileTileReader
from mmsurv_extract.reader.tiff import TiffLevel

PX = 96
GEOMETRY = Geometry(level=0, side_level0=float(PX), side_level=float(PX))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each file tile was decoded."""
    count: Counter[int] = Counter()
    read = TiffLevel.read

    def counted(self: TiffLevel, descriptor: int, index: int, out: np.ndarray) -> np.ndarray:
        count[index] += 1
        return read(self, descriptor, index, out)

    monkeypatch.setattr(TiffLevel, "read", counted)
    return count


def read_all(path: Path, coords: np.ndarray, decoded: Counter[int], *, workers: int) -> tuple[FileTileReader, int]:
    """Read everything; the reader, and the most file tiles it held at a time."""
    with open_reader(SlideSource("a", path), GEOMETRY, tile_px=PX, workers=workers, sample=coords[:1]) as reader:
        assert isinstance(reader, FileTileReader)
        decoded.clear()  # of the comparison
        most = n_tiles = 0
        for batch in reader.batches(coords, batch_size=4):
            n_tiles += len(batch.rows)
            most = max(most, len(reader._cache))
        assert n_tiles == len(coords)
        return reader, most


@pytest.mark.parametrize("workers", [1, 4])
def test_each_file_tile_is_decoded_once_and_none_is_left(
    make_slide: Callable[..., Path], decoded: Counter[int], workers: int
) -> None:
    path = make_slide(height=1600, width=1200)
    coords = tile_positions(1200, 1600, PX)
    coords = coords[rank_order("a", coords, 0)]
    reader, most = read_all(path, coords, decoded, workers=workers)
    assert decoded == Counter(range(5 * 6))  # the tiles end with the sixth row
    assert len(reader._cache) == 0
    assert most < 5 * 5, "the rows in work, not the slide"


def test_file_tiles_no_tile_touches_are_not_decoded(make_slide: Callable[..., Path], decoded: Counter[int]) -> None:
    path = make_slide(height=1600, width=1200)
    read_all(path, np.array([[0, 0], [200, 0], [1100, 1500]]), decoded, workers=1)
    assert sorted(decoded) == [0, 1, 4 + 5 * 5, 4 + 6 * 5]


def test_a_wide_slide_is_read_in_strips_so_that_the_cache_stays_small(
    make_slide: Callable[..., Path], decoded: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide(height=1024, width=4096, levels=1)
    coords = tile_positions(4096, 1024, PX)
    _, whole_rows = read_all(path, coords, decoded, workers=1)
    monkeypatch.setattr(filetiles, "CACHE_BYTES", 3 * 4 * 256 * 256 * 3)
    _, most = read_all(path, coords, decoded, workers=1)
    assert most <= 3 * 5 < whole_rows
    again = [index % 16 for index, times in decoded.items() if times > 1]
    assert set(again) <= {4, 8, 12}, "only where two strips meet"


def test_a_file_cut_short_loses_the_tiles_that_are_gone_and_no_others(make_slide: Callable[..., Path]) -> None:
    import tifffile

    path = make_slide(height=1024, width=512, tissue=(0, 0, 1024, 512), levels=1)
    coords = tile_positions(512, 1024, 64)
    geometry = Geometry(level=0, side_level0=64.0, side_level=64.0)
    source = SlideSource("a", path)
    with open_reader(source, geometry, tile_px=64, workers=2, sample=coords) as reader:
        whole = {int(r): t for b in reader.batches(coords, batch_size=8) for r, t in zip(b.rows, b.tiles, strict=True)}
    with tifffile.TiffFile(path) as file:
        cut = file.pages[0].dataoffsets[4] + 10
    with open_reader(source, geometry, tile_px=64, workers=2, sample=coords[:1]) as reader:
        with path.open("r+b") as file:
            file.truncate(cut)
        left = {int(r): t for b in reader.batches(coords, batch_size=8) for r, t in zip(b.rows, b.tiles, strict=True)}
        assert "is cut short, 0 of" in str(reader.last_error)
        assert set(reader.rejected) == {row for row, (_, y) in enumerate(coords.tolist()) if y >= 512}
    assert set(left) == set(whole) - set(reader.rejected)
    for row in left:
        np.testing.assert_array_equal(left[row], whole[row])
