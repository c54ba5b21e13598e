"""What is measured on one set of rows: slides, cases, or the cases of a stratum; its layout in metrics.json.

Owns that layout and nothing of the choice of rows, references or cuts (``scores``). The statistics are in ``metrics``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmsurv_train import metrics
from mmsurv_train.metrics import Estimate
from mmsurv_train.recipe import EvaluateSettings
from mmsurv_train.survival import Predicted


def measure_level(rows: pd.DataFrame, compared: metrics.Reference, settings: EvaluateSettings) -> dict[str, Any]:
    """Counts, Harrell's and Uno's C-index and time-dependent AUC with intervals, of slides or of cases."""
    risk, time, event = rows["risk"].to_numpy(float), rows["time"].to_numpy(float), rows["event"].to_numpy(bool)
    harrell = metrics.c_index(risk, time, event)
    uno = metrics.c_index_ipcw(risk, time, event, compared)
    if settings.n_bootstrap and harrell.value is not None:
        harrell = _with_interval(harrell, rows, settings, None)
    if settings.n_bootstrap and uno.value is not None:
        uno = _with_interval(uno, rows, settings, metrics.uno_weights(time, event, compared))
    auc = metrics.dynamic_auc(
        risk, time, event, settings.times_months, compared, patient_N=rows["case_id"], **_resamples(settings)
    )
    return {
        **_counts(rows),
        "c_index": harrell.to_table(),
        "c_index_ipcw": uno.to_table(),
        "auc": {
            "at": [
                {"months": moment, **estimate.to_table()}
                for moment, estimate in zip(settings.times_months, auc.at, strict=True)
            ],
            "mean": {**auc.mean.to_table(), "months": auc.used},
        },
    }


def measure_survival(
    cases: pd.DataFrame, predicted: Predicted, compared: metrics.Reference, settings: EvaluateSettings
) -> dict[str, Any]:
    """Brier scores and calibration of predicted survival; of cases only, as a slide has no survival of its own."""
    time, event, patients = cases["time"].to_numpy(float), cases["event"].to_numpy(bool), cases["case_id"]
    judged = metrics.Judged(time, event, patients, predicted.curves, predicted.nothing, compared)
    drawing = _resamples(settings)
    return {
        "brier": [
            {"months": moment, **_brier(metrics.brier_at(judged, moment, **drawing))}
            for moment in settings.times_months
        ],
        "integrated_brier": _brier(metrics.integrated_brier(judged, **drawing)),
        "calibration": [
            _calibration(
                moment,
                metrics.calibration_at(
                    moment, time, event, predicted.curves,
                    n_groups=settings.calibration_groups, patient_N=patients, **drawing,
                ),
            )
            for moment in settings.times_months
        ],
        "d_calibration": _d_calibration(metrics.d_calibration(time, event, predicted.curves)),
    }  # fmt: skip


def without(reason: str, cases: pd.DataFrame, settings: EvaluateSettings) -> dict[str, Any]:
    """The same layout with counts and no number, and why."""
    nothing = Estimate(None, reason=reason)
    at_times = [{"months": moment, **nothing.to_table()} for moment in settings.times_months]
    brier = _brier(metrics.no_brier(reason))
    calibration = metrics.Calibration(None, nothing, nothing, nothing, [])
    return {
        **_counts(cases),
        "c_index": nothing.to_table(),
        "c_index_ipcw": nothing.to_table(),
        "auc": {"at": at_times, "mean": {**nothing.to_table(), "months": []}},
        "brier": [{"months": moment, **brier} for moment in settings.times_months],
        "integrated_brier": brier,
        "calibration": [_calibration(moment, calibration) for moment in settings.times_months],
        "d_calibration": _d_calibration(metrics.DCalibration(None, None, [], 0, reason)),
    }


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {"n": len(rows), "n_cases": int(rows["case_id"].nunique()), "events": int(rows["event"].sum())}


def _brier(brier: metrics.Brier) -> dict[str, Any]:
    table = {**brier.score.to_table(), "kaplan_meier": brier.kaplan_meier, "skill": brier.skill.to_table()}
    return table if brier.span is None else {**table, "from_months": brier.span[0], "to_months": brier.span[1]}


def _calibration(months: float, found: metrics.Calibration) -> dict[str, Any]:
    return {
        "months": months,
        "expected": found.expected,
        "observed": found.observed.to_table(),
        "observed_expected": found.ratio.to_table(),
        "slope": found.slope.to_table(),
        "groups": [
            {"n": group.n, "predicted": group.predicted, "observed": group.observed.to_table()}
            for group in found.groups
        ],
    }


def _d_calibration(found: metrics.DCalibration) -> dict[str, Any]:
    table = {"chi2": found.chi2, "p": found.p, "bins": found.bins, "n_beyond": found.n_beyond}
    return table if found.reason is None else {**table, "reason": found.reason}


def _resamples(settings: EvaluateSettings) -> dict[str, Any]:
    return {"n_resamples": settings.n_bootstrap, "seed": settings.seed, "confidence": settings.confidence}


def _with_interval(
    estimate: Estimate, rows: pd.DataFrame, settings: EvaluateSettings, weights: np.ndarray | None
) -> Estimate:
    draws = metrics.bootstrap_c_index(
        rows["risk"],
        rows["time"],
        rows["event"],
        rows["case_id"],
        n_resamples=settings.n_bootstrap,
        seed=settings.seed,
        weight_N=weights,
    )
    return metrics.with_interval(estimate, draws, confidence=settings.confidence)
