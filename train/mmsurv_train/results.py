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
from mmsurv_train.floors.beside import fit_floors
from mmsurv_train.inputs import Inputs
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.risk_columns import RiskColumns, fold_means, measure_columns, pool_columns

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
    floors: RiskColumns | None = None
    """What simple models come to on the same patients; None where the recipe asks for none, or none can be fitted."""
    patterns: RiskColumns | None = None
    """What the model comes to with less to go on; None where its patients may not lack modalities."""


def score(
    recipe: TrainRecipe, data: Inputs, split: Split, risks: RiskTables, patterns: RiskColumns | None = None
) -> Scored:
    """Put the risks of all parts beside the outcomes and measure them, also those of patients who lack modalities."""
    predictions = scores.with_outcomes(risks, data.cohort.cases, split.parts)
    chosen = strata.stratifications(data.cohort, recipe.evaluate)
    measured = scores.measure(
        predictions,
        recipe.evaluate,
        model=recipe.model.name,
        network_seeds=recipe.fit.seeds,
        scale=recipe.fit.risk_scale,
        chosen=chosen,
    )
    curves = scores.predicted_survival(predictions, recipe.fit.risk_scale).curves
    floors = _floors(recipe, data, split)
    compared = scores.reference(predictions.part("train").cases, recipe.evaluate)
    tested = predictions.part("test").cases
    for name, columns in (("floors", floors), ("patterns", patterns)):
        measured[name] = {} if columns is None else measure_columns(columns, tested, "test", compared, recipe.evaluate)
    return Scored(
        predictions=predictions,
        metrics=measured,
        survival=survival.survival_table(predictions.cases, curves, recipe.evaluate.times_months),
        chosen=chosen,
        baseline=survival.baseline_table(
            predictions.part("train").cases, survival.slope_of(predictions.cases, recipe.fit.risk_scale)
        ),
        floors=floors,
        patterns=patterns,
    )


def _pooled_columns(name: str, scored: Mapping[int, Scored]) -> RiskColumns | None:
    """The floors or patterns of all folds; None where a fold has none."""
    found = {k: getattr(one, name) for k, one in scored.items() if getattr(one, name) is not None}
    return pool_columns(found, crossval.PART) if len(found) == len(scored) else None


def _floors(recipe: TrainRecipe, data: Inputs, split: Split) -> RiskColumns | None:
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
        folds,
        pooled,
        recipe.evaluate,
        network_seeds=recipe.fit.seeds,
        scale=recipe.fit.risk_scale,
        chosen=first.chosen,
    )
    curves = crossval.predicted_survival(folds, pooled.cases, recipe.fit.risk_scale).curves
    compared = scores.reference(pooled.cases, recipe.evaluate)
    columns = {name: _pooled_columns(name, scored) for name in ("floors", "patterns")}
    for name, found in columns.items():
        measured[name] = {}
        if found is not None:
            measured[name] = measure_columns(found, pooled.cases, crossval.PART, compared, recipe.evaluate)
            for one, mean in fold_means([fold.metrics[name] for fold in scored.values()]).items():
                measured[name][one]["fold_mean"] = mean
    table = survival.survival_table(pooled.cases, curves, recipe.evaluate.times_months)
    return Scored(
        predictions=pooled,
        metrics=measured,
        survival=table,
        chosen=first.chosen,
        floors=columns["floors"],
        patterns=columns["patterns"],
    )
