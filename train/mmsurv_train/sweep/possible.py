"""Whether a plan can be carried out on the data at all, and what of the data decides how its table is read.

Owns the checks before anything is written or trained: tables that join for every model of the plan, splits that can
be made, and parts that can be trained on. No feature is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from mmsurv.errors import SplitError
from mmsurv_train import inputs
from mmsurv_train.asked import make_splits
from mmsurv_train.inputs import Inputs, Sources
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.sweep.plan import Plan

if TYPE_CHECKING:
    from mmsurv.split import Split


Needs: TypeAlias = tuple[Any, ...]
"""What decides which patients a recipe's model sees."""


def needs_of(recipe: TrainRecipe) -> Needs:
    """Recipes that need the same see the same patients."""
    return recipe.model.name, recipe.inputs, recipe.clinical.columns, recipe.may_lack


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the data say about settings, by what a model needs."""

    training: Mapping[Needs, int]
    """Patients of the largest training part: a batch of as many is the whole part."""
    whole: Mapping[tuple[Needs, str], int]
    """(needs, ``bags.unit``) → the least ``bags.size`` with which no bag is cut; none for a model without tiles."""
    random_weights: bool
    """Whether a model reads features of an encoder that was never trained."""


def look(plan: Plan, sources: Sources) -> Facts:
    """Join the tables and make the splits for every model of a plan.

    Raises:
        ConfigError: a model needs RNA or tiles, and no table or store was named.
        CohortError, StoreError: the data cannot be used.
        SplitError: a split cannot be made, or one of its parts cannot be trained or validated on.
    """
    training: dict[Needs, int] = {}
    whole: dict[tuple[Needs, str], int] = {}
    random_weights = False
    for needs, recipe in {needs_of(planned.recipe): planned.recipe for planned in plan.configurations}.items():
        model = recipe.model
        data = inputs.join_tables(recipe, sources)
        splits = make_splits(plan.recipe.split, data.cohort.cases)
        for k, split in splits.items():
            _require_deaths(
                split, data.cohort.cases, f"model {model.name}" + (f", fold {k}" if len(splits) > 1 else "")
            )
        training[needs] = max(len(split.cases("train")) for split in splits.values())
        if recipe.needs_tiles:
            whole |= {(needs, unit): size for unit, size in _whole_bags(data).items()}
            random_weights = random_weights or _is_random(data)
    return Facts(training=training, whole=whole, random_weights=random_weights)


def _require_deaths(split: Split, cases: pd.DataFrame, where: str) -> None:
    for part in ("train", "validation"):
        ids = split.cases(part)
        deaths = int(cases.loc[ids, "event"].sum())
        if len(ids) < 2 or not deaths:
            raise SplitError(
                f"{where}: the {part} part has {len(ids)} patients and {deaths} deaths; at least 2 patients and one "
                "death are needed. Take another split.seed, larger split.fractions for it, or fewer folds."
            )


def _whole_bags(data: Inputs) -> dict[str, int]:
    """The least size that cuts no bag, by unit; the slides of a patient share a bag's tiles evenly."""
    if data.store is None:
        return {}
    slides = data.cohort.slides
    tiles = slides["slide_id"].map(data.store.n_tiles)
    by_case = tiles.groupby(slides["case_id"])
    return {"slide": int(tiles.max()), "case": int((by_case.max() * by_case.size()).max())}


def _is_random(data: Inputs) -> bool:
    encoder = {} if data.store is None else data.store.recipe.get("encoder")
    return isinstance(encoder, Mapping) and encoder.get("weights") == "random"
