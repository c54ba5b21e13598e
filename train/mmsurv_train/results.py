"""What comes out of fitted models: risks put beside outcomes, measured, and pooled over folds.

Owns the step from risks to the contents of a run's files, for one split and for all folds. The same step scores a
fitted model in ``train`` and the saved one in ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv_train import crossval, scores, strata, survival
from mmsurv_train.inputs import Inputs
from mmsurv_train.recipe import TrainRecipe

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


def score(recipe: TrainRecipe, data: Inputs, split: Split, risks: RiskTables) -> Scored:
    """Put the risks of all parts beside the outcomes and measure them."""
    predictions = scores.with_outcomes(risks, data.cohort.cases, split.parts)
    chosen = strata.stratifications(data.cohort, recipe.evaluate)
    measured = scores.measure(
        predictions, recipe.evaluate, model=recipe.model.name, network_seeds=recipe.fit.seeds, chosen=chosen
    )
    curves = scores.predicted_survival(predictions).curves
    return Scored(
        predictions=predictions,
        metrics=measured,
        survival=survival.survival_table(predictions.cases, curves, recipe.evaluate.times_months),
        chosen=chosen,
        baseline=survival.baseline_table(predictions.part("train").cases),
    )


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
    table = survival.survival_table(pooled.cases, curves, recipe.evaluate.times_months)
    return Scored(predictions=pooled, metrics=measured, survival=table, chosen=first.chosen)
