"""Risk groups with their curves: Kaplan–Meier, log-rank, numbers at risk.

Owns the statistics only; the estimates are scikit-survival's. Shape suffixes: N cases, T times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmsurv_train.metrics.estimate import structured

CURVE_CONFIDENCE = 0.95


@dataclass(frozen=True)
class LogRank:
    """A log-rank test: the statistic (chi-squared, one degree of freedom) and its two-sided p."""

    chi2: float | None
    p: float | None
    reason: str | None = None


def high_risk(risk_N: ArrayLike, cut: float) -> NDArray[np.bool_]:
    """True above the cut, which comes from the training part (its median risk)."""
    return np.asarray(risk_N, float) > cut


def log_rank(time_N: ArrayLike, event_N: ArrayLike, high_N: ArrayLike) -> LogRank:
    """Log-rank test between the high-risk and the low-risk group. Source: sksurv.compare.compare_survival."""
    from sksurv.compare import compare_survival

    high, event = np.asarray(high_N, bool), np.asarray(event_N, bool)
    if high.all() or not high.any():
        return LogRank(None, None, f"all {len(high)} patients are in one risk group")
    if not event.any():
        return LogRank(None, None, "no events")
    try:
        chi2, p = compare_survival(structured(time_N, event), high.astype(int))
    except np.linalg.LinAlgError:
        return LogRank(None, None, "no event while both groups were at risk")
    return LogRank(float(chi2), float(p))


def kaplan_meier(time_N: ArrayLike, event_N: ArrayLike) -> pd.DataFrame:
    """Kaplan–Meier curve as steps: columns time (months), survival, low, high (95 %, log-log) and censored.

    Starts at time 0 with survival 1. Source: sksurv.nonparametric.kaplan_meier_estimator.
    """
    from sksurv.nonparametric import kaplan_meier_estimator

    time, event = np.asarray(time_N, float), np.asarray(event_N, bool)
    steps, survival, (low, high) = kaplan_meier_estimator(event, time, conf_level=CURVE_CONFIDENCE, conf_type="log-log")
    censored = np.isin(steps, time[~event])
    return pd.DataFrame(
        {
            "time": np.r_[0.0, steps],
            "survival": np.r_[1.0, survival],
            "low": np.r_[1.0, low],
            "high": np.r_[1.0, high],
            "censored": np.r_[False, censored],
        }
    )


def at_risk(time_N: ArrayLike, at_T: ArrayLike) -> NDArray[np.int64]:
    """Numbers still under observation at each time (their time is not before it)."""
    time = np.asarray(time_N, float)
    return np.array([(time >= moment).sum() for moment in np.asarray(at_T, float)], dtype=np.int64)
