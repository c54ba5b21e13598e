from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmsurv.config import recipe_names
from mmsurv.errors import ConfigError
from mmsurv.provenance import fingerprint
from mmsurv_extract.encoder_settings import EncoderSettings
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.quality import QualitySettings
from mmsurv_extract.recipe import RECIPES, ExtractRecipe, TileSettings, fingerprint_table, load_extract_recipe

ENCODER = {"name": "resnet50", "weights_sha256": "ab" * 32}


def digest(encoder: dict[str, Any] | None = None, **changes: Any) -> str:
    return fingerprint(fingerprint_table(replace(ExtractRecipe(), **changes), encoder or ENCODER))


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load_extract_recipe(name).tiles.px > 0


def test_the_papers_recipe_is_2000_tiles_of_224_px_at_half_a_um() -> None:
    recipe = load_extract_recipe("resnet50-20x")
    assert (recipe.tiles.px, recipe.tiles.mpp, recipe.tiles.max_tiles) == (224, 0.5, 2000)
    assert recipe.encoder.name == "resnet50"


def test_the_demos_recipe_needs_no_download() -> None:
    assert load_extract_recipe("demo").encoder.weights == "random"


def test_the_number_of_tiles_is_not_part_of_the_fingerprint() -> None:
    assert digest(tiles=TileSettings(max_tiles=500)) == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"tiles": TileSettings(px=256)},
        {"tiles": TileSettings(mpp=0.25)},
        {"tiles": TileSettings(min_tissue=0.5)},
        {"tiles": TileSettings(seed=1)},
        {"mask": MaskSettings(mpp=4)},
        {"mask": MaskSettings(max_saturation=40)},
        {"mask": MaskSettings(ink=False)},
        {"mask": MaskSettings(max_ink=0.2)},
        {"quality": QualitySettings(focus=False)},
        {"quality": QualitySettings(min_sharpness=0.1)},
        {"quality": QualitySettings(white=False)},
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"encoder": {**ENCODER, "weights_sha256": "cd" * 32}},
    ],
    ids=str,
)
def test_whatever_changes_a_feature_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert digest(**change) != digest()


def test_where_the_weights_lie_does_not() -> None:
    assert digest() == fingerprint(
        fingerprint_table(ExtractRecipe(encoder=EncoderSettings(weights="/elsewhere/resnet50.pth")), ENCODER)
    )


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[tiles]\nmin_tisue = 0.5\n")
    with pytest.raises(ConfigError, match=r"unknown key 'tiles\.min_tisue'\. Did you mean 'min_tissue'"):
        load_extract_recipe(str(path))


@pytest.mark.parametrize(
    "line",
    [
        "px = 8",
        "mpp = 0.00499",
        "max_tiles = -1",
        "min_tissue = 0.0",
        "min_tissue = 2.0",
        f"seed = {2**63}",
        f"seed = {-(2**63) - 1}",
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[tiles]\n{line}\n")
    with pytest.raises(ConfigError, match=rf"mine\.toml: tiles\.{line.split()[0]} must be"):
        load_extract_recipe(str(path))
