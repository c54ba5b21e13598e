"""Ink, focus and white on real tissue: what is good stays, what is not goes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmsurv.store.record import INK, OUT_OF_FOCUS, TISSUE
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.quality import inspector
from mmsurv_extract.reader import open_reader
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.slide import open_slide

RECIPE = ExtractRecipe()
NO_INK = replace(RECIPE, mask=replace(RECIPE.mask, ink=False))
GLIOMA = ["glioma_TCGA-06-0174", "glioma_TCGA-26-1442", "glioma_TCGA-HT-7470"]
SLIDES = {
    **{name: f"tiles/{name}.png" for name in GLIOMA},
    "skin": "slides/CMU-1-Small-Region.svs",
    "frozen section": "slides/TCGA-CR-7395-01A-01-TS1.svs",
}


def look(path: Path, recipe: ExtractRecipe = RECIPE, mpp: float = 0.5) -> PreparedSlide:
    with open_slide(SlideSource(path.stem, path)) as slide:
        return prepare(slide, identify(slide, MppOptions(fill=mpp)), recipe)


def rejected(path: Path, prepared: PreparedSlide) -> dict[int, int]:
    inspect = inspector(RECIPE.quality, RECIPE.tiles.mpp)
    source = SlideSource(path.stem, path)
    with open_reader(source, prepared.geometry, tile_px=RECIPE.tiles.px, workers=2, inspect=inspect) as reader:
        for _ in reader.batches(prepared.coords, batch_size=32):
            pass
        return reader.rejected


@pytest.mark.parametrize("name", SLIDES)
def test_no_tile_of_real_tissue_in_focus_is_left_out(shared_data: Path, name: str) -> None:
    path = shared_data / SLIDES[name]
    found = look(path)
    assert len(found.coords) == len(look(path, NO_INK).coords) >= 16
    assert rejected(path, found) == {}


@pytest.mark.parametrize("sigma", [3.0, 5.0, 8.0])
@pytest.mark.parametrize("name", GLIOMA)
def test_every_tile_of_blurred_glioma_is_out_of_focus(
    shared_data: Path, tmp_path: Path, name: str, sigma: float
) -> None:
    sharp = Image.open(shared_data / SLIDES[name]).convert("RGB")
    buffer = io.BytesIO()
    sharp.filter(ImageFilter.GaussianBlur(sigma)).save(buffer, "JPEG", quality=70)
    path = tmp_path / f"{name}.png"
    Image.open(buffer).save(path)
    found = look(path)
    assert len(found.coords) == 16
    assert set(rejected(path, found).values()) == {OUT_OF_FOCUS}
    assert len(rejected(path, found)) == 16


def test_pen_marks_are_found_and_the_tissue_beside_them_is_not_called_ink(shared_data: Path) -> None:
    path = shared_data / "tiles" / "ink.jpeg"  # some 2 µm per pixel
    recipe = replace(RECIPE, tiles=replace(RECIPE.tiles, px=112, mpp=2.0))
    found = look(path, recipe, mpp=2.0)
    rows, columns = np.nonzero(found.mask == INK)
    pen = (columns > 900) & (columns < 1010) & (rows > 165)
    specks = (columns > 1010) & (columns < 1160) & (rows < 110)  # black ink on the specimen's edge
    assert np.count_nonzero(pen) > 1500
    assert np.count_nonzero(specks) > 10
    assert np.count_nonzero(~pen & ~specks) <= 3
    assert (found.mask == TISSUE).mean() > 0.2
    without = look(path, replace(recipe, mask=NO_INK.mask), mpp=2.0)
    lost = set(map(tuple, without.coords.tolist())) - set(map(tuple, found.coords.tolist()))
    assert lost == {(3808, 672), (3696, 784)}


def test_green_ink_on_a_specimens_margin_is_found(shared_data: Path) -> None:
    mask = look(shared_data / SLIDES["skin"]).mask
    assert 0.001 < (mask == INK).mean() < 0.003
    assert np.nonzero(mask == INK)[1].mean() > 85  # on the right, where the margin is
