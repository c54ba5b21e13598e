"""What comes out of fitted models: risks put beside outcomes, measured, and pooled over folds.

Owns the step from risks to the contents of a run's files, for one split and for all folds. The same step scores a
fitted model in ``train`` and the saved one in ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv_train import crossval, scores
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
    baseline: pd.DataFrame


def score(recipe: TrainRecipe, data: Inputs, split: Split, risks: RiskTables) -> Scored:
    """Put the risks of all parts beside the outcomes and measure them."""
    from mmsurv_train.cox import breslow_baseline

    predictions = scores.with_outcomes(risks, data.cohort.cases, split.parts)
    training = predictions.part("train").cases
    baseline = breslow_baseline(*(training[name].to_numpy() for name in ("risk", "time", "event")))
    measured = scores.measure(predictions, recipe.evaluate, model=recipe.model.name, network_seeds=recipe.fit.seeds)
    return Scored(predictions=predictions, metrics=measured, baseline=baseline)


def pool(recipe: TrainRecipe, scored: Mapping[int, Scored]) -> tuple[scores.Predictions, dict[str, Any]]:
    """The out-of-fold risks of all folds, and metrics.json of the cross-validation.

    Args:
        recipe: of every fold.
        scored: by fold.
    """
    folds = [crossval.Fold(k=k, predictions=one.predictions, metrics=one.metrics) for k, one in scored.items()]
    pooled = crossval.pool(folds)
    return pooled, crossval.measure_pooled(folds, pooled, recipe.evaluate, network_seeds=recipe.fit.seeds)
