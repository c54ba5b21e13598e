"""Calibration: whether predicted survival is right in months, and not only in order.

Owns the statistics only. At one time: the deaths expected and observed, groups of patients by predicted survival
against their Kaplan–Meier estimate, and the slope. Over all times: D-calibration.
Shape suffixes: N cases, R resamples, B bins.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmsurv_train.metrics.estimate import Estimate, checked, drawn_samples, structured, with_interval
from mmsurv_train.metrics.groups import kaplan_meier
from mmsurv_train.metrics.predicted import SurvivalCurves
from mmsurv_train.metrics.resampled import survival_of_draws

LEAST_IN_GROUP = 10
"""Fewer groups are made rather than smaller ones."""
LEAST_EVENTS_FOR_SLOPE = 5

BINS = 10
"""Of D-calibration: tenths of predicted survival, as its authors have it."""
LEAST_EXPECTED = 5
"""Cases that a bin must be expected to hold for the chi-squared distribution to be any good."""


@dataclass(frozen=True)
class Group:
    """Cases that are alike in predicted survival."""

    n: int
    predicted: float
    """Mean predicted survival."""
    observed: Estimate
    """Kaplan–Meier, with its own interval (95 %, log-log)."""


@dataclass(frozen=True)
class Calibration:
    """Calibration at one time."""

    expected: float | None
    """Share predicted to have died by then."""
    observed: Estimate
    """Share that has, by Kaplan–Meier."""
    ratio: Estimate
    """Observed over expected: 1 is right, above 1 more died than predicted."""
    slope: Estimate
    """1 is right; below 1, predictions are too extreme. Above 1, too timid."""
    groups: list[Group]


@dataclass(frozen=True)
class DCalibration:
    """Whether predicted survival at the time of death is spread evenly from 0 to 1."""

    chi2: float | None
    p: float | None
    """Small: not calibrated."""
    bins: list[float]
    """Share of the cases in each tenth, the lowest survival first; calibrated, each is 0.1."""
    n_beyond: int
    """Cases that outlived the predicted curves, counted as censored where these end."""
    reason: str | None = None


def calibration_at(
    months: float,
    time_N: NDArray,
    event_N: NDArray,
    curves: SurvivalCurves,
    *,
    n_groups: int,
    patient_N: Sequence[str] | pd.Series,
    n_resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> Calibration:
    """Predicted survival at one time against what was observed.

    Args:
        months: the time.
        time_N, event_N: outcomes in months.
        curves: predicted survival of the same cases.
        n_groups: most groups; each holds at least ``LEAST_IN_GROUP`` cases.
        patient_N, n_resamples, seed, confidence: of the interval of observed over expected; 0 resamples for none.
    """
    survival = curves.at([months])[:, 0]
    if not len(survival) or not np.isfinite(survival).all():
        reason = f"no survival is predicted at {months:g} months" if len(survival) else "no cases"
        nothing = Estimate(None, reason=reason)
        return Calibration(None, nothing, nothing, nothing, [])
    expected, alive = float((1 - survival).mean()), _observed(time_N, event_N, months)
    observed = alive
    if alive.value is not None:
        observed = Estimate(1 - alive.value, _flipped(alive.high), _flipped(alive.low))
    ratio = _ratio(observed, expected)
    if ratio.value is not None and n_resamples:
        drawn = drawn_samples(patient_N, n_resamples=n_resamples, seed=seed)
        draws = np.concatenate([_ratio_of(sample, survival, time_N, event_N, months) for _, sample in drawn])
        ratio = with_interval(ratio, draws, confidence=confidence, having=f"someone at risk at {months:g} months")
    groups = [
        Group(len(rows), float(survival[rows].mean()), _observed(time_N[rows], event_N[rows], months))
        for rows in quantile_groups(-survival, n_groups)
    ]
    return Calibration(expected, observed, ratio, slope(survival, time_N, event_N, months), groups)


def _ratio(observed: Estimate, expected: float) -> Estimate:
    """Deaths observed over expected."""
    if observed.value is None:
        return observed
    return Estimate(observed.value / expected) if expected > 0 else Estimate(None, reason="no death is expected")


def _ratio_of(
    sample_RN: NDArray, survival_N: NDArray, time_N: NDArray, event_N: NDArray, months: float
) -> NDArray[np.float64]:
    """The same in each resample (R,); NaN where it is not defined."""
    died = (1 - survival_of_draws(sample_RN, time_N, event_N, [months])[:, 0]) * sample_RN.sum(1)
    due = (sample_RN * (1 - survival_N)).sum(1)
    return np.divide(died, due, out=np.full(len(due), np.nan), where=due > 0)


def quantile_groups(risk_N: NDArray, n_groups: int) -> list[NDArray[np.int64]]:
    """Indices of cases by rising risk, in groups as even as can be; equal risks are never parted."""
    n_groups = max(1, min(n_groups, len(risk_N) // LEAST_IN_GROUP))
    cuts = np.quantile(risk_N, np.arange(1, n_groups) / n_groups)
    place = np.searchsorted(cuts, risk_N, side="left")
    return [np.flatnonzero(place == group) for group in np.unique(place)]


def slope(survival_N: NDArray, time_N: NDArray, event_N: NDArray, months: float) -> Estimate:
    """Calibration slope at a time: the Cox coefficient of log(−log S) on what happened up to it.

    For one proportional-hazards model it is the coefficient of its risk. Whoever lives longer is censored at the time.

    Source: van Houwelingen 2000; fitted by sksurv.linear_model.CoxPHSurvivalAnalysis (Efron).
    """
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    died = event_N & (time_N <= months)
    with np.errstate(divide="ignore"):  # S of 0 or 1 gives ±∞, and then there is no slope
        log_hazard = np.log(-np.log(survival_N))
    if died.sum() < LEAST_EVENTS_FOR_SLOPE:
        return Estimate(None, reason=f"{died.sum()} deaths by {months:g} months, fewer than {LEAST_EVENTS_FOR_SLOPE}")
    if not np.isfinite(log_hazard).all():
        return Estimate(None, reason=f"predicted survival at {months:g} months is 0 or 1 for someone")
    if np.ptp(log_hazard) == 0:
        return Estimate(None, reason="all predictions are alike")
    outcome = structured(np.minimum(time_N, months), died)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted = CoxPHSurvivalAnalysis(ties="efron").fit((log_hazard - log_hazard.mean())[:, None], outcome)
    except (ArithmeticError, ValueError, Warning, np.linalg.LinAlgError):
        return Estimate(None, reason="the fit does not converge, as where deaths come in the very order predicted")
    return Estimate(float(fitted.coef_[0]))


def d_calibration(time_N: NDArray, event_N: NDArray, curves: SurvivalCurves) -> DCalibration:
    """Test whether predicted survival at death is uniform: chi-squared over ten bins, nine degrees of freedom.

    A case that died counts in the bin of its survival at that time. One censored at survival c may die at any survival
    below, so it is spread evenly over [0, c]; one that outlived its curve is spread below the curve's last value.
    Spread cases vary less than the test takes them to, so with much censoring its p is too great rather than too small.

    Source: Haider et al. 2020, Journal of Machine Learning Research 21 (85).
    """
    from scipy.stats import chi2 as chi_squared

    _, time, event = checked(np.zeros(len(time_N)), time_N, event_N)
    ends = curves.ends()
    beyond = time > ends
    survival = curves.at_own(np.minimum(time, ends))
    counts = _spread(survival, event & ~beyond)
    n = len(time)
    bins = [float(count / n) for count in counts] if n else []
    if n < BINS * LEAST_EXPECTED:
        reason = f"{n} cases: fewer than {LEAST_EXPECTED} expected in each of {BINS} bins"
        return DCalibration(None, None, bins, int(beyond.sum()), reason)
    statistic = float(((counts - n / BINS) ** 2).sum() / (n / BINS))
    return DCalibration(statistic, float(chi_squared.sf(statistic, BINS - 1)), bins, int(beyond.sum()))


def _spread(survival_N: NDArray, died_N: NDArray) -> NDArray[np.float64]:
    """Cases in each bin (B,), those who did not die spread evenly from 0 to their survival."""
    place = np.minimum((survival_N * BINS).astype(int), BINS - 1)
    counts = np.bincount(place[died_N], minlength=BINS).astype(float)
    lower = np.arange(BINS) / BINS
    censored = survival_N[~died_N, None]
    within = np.clip(censored - lower, 0, 1 / BINS)
    share = np.divide(within, censored, out=np.zeros_like(within), where=censored > 0)
    share[censored[:, 0] <= 0, 0] = 1.0  # survival 0 leaves only the lowest bin
    return counts + share.sum(axis=0)


def _observed(time_N: NDArray, event_N: NDArray, months: float) -> Estimate:
    """Kaplan–Meier survival at a time; no value beyond the last case's follow-up, unless all have died."""
    if not len(time_N):
        return Estimate(None, reason="no cases")
    curve = kaplan_meier(time_N, event_N)
    last = curve[curve["time"] <= months].iloc[-1]
    if months > time_N.max() and last["survival"] > 0:
        return Estimate(None, reason=f"nobody is followed for {months:g} months")
    low, high = (float(last[name]) if np.isfinite(last[name]) else None for name in ("low", "high"))
    return Estimate(float(last["survival"]), low, high)


def _flipped(share: float | None) -> float | None:
    return None if share is None else 1 - share
