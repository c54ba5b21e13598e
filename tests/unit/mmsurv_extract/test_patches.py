from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmsurv.errors import MppError, NoTissueError, UnreadableSlideError
from mmsurv.store import rank_order
from mmsurv_extract.discover import SlideSource, find_slides
from mmsurv_extract.grid import Geometry
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.overview import read_overview
from mmsurv_extract.patches import PatchFolder, PatchReader, area_sums, overlaps
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.reader import open_reader
from mmsurv_extract.recipe import ExtractRecipe, TileSettings
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.slide import open_slide
from mmsurv_extract.stop import JobStopped
from mmsurv_extract.tile import resample

SIDE = 64
RECIPE = ExtractRecipe(tiles=TileSettings(px=32, mpp=0.5), mask=MaskSettings(mpp=4))
HEADER = "slide_id {}\nid x y patch_level patch_size_read patch_size_output\n"

MakePatches = Callable[..., Path]


@pytest.fixture
def make_patches(tmp_path: Path) -> MakePatches:
    """A folder of 64-px patches of pink tissue, on a grid of 6 × 4 from (128, 64), ids out of order."""

    def make(name: str = "TCGA-1", *, tissue: str = "", px: int = SIDE, named: str | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(0)
        places = [(128 + SIDE * column, 64 + SIDE * row) for row in range(4) for column in range(6)]
        lines = []
        for number, (x, y) in zip(rng.permutation(len(places)).tolist(), places, strict=True):
            lines.append(f"{number} {x} {y} 0 {SIDE} {SIDE}{tissue}\n")
            pixels = np.clip(np.array([190, 110, 160]) + rng.integers(-40, 40, (px, px, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{named or name}_patch_{number}.png")
        (folder / "loc.txt").write_text(HEADER.format(named or name) + "".join(lines))
        return folder

    return make


def opened(folder: Path) -> PatchFolder:
    slide = open_slide(SlideSource(folder.name, folder))
    assert isinstance(slide, PatchFolder)
    return slide


def prepared(folder: Path, recipe: ExtractRecipe = RECIPE, **mpp: float) -> PreparedSlide:
    with opened(folder) as slide:
        return prepare(slide, identify(slide, MppOptions(**mpp or {"fill": 0.25})), recipe)


def read_all(
    folder: Path, coords: np.ndarray, *, workers: int = 2, inspect: Callable[[np.ndarray], int] | None = None
) -> tuple[dict[int, np.ndarray], list[int], dict[int, int]]:
    source, geometry = SlideSource(folder.name, folder), Geometry(level=0, side_level0=SIDE, side_level=SIDE)
    with open_reader(source, geometry, tile_px=32, workers=workers, inspect=inspect) as reader:
        batches = list(reader.batches(coords, batch_size=5))
        tiles = {int(row): tile for batch in batches for row, tile in zip(batch.rows, batch.tiles, strict=True)}
        return tiles, [row for batch in batches for row in batch.rows.tolist()], reader.rejected


def patch_at(folder: Path, corner: tuple[int, int]) -> Path:
    for line in (folder / "loc.txt").read_text().splitlines()[2:]:
        number, x, y = line.split()[:3]
        if (int(x), int(y)) == corner:
            return folder / f"{folder.name}_patch_{number}.png"
    raise AssertionError(corner)


def test_a_folder_with_a_loc_txt_is_one_slide_and_its_patches_are_none(make_patches: MakePatches) -> None:
    folder = make_patches()
    for argument in (folder.parent, folder, folder / "loc.txt"):
        assert find_slides([argument]).sources == [SlideSource("TCGA-1", folder)]


def test_every_patch_is_a_candidate_at_its_level_0_place_in_rank_order(make_patches: MakePatches) -> None:
    found = prepared(make_patches())
    assert len(found.coords) == 24
    assert found.coords.min(axis=0).tolist() == [128, 64]
    np.testing.assert_array_equal(rank_order("TCGA-1", found.coords, 0), np.arange(24))
    assert found.geometry == Geometry(level=0, side_level0=64.0, side_level=64.0)
    assert (found.identity.width, found.identity.height) == (128 + 6 * SIDE, 64 + 4 * SIDE)


def test_the_thumbnail_and_mask_show_the_patches_where_they_were(make_patches: MakePatches) -> None:
    found = prepared(make_patches())
    assert found.mask_downsample == 16
    np.testing.assert_array_equal(np.argwhere(found.mask).min(axis=0), [4, 8])
    assert found.mask[4:, 8:].all()


@pytest.mark.parametrize("px", [64, 32, 16])
@pytest.mark.parametrize("downsample", [1, 7, 16, 50])
def test_the_overview_is_the_mean_of_what_lies_there(make_patches: MakePatches, px: int, downsample: int) -> None:
    with opened(make_patches(px=px)) as slide:
        found = read_overview(slide, downsample).rgb.astype(int)
        high, wide = found.shape[:2]
        whole = slide.read_region(0, 0, 0, wide * downsample, high * downsample)
    cells = np.asarray(whole, float).reshape(high, downsample, wide, downsample, 3)
    np.testing.assert_allclose(found, cells.mean(axis=(1, 3)), atol=0.51)


@given(
    n=st.integers(1, 30), begin=st.integers(0, 100), side=st.integers(1, 60), downsample=st.integers(1, 40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_area_sums_lose_nothing(n: int, begin: int, side: int, downsample: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 2))
    sums, first = area_sums(pixels, begin, side, downsample)
    assert first == begin // downsample
    np.testing.assert_array_equal(sums.sum(axis=0), pixels.sum(axis=0) * side)
    edges = begin + np.arange(n + 1) * Fraction(side, n)
    for k, row in enumerate(sums.tolist()):
        low, high = (first + k) * downsample, (first + k + 1) * downsample
        lengths = [max(Fraction(0), min(high, b) - max(low, a)) for a, b in itertools.pairwise(edges)]
        assert row == [
            n * sum(length * value for length, value in zip(lengths, c, strict=True)) for c in pixels.T.tolist()
        ]
    assert overlaps(begin, side, downsample, len(sums)).sum() == side


def test_tissue_is_what_loc_txt_says_and_too_little_is_left_out(make_patches: MakePatches) -> None:
    folder = make_patches(tissue=" 0.75")
    lines = (folder / "loc.txt").read_text().replace("0.75", "0.2", 1)
    (folder / "loc.txt").write_text(lines)
    found = prepared(folder)
    np.testing.assert_array_equal(found.tissue, np.full(23, 0.75, np.float32))


def test_a_tile_is_the_png_at_its_place_resampled_as_any_tile_is(make_patches: MakePatches) -> None:
    folder = make_patches()
    coords = prepared(folder).coords
    tiles, order, rejected = read_all(folder, coords)
    assert (order, rejected) == (list(range(24)), {})
    for row in (0, 7, 23):
        png = Image.open(patch_at(folder, tuple(coords[row].tolist())))
        np.testing.assert_array_equal(tiles[row], resample(png, 64.0, 32))


def test_a_png_of_the_tiles_own_size_is_not_touched(make_patches: MakePatches) -> None:
    folder = make_patches(px=32)
    coords = prepared(folder).coords
    tiles, _, _ = read_all(folder, coords)
    png = Image.open(patch_at(folder, tuple(coords[3].tolist())))
    np.testing.assert_array_equal(tiles[3], np.asarray(png))


def test_batches_are_the_same_whatever_the_number_of_threads(make_patches: MakePatches) -> None:
    folder = make_patches()
    patch_at(folder, (128, 64)).unlink()
    coords = prepared(folder).coords
    one, four = read_all(folder, coords, workers=1), read_all(folder, coords, workers=4)
    assert one[1:] == four[1:]
    for row in one[0]:
        np.testing.assert_array_equal(one[0][row], four[0][row])


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "not square", "16 bits"])
def test_a_patch_that_cannot_be_read_is_rejected_and_never_white(make_patches: MakePatches, damage: str) -> None:
    folder = make_patches()
    path = patch_at(folder, (192, 128))
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no image")
    elif damage == "not square":
        Image.fromarray(np.zeros((64, 60, 3), np.uint8)).save(path)
    else:
        Image.fromarray(np.zeros((64, 64), np.uint16)).save(path)
    coords = prepared(folder).coords
    assert len(coords) == 24  # drawn and rejected, so that the record says so
    tiles, _, rejected = read_all(folder, coords)
    (row,) = rejected
    assert rejected == {row: 1}
    assert coords[row].tolist() == [192, 128]
    assert set(tiles) == set(range(24)) - {row}


def test_a_region_with_an_unreadable_patch_is_not_painted_white(make_patches: MakePatches) -> None:
    folder = make_patches()
    patch_at(folder, (192, 128)).unlink()
    with opened(folder) as slide:
        slide.read_region(128, 64, 0, 64, 64)
        with pytest.raises(UnreadableSlideError, match=r"TCGA-1_patch_\d+\.png: this patch cannot be read"):
            slide.read_region(150, 100, 0, 64, 64)


def test_what_inspect_says_is_noted_and_the_tile_left_out(make_patches: MakePatches) -> None:
    folder = make_patches()
    coords = prepared(folder).coords
    darkest = int(np.argmin([tile.sum() for tile in read_all(folder, coords)[0].values()]))
    least = int(read_all(folder, coords)[0][darkest].sum())
    tiles, _, rejected = read_all(folder, coords, inspect=lambda tile: 2 if int(tile.sum()) == least else 0)
    assert rejected == {darkest: 2}
    assert darkest not in tiles


def test_no_resolution_is_refused_with_the_option(make_patches: MakePatches) -> None:
    with opened(make_patches()) as slide, pytest.raises(MppError, match=r"TCGA-1: it does not say.*--mpp UM"):
        identify(slide, MppOptions())


@pytest.mark.parametrize(("mpp", "fits"), [(0.25, True), (0.2519, True), (0.2521, False), (0.248, False)])
def test_another_field_of_view_is_refused_beyond_half_a_pixel(
    make_patches: MakePatches, mpp: float, fits: bool
) -> None:
    # 16 µm are 64 pixels of 0.25 µm, 63.5 of 0.25197 and 64.5 of 0.24806.
    folder = make_patches()
    if fits:
        assert len(prepared(folder, fill=mpp).coords) == 24
        return
    with pytest.raises(
        MppError, match=rf"patches are 64 level-0 pixels wide, .* tiles are 16 µm.*--tile-mpp {mpp * 2:.6g}.*0\.25,"
    ):
        prepared(folder, fill=mpp)


def test_patches_saved_coarser_than_the_tiles_are_refused(make_patches: MakePatches) -> None:
    with pytest.raises(MppError, match=r"one pixel is 1 µm.*blown up 2\.0 times"):
        prepared(make_patches(px=16))


def test_the_patches_of_a_renamed_folder_are_found_by_the_name_in_loc_txt(make_patches: MakePatches) -> None:
    assert len(prepared(make_patches("case-7", named="TCGA-1")).coords) == 24


def test_no_name_in_loc_txt_leads_out_of_the_folder(make_patches: MakePatches, tmp_path: Path) -> None:
    folder = make_patches()
    outside = tmp_path / "outside"
    outside.mkdir()
    text = (folder / "loc.txt").read_text()
    for file in folder.glob("*.png"):
        file.rename(outside / file.name)
    (folder / "loc.txt").write_text(text.replace("slide_id TCGA-1", "slide_id ../outside/TCGA-1"))
    with pytest.raises(UnreadableSlideError, match=r"none of the 24 patches.*would be TCGA-1_patch_\d+\.png"):
        opened(folder)


def test_the_digest_follows_the_list_and_the_files(make_patches: MakePatches) -> None:
    folder = make_patches()

    def digest() -> tuple[str, str]:
        with opened(folder) as slide:
            return slide.digest()

    first = digest()
    assert first == digest()
    assert first[1] == "sha256"
    patch_at(folder, (192, 128)).unlink()
    assert digest() != first


def test_patches_of_glass_hold_no_tissue(make_patches: MakePatches) -> None:
    folder = make_patches()
    for path in folder.glob("*.png"):
        Image.fromarray(np.full((64, 64, 3), 244, np.uint8)).save(path)
    with pytest.raises(NoTissueError, match="no tissue found"):
        prepared(folder)


def test_the_sample_does_not_depend_on_the_order_of_the_lines(make_patches: MakePatches) -> None:
    folder = make_patches()
    first = prepared(folder).coords
    lines = (folder / "loc.txt").read_text().splitlines(keepends=True)
    (folder / "loc.txt").write_text("".join(lines[:2] + lines[:1:-1]))
    np.testing.assert_array_equal(prepared(folder).coords, first)


def test_a_reader_of_patches_can_be_stopped(make_patches: MakePatches) -> None:
    folder = make_patches()
    coords = prepared(folder).coords
    stop = threading.Event()
    geometry = Geometry(level=0, side_level0=SIDE, side_level=SIDE)
    with open_reader(SlideSource("TCGA-1", folder), geometry, tile_px=32, workers=2) as reader:
        assert isinstance(reader, PatchReader)
        batches = reader.batches(coords, batch_size=2, stop=stop)
        next(batches)
        stop.set()
        with pytest.raises(JobStopped, match=r"^$"):
            list(batches)


def test_the_recipes_other_sizes_apply_to_patches_too(make_patches: MakePatches) -> None:
    recipe = replace(RECIPE, tiles=TileSettings(px=64, mpp=0.25))
    assert len(prepared(make_patches(), recipe).coords) == 24
