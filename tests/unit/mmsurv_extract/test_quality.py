from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmsurv.demo.painter import MPP, Morphology, paint
from mmsurv.demo.tissue import write_slide
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.prepare import identify, prepare
from mmsurv_extract.quality import QualitySettings, inspector, pixels_per_step, sharpness, white_share
from mmsurv_extract.reader import open_reader
from mmsurv_extract.recipe import load_extract_recipe
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.slide import open_slide

SETTINGS = QualitySettings()
KEEP, BLURRED, WHITE = 0, 2, 3


def cells(px: int = 224, *, mpp: float = 0.5, seed: int = 0) -> np.ndarray:
    """Dark round nuclei of about 8 µm with sharp edges and coarse chromatin on uneven pink."""
    rng = np.random.default_rng(seed)
    rgb = np.full((px, px, 3), (222, 160, 195), float) + rng.normal(0, 2, (px, px, 1))
    y, x = np.mgrid[:px, :px] * mpp
    for _ in range(int((px * mpp) ** 2 / 160)):
        cy, cx, radius = *rng.uniform(0, px * mpp, 2), rng.uniform(3, 5)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        rgb[inside] = np.array([110, 70, 130]) + rng.normal(0, 12, (inside.sum(), 1))
    return np.clip(rgb, 0, 255).astype(np.uint8)


def blurred(tile: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(sigma)))


def reason(tile: np.ndarray, mpp: float = 0.5, **settings: float | bool) -> int:
    return inspector(QualitySettings(**settings), mpp)(tile)


@pytest.mark.parametrize("seed", range(4))
def test_a_sharp_tile_is_kept_and_a_blurred_one_is_not(seed: int) -> None:
    tile = cells(seed=seed)
    assert reason(tile) == KEEP
    for sigma in (3, 4, 6, 8):
        assert reason(blurred(tile, sigma)) == BLURRED


def test_sharpness_falls_with_blur_towards_that_of_a_slope() -> None:
    tile = cells()
    found = [sharpness(blurred(tile, sigma) if sigma else tile, 2) for sigma in (0, 1, 2, 3, 6)]
    assert found == sorted(found, reverse=True)
    slope = np.repeat(np.arange(224, dtype=np.uint8)[None, :, None], 224, axis=0).repeat(3, axis=2)
    assert sharpness(slope, 2) == pytest.approx(1 / 16, abs=0.002)


def test_noise_is_as_sharp_as_can_be() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert sharpness(noise, 2) == pytest.approx(1, abs=0.05)


def test_how_pale_a_tile_is_does_not_change_how_sharp_it_is() -> None:
    tile = cells().astype(float)
    pale = np.clip(235 + (tile - 235) * 0.2, 0, 255).astype(np.uint8)
    assert sharpness(pale, 2) == pytest.approx(sharpness(cells(), 2), rel=0.05)
    assert reason(blurred(pale, 4)) == BLURRED


@pytest.mark.parametrize("mpp", [0.25, 0.3, 0.4, 0.499, 0.5, 0.75, 1.0, 1.4, 2.0])
def test_a_slide_in_focus_is_in_focus_at_any_resolution_of_its_tiles(mpp: float) -> None:
    assert reason(cells(px=224, mpp=mpp), mpp) == KEEP


@pytest.mark.parametrize("mpp", [0.25, 0.35, 0.5, 0.75])
def test_blur_is_judged_in_um_not_in_pixels(mpp: float) -> None:
    sigma = 2.5 / mpp  # 2.5 µm
    assert reason(blurred(cells(mpp=mpp), sigma), mpp) == BLURRED


@pytest.mark.parametrize(
    ("mpp", "step"),
    [(0.05, 20), (0.25, 4), (0.2525, 4), (1 / 3, 3), (0.499, 2), (0.5, 2), (1.0, 1), (2.0, 1), (2.1, 0)],
)
def test_a_step_is_one_um_or_a_little_more(mpp: float, step: int) -> None:
    assert pixels_per_step(mpp) == step


def test_tiles_too_coarse_to_judge_are_kept() -> None:
    assert reason(blurred(cells(), 8), 4.0) == KEEP


@pytest.mark.parametrize("px", [16, 31])
def test_tiles_of_a_few_pixels_are_not_judged_for_focus(px: int) -> None:
    assert reason(blurred(cells(px), 8)) == KEEP
    assert sharpness(cells(px), 2) == math.inf


def test_a_flat_tile_is_not_called_blurred() -> None:
    assert reason(np.full((224, 224, 3), (190, 110, 160), np.uint8)) == KEEP


@pytest.mark.parametrize(("share", "expected"), [(1.0, WHITE), (0.95, WHITE), (0.85, KEEP), (0.0, KEEP)])
def test_a_tile_that_is_nearly_all_white_is_left_out(share: float, expected: int) -> None:
    tile = cells()
    tile[: round(224 * share)] = 243
    assert reason(tile) == expected
    assert white_share(tile, 220) == pytest.approx(share, abs=0.01)


def test_pale_tissue_is_not_near_white() -> None:
    assert reason(np.full((224, 224, 3), (238, 214, 231), np.uint8)) == KEEP


def test_each_rule_can_be_switched_off() -> None:
    assert reason(blurred(cells(), 8), focus=False) == KEEP
    assert reason(np.full((224, 224, 3), 250, np.uint8), white=False) == KEEP


def test_thresholds_are_the_settings() -> None:
    tile = blurred(cells(), 2)
    found = sharpness(tile, 2)
    assert reason(tile, min_sharpness=found + 1e-6) == BLURRED
    assert reason(tile, min_sharpness=found - 1e-6) == KEEP
    half = np.full((224, 224, 3), 219, np.uint8)
    half[:112] = 220
    assert reason(half, max_white=0.5) == KEEP
    assert reason(half, max_white=0.49) == WHITE
    assert reason(half, max_white=0.49, white_level=221) == KEEP


def test_a_tile_is_judged_by_its_pixels_alone() -> None:
    tile = cells()
    strided = np.asfortranarray(tile)
    assert sharpness(tile, 2) == sharpness(strided, 2) == sharpness(tile.copy(), 2)


@pytest.mark.parametrize("wrong", [{"min_sharpness": 0.0}, {"max_white": 1.5}, {"white_level": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"quality.{next(iter(wrong))} must be"):
        QualitySettings(**wrong)


def test_the_demos_painted_tissue_loses_no_tile(tmp_path: Path) -> None:
    path = tmp_path / "painted.tiff"
    write_slide(path, paint(Morphology(), np.random.default_rng(0), height=1200, width=1200), mpp=MPP)
    recipe = load_extract_recipe("demo")
    source = SlideSource("painted", path)
    with open_slide(source) as slide:
        found = prepare(slide, identify(slide, MppOptions()), recipe)
        bare = prepare(slide, identify(slide, MppOptions()), replace(recipe, mask=replace(recipe.mask, ink=False)))
    assert len(found.coords) == len(bare.coords) > 10
    inspect = inspector(recipe.quality, recipe.tiles.mpp)
    with open_reader(source, found.geometry, tile_px=recipe.tiles.px, workers=1, inspect=inspect) as reader:
        assert sum(len(batch.rows) for batch in reader.batches(found.coords, batch_size=16)) == len(found.coords)
