"""Slides that failed, tried again: from the failures a store notes and the recipe it keeps.

Owns how a recipe is built again from a store, and which slides are tried with which options.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmsurv import provenance
from mmsurv.config import from_table
from mmsurv.errors import ConfigError, RecipeMismatchError, StoreError, WeightsError
from mmsurv.store import Failure, FeatureStore
from mmsurv_extract.console import Task
from mmsurv_extract.discover import Discovery, SlideSource
from mmsurv_extract.encoder_settings import RANDOM, EncoderSettings
from mmsurv_extract.job import FailedSlide, JobOptions, TileEncoder
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.quality import QualitySettings
from mmsurv_extract.recipe import ExtractRecipe, TileSettings, fingerprint_table
from mmsurv_extract.resolution import MppOptions

T = TypeVar("T")


def recipe_of_store(store: FeatureStore, *, weights: str | None = None, weights_seed: int = 0) -> ExtractRecipe:
    """The recipe a store was made by.

    Args:
        weights: the file of the encoder's weights; a store knows their digest only.
        weights_seed: the seed, if the weights are random.

    Raises:
        StoreError: the store was not made by an extraction.
        WeightsError: the weights must be given and are not.
    """
    table = store.recipe
    if not {"encoder", "tiles", "mask", "quality", "sample"} <= set(table):
        raise StoreError(
            f"{store.path} was not made by `mmsurv extract` (its recipe has no tiles and mask), so its slides cannot "
            "be encoded again. Encode them into a new store."
        )
    encoder = dict(table["encoder"])
    if weights is None and encoder.get("weights") != RANDOM:
        raise WeightsError(
            f"{store.path} was made with {encoder.get('name')} and weights of SHA-256 "
            f"{str(encoder.get('weights_sha256'))[:12]}…: name their file with --weights FILE."
        )
    encoder |= {"weights": weights or RANDOM, "weights_seed": weights_seed}
    where = f"the recipe of {store.path}"
    return ExtractRecipe(
        encoder=_known(EncoderSettings, encoder, where),
        tiles=_known(TileSettings, {**table["tiles"], "seed": table["sample"]["seed"]}, where),
        mask=_known(MaskSettings, table["mask"], where),
        quality=_known(QualitySettings, table["quality"], where),
        dtype=table["dtype"],
    )


def require_recipe_of_store(store: FeatureStore, recipe: ExtractRecipe, encoder: TileEncoder) -> None:
    """Check that recipe and encoder, as built, are what the store was made by.

    Raises:
        RecipeMismatchError: other weights, or a version of mmsurv that makes features in another way.
    """
    ours = json.loads(provenance.canonical_json(fingerprint_table(recipe, encoder.describe())))
    if provenance.differences(store.recipe, ours):
        raise RecipeMismatchError(
            f"{store.path} cannot be added to with what is here (store → here):\n"
            f"{provenance.difference_table(store.recipe, ours)}\n"
            "Give the store's own weights (--weights FILE, or --weights-seed if they are random). If another field "
            "differs, use the version of mmsurv that made the store."
        )


def failures_to_retry(store: FeatureStore, slide_ids: Sequence[str]) -> list[Failure]:
    """The failures noted in a store, or those of the slides named.

    Raises:
        ConfigError: a slide is named for which no failure is noted.
    """
    noted = {failure.slide_id: failure for failure in store.failures()}
    unknown = [slide_id for slide_id in slide_ids if slide_id not in noted]
    if unknown:
        known = ", ".join(noted) or "none"
        raise ConfigError(f"{store.path} notes no failure of {', '.join(unknown)}. Noted: {known}.")
    return [noted[slide_id] for slide_id in dict.fromkeys(slide_ids)] if slide_ids else list(noted.values())


def retry_tasks(
    store: FeatureStore, failures: Sequence[Failure], recipe: ExtractRecipe, options: JobOptions, mpp: MppOptions | None
) -> tuple[list[Task], list[FailedSlide]]:
    """Jobs that try slides again as they were tried.

    Args:
        options: of the work; its resolution options are not looked at.
        mpp: resolution options for all; None for those each slide was tried with.

    Returns:
        The jobs, slides of the same options in one; and the slides whose source is not there any more, or whose noted
        settings cannot be.
    """
    unusable: list[FailedSlide] = []
    groups: dict[tuple[TileSettings, MppOptions], list[SlideSource]] = defaultdict(list)
    for failure in failures:
        source = Path(failure.source)
        if not failure.source or not source.exists():
            unusable.append(FailedSlide(failure.slide_id, "FileNotFoundError", _gone(store, failure)))
            continue
        try:
            tiles, noted = _noted(failure, recipe.tiles)
        except ConfigError as error:
            unusable.append(FailedSlide(failure.slide_id, type(error).__name__, f"{error} {_delete(store, failure)}"))
            continue
        groups[tiles, mpp or noted].append(SlideSource(failure.slide_id, source))
    tasks = [
        Task(
            discovery=Discovery(sources, {}),
            recipe=dataclasses.replace(recipe, tiles=tiles),
            options=dataclasses.replace(options, mpp=how),
        )
        for (tiles, how), sources in groups.items()
    ]
    return tasks, unusable


def _known(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Settings from a part of a fingerprint, which holds more than the settings."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return from_table(cls, {key: value for key, value in table.items() if key in names}, source=where)


def _noted(failure: Failure, tiles: TileSettings) -> tuple[TileSettings, MppOptions]:
    said: dict[str, Any] = dict(failure.settings)
    try:
        mpp = MppOptions(
            fill=said.get("mpp"),
            override=said.get("override_mpp"),
            from_objective=bool(said.get("mpp_from_objective", False)),
        )
        return dataclasses.replace(tiles, max_tiles=int(said.get("max_tiles", tiles.max_tiles))), mpp
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"the failure noted for {failure.slide_id} has settings that cannot be ({error}).") from error


def _delete(store: FeatureStore, failure: Failure) -> str:
    return f"Delete {store.failure_path(failure.slide_id)}, then encode the slide again with `mmsurv extract`."


def _gone(store: FeatureStore, failure: Failure) -> str:
    return (
        f"{failure.source or 'its source'} is not there any more. Put it back; or encode the slide from where it is "
        f"now: mmsurv extract PATH -o {store.path}; or leave it out: delete its file in {store.path / 'failures'}."
    )
