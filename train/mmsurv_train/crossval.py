"""Cross-validation: out-of-fold risks brought to one scale, pooled and measured.

Owns the pooling. Risks of different folds come from different models and have no common zero or unit, so each fold's
test risks are standardised by the mean and standard deviation of the case-level risks of **that fold's training
part** (both levels alike, so that a case's risk stays the mean of its slides'). Nothing of the test patients goes
into the scale. Of an ensemble each network's risks have their own scale, from the same training part, and the
ensemble's mean risk has its own. The risk groups are cut in each fold at its training median, and then pooled. The
pooled C-index still compares patients across models; the mean of the folds' own C-indices, which does not, is given
beside it.

The pooled Uno's C-index needs one censoring reference and one τ. Both are taken from all patients, so, unlike in one
split, the outcomes (never the risks) of those tested have a part in them. All but the tested k-th of these patients
are what a fold learns from and validates on; the Uno's C-indices in the folds' own runs use their training part alone.

Survival probabilities are on one scale without that: each test patient's comes from the risk and the baseline of the
fold that tested them, and is pooled as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmsurv.errors import SplitError
from mmsurv_train import metrics, scores, seeds, survival
from mmsurv_train.level import measure_survival
from mmsurv_train.recipe import EvaluateSettings, RiskScale
from mmsurv_train.scores import LEVELS, Predictions
from mmsurv_train.strata import Stratification, measure_strata

PART = "out-of-fold"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The result of one fold: what its run folder holds."""

    k: int
    predictions: Predictions
    metrics: dict[str, Any]

    def scale(self, column: str = seeds.ENSEMBLE) -> tuple[float, float]:
        """Mean and standard deviation of the training part's case-level risks; 1 where they are all alike."""
        risk = self.predictions.part("train").cases[column].to_numpy(float)
        spread = float(risk.std())
        return float(risk.mean()), spread if spread > 0 else 1.0


def pool(folds: Sequence[Fold]) -> Predictions:
    """The test parts of all folds in one table per level, on one scale.

    Returns:
        Predictions whose part is "out-of-fold", with the columns fold and raw_risk (the model's own scale), and for
        cases high_risk (above the median of that fold's training part).

    Raises:
        SplitError: a case is in the test part of two folds.
    """
    pooled = Predictions(
        slides=_pooled([_standardised(fold, "wsi") for fold in folds], "slide_id"),
        cases=_pooled([_standardised(fold, "case") for fold in folds], "case_id"),
    )
    twice = pooled.cases["case_id"][pooled.cases["case_id"].duplicated()]
    if len(twice):
        raise SplitError(f"case {twice.iloc[0]} is in the test part of two folds; each case is tested once.")
    return pooled


def predicted_survival(
    folds: Sequence[Fold], cases: pd.DataFrame, scale: RiskScale = "log hazard"
) -> survival.Predicted:
    """Predicted survival of pooled cases, each from the model of the fold that tested it."""
    training = {fold.k: fold.predictions.part("train").cases for fold in folds}
    slopes = {fold.k: survival.slope_of(fold.predictions.cases, scale) for fold in folds}
    return survival.predicted(cases, training, cases["fold"], slopes)


def measure_pooled(
    folds: Sequence[Fold],
    pooled: Predictions,
    settings: EvaluateSettings,
    *,
    network_seeds: Sequence[int],
    scale: RiskScale = "log hazard",
    chosen: Sequence[Stratification] = (),
) -> dict[str, Any]:
    """metrics.json of a cross-validation: pooled out-of-fold risks, each fold, mean ± sd of the folds, each network.

    Args:
        folds: each with its own metrics.
        pooled: from :func:`pool`.
        settings: of the measures.
        network_seeds: of each network.
        scale: of the risks.
        chosen: how cases are parted for strata.
    """
    compared = scores.reference(pooled.cases, settings, name="all patients of the cross-validation")
    high = pooled.cases["high_risk"].to_numpy(bool)
    predicted = predicted_survival(folds, pooled.cases, scale)
    part = scores.measure_part(pooled, high, compared, settings)
    part["case"] |= measure_survival(pooled.cases, predicted, compared, settings)
    return {
        "format": scores.FORMAT,
        "kind": "cross-validation",
        "model": folds[0].metrics["model"],
        "method": {
            **scores.method(compared, settings, cut="median case-level risk of the fold's training part", scale=scale),
            "pooling": "risks standardised by mean and sd of the fold's training-part case risks",
        },
        "parts": {PART: part},
        "strata": measure_strata(chosen, pooled.cases, predicted, compared, settings),
        "folds": [_fold_row(fold) for fold in folds],
        "fold_mean": {level: _mean(folds, level) for level in LEVELS},
        "seeds": seeds.measure_seeds(pooled, network_seeds, settings),
    }


def _standardised(fold: Fold, level: str) -> pd.DataFrame:
    rows = fold.predictions.part("test").level(level)
    rows = rows.assign(part=PART, fold=fold.k, raw_risk=rows["risk"])
    for column in ("risk", *seeds.network_columns(rows)):
        mean, spread = fold.scale(column)
        rows[column] = (rows[column] - mean) / spread
    if level == "case":
        rows["high_risk"] = metrics.high_risk(rows["raw_risk"], fold.metrics["risk_cut"])
    return rows


def _pooled(tables: list[pd.DataFrame], key: str) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True).sort_values(key, ignore_index=True, kind="stable")


def _fold_row(fold: Fold) -> dict[str, Any]:
    test, (mean, spread) = fold.metrics["parts"]["test"], fold.scale()
    row = {"fold": fold.k, "risk_mean": mean, "risk_sd": spread, "risk_cut": fold.metrics["risk_cut"]}
    for level in LEVELS:
        counts = {key: test[level][key] for key in ("n", "events")}
        row[level] = {**counts, "c_index": test[level]["c_index"]["value"]}
    return row


def _mean(folds: Sequence[Fold], level: str) -> dict[str, Any]:
    """Mean and sample standard deviation of the folds' test C-indices; folds without one are left out, counted."""
    found = [fold.metrics["parts"]["test"][level]["c_index"]["value"] for fold in folds]
    values = np.array([value for value in found if value is not None])
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "n_folds": len(values),
        "n_undefined": len(found) - len(values),
    }
