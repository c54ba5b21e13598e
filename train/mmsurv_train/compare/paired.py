"""Concordance of several models on the same rows, resampled alike, and what is between two of them.

Owns the paired bootstrap: every model meets the same draws of patients, so what a draw does to all models alike falls
out of their difference. No files and no choice of patients. Higher risk means an earlier event.
Shape suffixes: N rows (slides or cases), R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmsurv_train import metrics
from mmsurv_train.metrics import Estimate, Reference

P_METHOD = (
    "two-sided bootstrap: 2 (1 + min(draws with a difference of at most 0, draws with one of at least 0)) / "
    "(1 + draws), at most 1"
)
HOLM_METHOD = "Holm's, over the pairs of one measure at one level"


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What every model is judged on, in one order."""

    time: NDArray[np.float64]
    """Months, (N,)."""
    event: NDArray[np.bool_]
    patient: NDArray[Any]
    """Who is resampled, (N,)."""
    fold: NDArray[Any] | None = None
    """Fold of each row; None where models have no folds in common."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How patients are drawn."""

    n_resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A measure of one model, and the same in every resample."""

    estimate: Estimate
    draws: NDArray[np.float64]
    """(R,); NaN where it is not defined."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is between two models, or the reason why that is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    """The p adjusted for the other pairs; None where there is one pair."""
    reason: str | None = None

    def to_table(self) -> dict[str, Any]:
        """JSON-able; ``reason`` only where something is missing."""
        return {key: value for key, value in asdict(self).items() if key != "reason" or value is not None}


def harrell(risk_N: ArrayLike, rows: Rows, how: Resampling) -> Measured:
    """Harrell's C-index of all rows together."""
    return _measured(metrics.c_index(risk_N, rows.time, rows.event), risk_N, rows, None, how)


def uno(risk_N: ArrayLike, rows: Rows, reference: Reference, how: Resampling) -> Measured:
    """Uno's C-index; the weights stay fixed in the resamples."""
    estimate = metrics.c_index_ipcw(risk_N, rows.time, rows.event, reference)
    weights = None if estimate.value is None else metrics.uno_weights(rows.time, rows.event, reference)
    return _measured(estimate, risk_N, rows, weights, how)


def fold_mean(risk_N: ArrayLike, rows: Rows, how: Resampling) -> Measured:
    """The mean of the folds' Harrell's C-indices; patients are resampled within their fold.

    A fold without a comparable pair is left out; a resample in which another fold has none is undefined.
    """
    if rows.fold is None:
        raise ValueError("the rows have no folds")
    risk, found = np.asarray(risk_N, float), list[Measured]()
    for place, fold in enumerate(np.unique(rows.fold)):
        chosen = rows.fold == fold
        within = Rows(time=rows.time[chosen], event=rows.event[chosen], patient=rows.patient[chosen])
        of_fold = Resampling(
            n_resamples=how.n_resamples, seed=_seed_of_fold(how.seed, place), confidence=how.confidence
        )
        one = harrell(risk[chosen], within, of_fold)
        if one.estimate.value is not None:
            found.append(one)
    if not found:
        return Measured(estimate=Estimate(None, reason="no fold has a comparable pair"), draws=_nothing(how))
    mean = Estimate(float(np.mean([one.estimate.value for one in found])))
    if not how.n_resamples:
        return Measured(estimate=mean, draws=_nothing(how))
    draws = np.mean([one.draws for one in found], axis=0)
    return Measured(estimate=metrics.with_interval(mean, draws, confidence=how.confidence), draws=draws)


def difference(reference: Measured, other: Measured, how: Resampling) -> Difference:
    """``other`` − ``reference``, with the percentile interval and the p of the differences in each resample."""
    left, right = reference.estimate.value, other.estimate.value
    if left is None or right is None:
        return Difference(value=None, reason=reference.estimate.reason or other.estimate.reason)
    if not how.n_resamples:
        return Difference(value=right - left)
    draws = other.draws - reference.draws
    found = metrics.with_interval(Estimate(right - left), draws, confidence=how.confidence)
    if found.low is None:
        return Difference(value=found.value, reason=found.reason)
    return Difference(value=found.value, low=found.low, high=found.high, p=two_sided_p(draws))


def two_sided_p(draws_R: NDArray[np.float64]) -> float | None:
    """How often the resampled difference reaches zero from where most draws are, doubled; never 0.

    With R draws that are defined: 2 (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (R + 1), at most 1. None without any.
    """
    defined = draws_R[np.isfinite(draws_R)]
    if not len(defined):
        return None
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (len(defined) + 1))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p of each; what is None stays None and does not count.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted: list[float | None] = [None] * len(ps)
    tested = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    least = 0.0
    for rank, (p, place) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - rank)))
        adjusted[place] = least
    return adjusted


def _measured(estimate: Estimate, risk_N: ArrayLike, rows: Rows, weights: NDArray | None, how: Resampling) -> Measured:
    if estimate.value is None or not how.n_resamples:
        return Measured(estimate=estimate, draws=_nothing(how))
    draws = metrics.bootstrap_c_index(
        risk_N,
        rows.time,
        rows.event,
        pd.Series(rows.patient),
        n_resamples=how.n_resamples,
        seed=how.seed,
        weight_N=weights,
    )
    return Measured(estimate=metrics.with_interval(estimate, draws, confidence=how.confidence), draws=draws)


def _nothing(how: Resampling) -> NDArray[np.float64]:
    return np.full(how.n_resamples, np.nan)


def _seed_of_fold(seed: int, place: int) -> int:
    """Folds are drawn independently of each other, and alike for every model."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])
