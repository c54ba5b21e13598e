"""What is computed from risks, predicted survival and outcomes: numbers with their intervals, and curves.

Owns the statistics only: no files, no models, no choice of patients. Higher risk always means an earlier event. A
number that is not defined is ``None`` with a reason, never NaN.
"""

from __future__ import annotations

from mmsurv_train.metrics.brier import Brier, Judged, brier_at, integrated_brier, no_brier
from mmsurv_train.metrics.calibration import (
    Calibration,
    DCalibration,
    calibration_at,
    d_calibration,
    quantile_groups,
    slope,
)
from mmsurv_train.metrics.concordance import (
    bootstrap_c_index,
    c_index,
    c_index_ipcw,
    comparable_pairs,
    quantile_tau,
    uno_weights,
)
from mmsurv_train.metrics.dynamic_auc import DynamicAuc, dynamic_auc
from mmsurv_train.metrics.estimate import INTERVAL_METHOD, Estimate, Reference, resample_patients, with_interval
from mmsurv_train.metrics.groups import LogRank, at_risk, high_risk, kaplan_meier, log_rank
from mmsurv_train.metrics.predicted import Baseline, Curves, MeanCurves, SurvivalCurves, kaplan_meier_baseline

__all__ = [
    "INTERVAL_METHOD",
    "Baseline",
    "Brier",
    "Calibration",
    "Curves",
    "DCalibration",
    "DynamicAuc",
    "Estimate",
    "Judged",
    "LogRank",
    "MeanCurves",
    "Reference",
    "SurvivalCurves",
    "at_risk",
    "bootstrap_c_index",
    "brier_at",
    "c_index",
    "c_index_ipcw",
    "calibration_at",
    "comparable_pairs",
    "d_calibration",
    "dynamic_auc",
    "high_risk",
    "integrated_brier",
    "kaplan_meier",
    "kaplan_meier_baseline",
    "log_rank",
    "no_brier",
    "quantile_groups",
    "quantile_tau",
    "resample_patients",
    "slope",
    "uno_weights",
    "with_interval",
]
