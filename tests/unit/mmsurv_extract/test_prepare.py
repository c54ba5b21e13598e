from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmsurv.store import rank_order
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
