"""What comes out of fitted models: risks put beside outcomes, measured, and pooled over folds.

Owns the step from risks to the contents of a run's files, for one split and for all folds. The same step scores a
fitted model in ``train`` and the saved one in ``evaluate``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv import provenance
from mmsurv.config import to_table
from mmsurv.errors import SplitError
from mmsurv_train import crossval, scores, strata, survival
from mmsurv_train.floors.beside import Floors, fit_floors
from mmsurv_train.floors.measured import fold_means, measure_floors, pool_floors
from mmsurv_train.inputs import Inputs
from mmsurv_train.recipe import TrainRecipe

logger = logging.getLogger("mmsurv")

if TYPE_CHECKING:
    from mmsurv.split import Split
    from mmsurv_train.predict import RiskTables


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model says about a cohort."""

    predictions: scores.Predictions
    metrics: dict[str, Any]
    survival: pd.DataFrame
    """Predicted survival of each case: survival.csv."""
    chosen: tuple[strata.Stratification, ...] = ()
    """How the cohort's cases are parted for strata."""
    baseline: pd.DataFrame | None = None
    """Of the one model; None for pooled folds."""
    floors: Floors | None = None
    """What simple models come to on the same patients; None where the recipe asks for none, or none can be fitted."""


def score(recipe: TrainRecipe, data: Inputs, split: Split, risks: RiskTables) -> Scored:
    """Put the risks of all parts beside the outcomes and measure them."""
    predictions = scores.with_outcomes(risks, data.cohort.cases, split.parts)
    chosen = strata.stratifications(data.cohort, recipe.evaluate)
    measured = scores.measure(
        predictions, recipe.evaluate, model=recipe.model.name, network_seeds=recipe.fit.seeds, chosen=chosen
    )
    curves = scores.predicted_survival(predictions).curves
    floors = _floors(recipe, data, split)
    measured["floors"] = {}
    if floors is not None:
        compared = scores.reference(predictions.part("train").cases, recipe.evaluate)
        measured["floors"] = measure_floors(floors, predictions.part("test").cases, "test", compared, recipe.evaluate)
    return Scored(
        predictions=predictions,
        metrics=measured,
        survival=survival.survival_table(predictions.cases, curves, recipe.evaluate.times_months),
        chosen=chosen,
        baseline=survival.baseline_table(predictions.part("train").cases),
        floors=floors,
    )


def _floors(recipe: TrainRecipe, data: Inputs, split: Split) -> Floors | None:
    """The floors of a split, fitted once for all configurations that have the same."""
    if not recipe.evaluate.floors:
        return None
    parts = dict(sorted(split.parts.items()))
    lacks = recipe.may_lack
    key = provenance.fingerprint(
        {"parts": parts, "inputs": list(recipe.inputs), "rna": to_table(recipe.rna),
         "clinical": to_table(recipe.clinical), "lacks": lacks}
    )  # fmt: skip
    if key not in data.floors:
        try:
            data.floors[key] = fit_floors(recipe, data.cohort, data.bags, split)
        except SplitError as error:
            logger.warning("No floors beside the model: %s", error)
            data.floors[key] = None
    return data.floors[key]


def pool(recipe: TrainRecipe, scored: Mapping[int, Scored]) -> Scored:
    """The out-of-fold risks of all folds, their survival, and metrics.json of the cross-validation.

    Args:
        recipe: of every fold.
        scored: by fold.
    """
    folds = [crossval.Fold(k=k, predictions=one.predictions, metrics=one.metrics) for k, one in scored.items()]
    pooled, (first, *_) = crossval.pool(folds), scored.values()
    measured = crossval.measure_pooled(
        folds, pooled, recipe.evaluate, network_seeds=recipe.fit.seeds, chosen=first.chosen
    )
    curves = crossval.predicted_survival(folds, pooled.cases).curves
    floors = {k: one.floors for k, one in scored.items() if one.floors is not None}
    all_floors = pool_floors(floors, crossval.PART) if len(floors) == len(scored) else None
    measured["floors"] = {}
    if all_floors is not None:
        compared = scores.reference(pooled.cases, recipe.evaluate)
        measured["floors"] = measure_floors(all_floors, pooled.cases, crossval.PART, compared, recipe.evaluate)
        for name, mean in fold_means([one.metrics["floors"] for one in scored.values()]).items():
            measured["floors"][name]["fold_mean"] = mean
    table = survival.survival_table(pooled.cases, curves, recipe.evaluate.times_months)
    return Scored(predictions=pooled, metrics=measured, survival=table, chosen=first.chosen, floors=all_floors)
