from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmsurv.errors import NoTissueError
from mmsurv.store import rank_order
from mmsurv.store.record import INK
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.recipe import ExtractRecipe, TileSettings
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.slide import open_slide

RECIPE = ExtractRecipe(tiles=TileSettings(px=32, mpp=0.5), mask=MaskSettings(mpp=4))


def prepared(path: Path, recipe: ExtractRecipe = RECIPE) -> PreparedSlide:
    with open_slide(SlideSource(path.stem, path)) as slide:
        return prepare(slide, identify(slide, MppOptions()), recipe)


def test_all_tissue_tiles_are_candidates_in_rank_order_whatever_the_number_asked_for(
    make_slide: Callable[..., Path],
) -> None:
    path = make_slide("a.tiff", height=320, width=640, tissue=(0, 0, 320, 320))
    found = prepared(path, replace(RECIPE, tiles=replace(RECIPE.tiles, max_tiles=5)))
    assert len(found.coords) == len(found.tissue) == found.n_tissue_tiles == 100
    np.testing.assert_array_equal(rank_order("a", found.coords, RECIPE.tiles.seed), np.arange(100))


def test_what_decodes_a_slide_is_known(make_slide: Callable[..., Path]) -> None:
    assert prepared(make_slide("a.tiff")).identity.reader.startswith("openslide ")


def inked(make_slide: Callable[..., Path], share: float, **mask: float | bool) -> PreparedSlide:
    """A slide all tissue, its left half under blue pen on this share of every tile."""
    rgb = np.random.default_rng(0).integers(-20, 20, (320, 640, 3)) + np.array([190, 110, 160])
    for x in range(0, 320, 32):
        rgb[:, x : x + round(32 * share)] = (30, 60, 140)
    path = make_slide("a.tiff", rgb=rgb.astype(np.uint8))
    return prepared(path, replace(RECIPE, mask=replace(RECIPE.mask, **mask)))


def test_tiles_under_pen_ink_are_no_candidates_and_the_mask_says_so(make_slide: Callable[..., Path]) -> None:
    found = inked(make_slide, 0.5)
    assert len(found.coords) == 100
    assert (found.coords[:, 0] >= 320).all()
    assert (found.mask[:, :40] == INK).mean() == pytest.approx(0.5)
    assert not (found.mask[:, 40:] == INK).any()


def test_how_much_ink_a_tile_may_have_is_a_setting(make_slide: Callable[..., Path]) -> None:
    assert len(inked(make_slide, 0.5, max_ink=0.6).coords) == 200
    assert len(inked(make_slide, 0.5, ink=False).coords) == 200


def test_a_slide_all_under_ink_says_so(make_slide: Callable[..., Path]) -> None:
    rgb = np.full((320, 320, 3), (190, 110, 160), np.uint8)
    for x in range(0, 320, 32):
        rgb[:, x : x + 16] = (30, 60, 140)
    with pytest.raises(NoTissueError, match=r"covered with pen ink by more than 10%.*raise mask\.max_ink"):
        prepared(make_slide("a.tiff", rgb=rgb))
