"""Kaplan–Meier in many resamples at once.

Owns the weighted curve only: a sample drawn k times counts k times, in the risk sets as among the deaths. Checked
against scikit-survival on repeated samples (tests/reference/test_survival_metrics.py).
Shape suffixes: N samples, R resamples, T times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def survival_of_draws(
    sample_RN: NDArray, time_N: NDArray, event_N: NDArray, months: Sequence[float]
) -> NDArray[np.float64]:
    """Survival (R, T) at each of the months in every resample.

    NaN where nobody of a resample is followed that long and not all have died.
    """
    order = np.argsort(time_N, kind="stable")
    time, sample = time_N[order], sample_RN[:, order]
    steps, first = np.unique(time, return_index=True)
    wanted = int(np.searchsorted(steps, max(months), side="right"))
    survival = np.ones((len(sample), wanted + 1))
    if wanted:
        deaths = np.add.reduceat(sample * event_N[order], first, axis=1)[:, :wanted]
        at_risk = np.cumsum(sample[:, ::-1], axis=1)[:, ::-1][:, first[:wanted]]
        hazard = np.divide(deaths, at_risk, out=np.zeros_like(deaths), where=at_risk > 0)
        np.cumprod(1.0 - hazard, axis=1, out=survival[:, 1:])
    found = survival[:, np.searchsorted(steps, months, side="right")]
    followed = np.stack([(sample * (time >= moment)).sum(1) > 0 for moment in months], 1)
    return np.where(followed | (found == 0), found, np.nan)
