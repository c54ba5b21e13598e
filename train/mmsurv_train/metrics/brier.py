"""Brier scores: how far predicted survival is from what happened, at a time and integrated over time.

Owns the statistics only. The scores equal scikit-survival's (tests/reference/test_survival_metrics.py), computed from
what each case adds to them, which is what the bootstrap draws; the weights are scikit-survival's, and stay fixed.
Beside each stands the score of a Kaplan–Meier curve, which gives everyone the same chance: a model is worth something
where it is below.
Shape suffixes: N cases, R resamples, T times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmsurv_train.metrics.estimate import Estimate, Reference, drawn_samples, structured, with_interval
from mmsurv_train.metrics.predicted import SurvivalCurves

GRID_STEPS = 100
"""The integral is over τ/100, 2τ/100, …, τ, as far as the cases and the curves reach."""


@dataclass(frozen=True)
class Brier:
    """A score, that of no model, and the share of it that the model takes away."""

    score: Estimate
    kaplan_meier: float | None
    skill: Estimate
    """1 − score / Kaplan–Meier's: 0 is no better than no model, 1 perfect."""
    span: tuple[float, float] | None = None
    """Months that an integrated score is over."""


def no_brier(reason: str) -> Brier:
    """Where there is no score, and why."""
    return Brier(Estimate(None, reason=reason), None, Estimate(None, reason=reason))


@dataclass(frozen=True, eq=False)
class Judged:
    """Cases with the survival predicted for them, and by no model."""

    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    patient: Sequence[str] | pd.Series
    curves: SurvivalCurves
    nothing: SurvivalCurves
    """The Kaplan–Meier curve of the patients that the model was fitted on."""
    reference: Reference


def brier_at(judged: Judged, months: float, *, n_resamples: int, seed: int, confidence: float = 0.95) -> Brier:
    """The Brier score at one time; no value, and why, where it is not defined.

    Args:
        judged: the cases.
        months: the time.
        n_resamples, seed, confidence: of the intervals; 0 resamples for none.

    Source: Graf et al. 1999; sksurv.metrics.brier_score.
    """
    lacking = _lacking(judged, months)
    if lacking:
        return no_brier(lacking)
    try:
        weights = _weights(judged, [months])
    except ValueError as error:
        return no_brier(_unweighted(error))
    errors = [_errors(judged, curves, [months], weights)[:, 0] for curves in (judged.curves, judged.nothing)]
    return _with_skill(errors, judged, n_resamples=n_resamples, seed=seed, confidence=confidence)


def integrated_brier(judged: Judged, *, n_resamples: int, seed: int, confidence: float = 0.95) -> Brier:
    """The Brier score integrated up to τ and divided by the months integrated over; arguments as :func:`brier_at`.

    The grid leaves out what is before the first case's time, and from the last one's on, and beyond the last death
    that the model knows of: there the score is not defined. ``span`` says what is left.

    Source: Graf et al. 1999; sksurv.metrics.integrated_brier_score.
    """
    grid = np.arange(1, GRID_STEPS + 1) * (judged.reference.tau / GRID_STEPS)
    grid = grid[[not _lacking(judged, moment) for moment in grid]]
    if len(grid) < 2:
        reason = f"fewer than two times up to τ = {judged.reference.tau:.4g} months have a Brier score"
        return no_brier(reason)
    try:
        weights = _weights(judged, grid)
    except ValueError as error:
        return no_brier(_unweighted(error))
    errors = [
        np.trapezoid(_errors(judged, curves, grid, weights), grid, axis=1) / (grid[-1] - grid[0])
        for curves in (judged.curves, judged.nothing)
    ]
    found = _with_skill(errors, judged, n_resamples=n_resamples, seed=seed, confidence=confidence)
    return Brier(found.score, found.kaplan_meier, found.skill, (float(grid[0]), float(grid[-1])))


def _with_skill(
    errors: Sequence[NDArray],
    judged: Judged,
    *,
    n_resamples: int,
    seed: int,
    confidence: float,
) -> Brier:
    """The score and the skill with intervals; ``errors`` are what each case adds, with the model and without."""
    value, nothing = (float(error.mean()) for error in errors)
    score = Estimate(value)
    skill = Estimate(1 - value / nothing) if nothing > 0 else Estimate(None, reason="Kaplan–Meier makes no error")
    if n_resamples:
        draws = np.zeros((2, n_resamples))
        for block, sample in drawn_samples(judged.patient, n_resamples=n_resamples, seed=seed):
            for which, error in enumerate(errors):
                draws[which, block] = (sample * error).sum(1) / sample.sum(1)
        ratio = np.divide(draws[0], draws[1], out=np.full(n_resamples, np.nan), where=draws[1] > 0)
        score = with_interval(score, draws[0], confidence=confidence)
        skill = with_interval(skill, 1 - ratio, confidence=confidence, having="an error of Kaplan–Meier")
    return Brier(score, nothing, skill)


def _lacking(judged: Judged, months: float) -> str:
    """Why there is no Brier score at a time; empty where there is one."""
    if not len(judged.time) or months < judged.time.min():
        return f"no case was followed for {months:g} months or died by then" if len(judged.time) else "no cases"
    if months >= judged.time.max():
        return f"no case was followed for more than {months:g} months"
    if months > judged.curves.end:
        return (
            f"no survival is predicted at {months:g} months: the training part's last death is at {judged.curves.end:g}"
        )
    return ""


def _weights(judged: Judged, months: ArrayLike) -> tuple[NDArray, NDArray]:
    """Weights of those who died (N,) and of those alive at each time (T,): 1/Ĝ. Raises ValueError: not to be had."""
    from sksurv.nonparametric import CensoringDistributionEstimator

    months = np.asarray(months, float)
    censoring = CensoringDistributionEstimator().fit(_train(judged))
    capped = np.minimum(judged.time, np.nextafter(months[-1], np.inf))
    at_own, at_time = censoring.predict_proba(capped), censoring.predict_proba(months)
    return _inverse(at_own), _inverse(at_time)


def _inverse(share: NDArray) -> NDArray[np.float64]:
    """1/share, 0 where that is 0: scikit-survival leaves such cases out as well."""
    return np.divide(1.0, share, out=np.zeros_like(share), where=share > 0)


def _errors(
    judged: Judged, curves: SurvivalCurves, months: ArrayLike, weights: tuple[NDArray, NDArray]
) -> NDArray[np.float64]:
    """Weighted squared errors (N, T), whose mean over cases is the Brier score."""
    at_own, at_time = weights
    months = np.asarray(months, float)
    survival = curves.at(months)
    lives = judged.time[:, None] > months
    died = ~lives & judged.event[:, None]
    return survival**2 * died * at_own[:, None] + (1 - survival) ** 2 * lives * at_time


def _train(judged: Judged) -> NDArray:
    return structured(judged.reference.time, judged.reference.event)


def _unweighted(error: ValueError) -> str:
    return f"censoring cannot be estimated from the reference ({error})"
