"""What an extraction is made of: encoder, tiles, tissue mask, quality, storage type; and its fingerprint.

Owns the settings and which of them change a feature. Those make the fingerprint a store belongs to; the number of
tiles does not, because a smaller sample is a prefix of a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmsurv.config import from_table, load_recipe
from mmsurv_extract import grid, mask, overview, quality
from mmsurv_extract.encoder_settings import EncoderSettings
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.quality import QualitySettings
from mmsurv_extract.resolution import MPP_RANGE
from mmsurv_extract.tile import RESAMPLING

RECIPES = "mmsurv_extract.recipes"
DEFAULT = "resnet50-20x"


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """Which tiles of a slide are encoded, and at which resolution."""

    px: int = 224
    """Side of a tile in pixels, as the encoder sees it."""
    mpp: float = 0.5
    """Resolution of a tile, µm per pixel; 0.5 is what is called 20x. A tile's field of view is ``px * mpp``."""
    max_tiles: int = 2000
    """Tiles per slide, N; 0 means all that hold tissue. Not part of the fingerprint."""
    min_tissue: float = 0.25
    """Share of a tile that must be tissue, 0 to 1."""
    seed: int = 0
    """Seed of the sample of tiles, a signed 64-bit integer. The sample depends on it, the slide's id and the
    coordinates alone."""

    def __post_init__(self) -> None:
        if not 16 <= self.px <= 4096:
            raise ValueError(f"tiles.px must be 16 to 4096 pixels, not {self.px}.")
        if not MPP_RANGE[0] <= self.mpp <= MPP_RANGE[1]:
            raise ValueError(f"tiles.mpp must be {MPP_RANGE[0]} to {MPP_RANGE[1]} µm per pixel, not {self.mpp}.")
        if self.max_tiles < 0:
            raise ValueError(f"tiles.max_tiles must be 0 (all) or more, not {self.max_tiles}.")
        if not 0 < self.min_tissue <= 1:
            raise ValueError(f"tiles.min_tissue must be above 0 and at most 1, not {self.min_tissue}.")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"tiles.seed must be a signed 64-bit integer, not {self.seed}.")


@dataclass(frozen=True, kw_only=True)
class ExtractRecipe:
    """Settings of stage 1, as a TOML file has them."""

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    tiles: TileSettings = field(default_factory=TileSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Type the features are stored in. bfloat16 has the range of float32 and 8 bits of precision, float16 11."""


def load_extract_recipe(name_or_path: str = DEFAULT) -> ExtractRecipe:
    """Read a recipe by the name of a shipped one, or from a TOML file.

    Raises:
        ConfigError: no such recipe, or one with a key or value that cannot be.
    """
    table, source = load_recipe(name_or_path, RECIPES)
    return from_table(ExtractRecipe, table, source=source)


def fingerprint_table(recipe: ExtractRecipe, encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that changes a feature or a coordinate: what the store's recipe_sha256 is made of.

    Args:
        recipe: the settings.
        encoder: ``Encoder.describe()``: the encoder as built, with the digest of its weights.

    Returns:
        A nested JSON-able table. It leaves out ``max_tiles``, the device, batch size and number of workers.
    """
    return {
        "encoder": dict(encoder),
        "tiles": {
            "px": recipe.tiles.px,
            "mpp": recipe.tiles.mpp,
            "min_tissue": recipe.tiles.min_tissue,
            "overlap": 0,
            "level_rule": grid.LEVEL_RULE,
            "resampling": RESAMPLING,
        },
        "mask": {**mask.describe(recipe.mask), "overview": overview.METHOD},
        "quality": quality.describe(recipe.quality),
        "sample": {"seed": recipe.tiles.seed, "order": "rank"},
        "dtype": recipe.dtype,
    }
