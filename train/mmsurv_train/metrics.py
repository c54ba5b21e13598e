"""Concordance with its interval, and risk groups with their curves, for risks that are already computed.

Owns the statistics only: no files, no models, no choice of patients. The point estimates are scikit-survival's;
the bootstrap is ours, because it resamples patients (a patient's slides are not independent) and has to be fast.
Higher risk always means an earlier event. A number that is not defined is ``None`` with a reason, never NaN.
Shape suffixes: N samples (slides or cases), P patients, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

TIED_TOLERANCE = 1e-8
"""Risks closer than this are tied: scikit-survival's default, repeated for the bootstrap."""

CURVE_CONFIDENCE = 0.95
INTERVAL_METHOD = "percentile bootstrap over patients"

_BLOCK_ROWS = 512
"""Rows of the pair matrix held at once: 512 × 20,000 slides × 8 bytes is 80 MB."""


_BLOCK_DRAWS = 1000
"""Resamples held at once: 1000 × 20,000 slides × 8 bytes is 160 MB."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def to_table(self) -> dict[str, Any]:
        """JSON-able; ``reason`` only where something is missing."""
        return {key: value for key, value in asdict(self).items() if key != "reason" or value is not None}


@dataclass(frozen=True)
class LogRank:
    """A log-rank test: the statistic (chi-squared, one degree of freedom) and its two-sided p."""

    chi2: float | None
    p: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where Uno's C-index takes its censoring distribution from: the training part, or all patients of pooled folds."""

    name: str
    """Which part it is, for the record."""
    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    tau: float
    """Months; events at or after it are not judged. Fixed from the same part (:func:`quantile_tau`)."""


def comparable_pairs(time_N: ArrayLike, event_N: ArrayLike) -> int:
    """How many ordered pairs can be judged: the first has an event before the second's time, or at its censoring.

    Two events at one time are not comparable, so a patient's slides never are.
    """
    time, event = np.asarray(time_N, float), np.asarray(event_N, bool)
    return sum(int(_pairs(time, event, rows).sum()) for rows in _blocks(np.flatnonzero(event)))


def c_index(risk_N: ArrayLike, time_N: ArrayLike, event_N: ArrayLike) -> Estimate:
    """Harrell's concordance index.

    Args:
        risk_N: shape (N,); higher means an earlier event.
        time_N: months, shape (N,), greater than zero.
        event_N: True where death was observed, False where censored.

    Returns:
        The estimate without interval; no value where no pair is comparable.

    Raises:
        ValueError: a risk or time that is not finite.

    Source: sksurv.metrics.concordance_index_censored.
    """
    from sksurv.metrics import concordance_index_censored

    risk, time, event = _checked(risk_N, time_N, event_N)
    if comparable_pairs(time, event) == 0:
        return Estimate(None, reason=_no_pairs(event))
    return Estimate(float(concordance_index_censored(event, time, risk, tied_tol=TIED_TOLERANCE)[0]))


def quantile_tau(time_N: ArrayLike, quantile: float) -> float:
    """A τ for Uno's C-index: a quantile of the follow-up times, in months."""
    return float(np.quantile(np.asarray(time_N, float), quantile))


def uno_weights(time_N: ArrayLike, event_N: ArrayLike, reference: Reference) -> NDArray[np.float64]:
    """Weight of each sample's pairs in Uno's C-index: 1/Ĝ(t)² for an event before τ, otherwise 0.

    Ĝ is the Kaplan–Meier estimate of the reference's censoring distribution.

    Raises:
        ValueError: Ĝ cannot be estimated, or is zero at an event before τ.
    """
    from sksurv.nonparametric import CensoringDistributionEstimator

    time, event = np.asarray(time_N, float), np.asarray(event_N, bool)
    used = event & (time < reference.tau)
    weights = np.zeros(len(time))
    if used.any():
        censoring = CensoringDistributionEstimator().fit(_structured(reference.time, reference.event))
        weights[used] = censoring.predict_ipcw(_structured(time[used], event[used])) ** 2
    return weights


def c_index_ipcw(risk_N: ArrayLike, time_N: ArrayLike, event_N: ArrayLike, reference: Reference) -> Estimate:
    """Uno's concordance index: weighted by the inverse probability of censoring, truncated at ``reference.tau``.

    Args:
        risk_N, time_N, event_N: as for :func:`c_index`.
        reference: outcomes of the training part, and τ.

    Returns:
        The estimate without interval; no value, and why, where it is not defined.

    Source: Uno et al. 2011; sksurv.metrics.concordance_index_ipcw.
    """
    from sksurv.metrics import concordance_index_ipcw

    risk, time, event = _checked(risk_N, time_N, event_N)
    judged = event & (time < reference.tau)
    if comparable_pairs(time, event) == 0:
        return Estimate(None, reason=_no_pairs(event))
    if not _pairs(time, event, np.flatnonzero(judged)).any():
        return Estimate(None, reason=f"no comparable pair with an event before τ = {reference.tau:.4g} months")
    train, test = _structured(reference.time, reference.event), _structured(time, event)
    try:
        value = concordance_index_ipcw(train, test, risk, tau=reference.tau, tied_tol=TIED_TOLERANCE)[0]
    except ValueError as error:
        return Estimate(None, reason=f"censoring cannot be estimated from the reference ({error})")
    return Estimate(float(value))


def resample_patients(n_patients: int, *, n_resamples: int, seed: int | np.random.Generator) -> NDArray[np.float64]:
    """How often each patient was drawn, shape (R, P): draws with replacement, P at a time.

    The same seed and number of patients give the same draws, so two models on the same patients, in the same
    order, are resampled alike. A generator in the place of the seed goes on where its last draws ended.
    """
    generator = np.random.default_rng(seed)
    share = np.full(n_patients, 1 / n_patients)
    return generator.multinomial(n_patients, share, size=n_resamples).astype(float)


def bootstrap_c_index(
    risk_N: ArrayLike,
    time_N: ArrayLike,
    event_N: ArrayLike,
    patient_N: Sequence[str] | pd.Series,
    *,
    n_resamples: int,
    seed: int,
    weight_N: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """The C-index in each resample of patients; a patient drawn k times counts k times, with all their slides.

    With C the matrix of concordant pairs (ties ½), P of comparable pairs and w the multiplicities, a resample's
    C-index is wᵀCw / wᵀPw: duplicates are weights and never collapse, and a block of resamples is one matrix product.
    The products are sums of counts, exact in float64, so the number of BLAS threads does not change a bit.

    Args:
        risk_N, time_N, event_N: as for :func:`c_index`.
        patient_N: the patient of each sample; resampled in sorted order.
        weight_N: weight of the pairs of each event (:func:`uno_weights`); all 1 gives Harrell's.

    Returns:
        Shape (R,), NaN for a resample without a comparable pair.
    """
    risk, time, event = _checked(risk_N, time_N, event_N)
    weight = np.ones(len(risk)) if weight_N is None else np.asarray(weight_N, float)
    _, patient = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    n_patients, generator, draws = int(patient.max(initial=-1)) + 1, np.random.default_rng(seed), np.zeros(n_resamples)
    for start in range(0, n_resamples, _BLOCK_DRAWS):
        block = draws[start : start + _BLOCK_DRAWS]
        times_drawn = resample_patients(n_patients, n_resamples=len(block), seed=generator)
        block[:] = _c_index_of(times_drawn[:, patient], risk, time, event, weight)
    return draws


def _c_index_of(sample: NDArray, risk: NDArray, time: NDArray, event: NDArray, weight: NDArray) -> NDArray:
    """The C-index of each row of multiplicities, shape (R, N); NaN without a comparable pair."""
    concordant, comparable = np.zeros(len(sample)), np.zeros(len(sample))
    for rows in _blocks(np.flatnonzero(event & (weight > 0))):
        pairs = _pairs(time, event, rows)
        difference = risk[rows, None] - risk[None, :]
        tied = np.abs(difference) <= TIED_TOLERANCE
        agree = pairs * np.where(tied, 0.5, difference > 0)
        share = sample[:, rows]
        concordant += (share * (sample @ agree.T) * weight[rows]).sum(axis=1)
        comparable += (share * (sample @ pairs.T.astype(float)) * weight[rows]).sum(axis=1)
    return np.divide(concordant, comparable, out=np.full(len(sample), np.nan), where=comparable > 0)


def with_interval(estimate: Estimate, draws_R: NDArray[np.float64], *, confidence: float = 0.95) -> Estimate:
    """The estimate with the percentile interval of its resamples; undefined resamples are left out."""
    defined = draws_R[np.isfinite(draws_R)]
    if estimate.value is None:
        return estimate
    if len(defined) < max(2, len(draws_R) / 2):
        reason = f"no interval: only {len(defined)} of {len(draws_R)} resamples have a comparable pair"
        return Estimate(estimate.value, reason=reason)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(estimate.value, float(low), float(high))


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
        chi2, p = compare_survival(_structured(time_N, event), high.astype(int))
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


def _pairs(time: NDArray, event: NDArray, rows: NDArray) -> NDArray[np.bool_]:
    """Comparable pairs of the given events with all samples, shape (rows, N)."""
    later = time[None, :] > time[rows, None]
    return later | ((time[None, :] == time[rows, None]) & ~event[None, :])


def _blocks(rows: NDArray) -> list[NDArray]:
    return [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]


def _checked(risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    risk, time, event = np.asarray(risk, np.float64), np.asarray(time, np.float64), np.asarray(event)
    if not (risk.shape == time.shape == event.shape) or risk.ndim != 1:
        shapes = f"{risk.shape}, {time.shape}, {event.shape}"
        raise ValueError(f"risk, time and event must be 1-D and of one length, not {shapes}.")
    if event.dtype != np.bool_:
        raise ValueError(f"event must be boolean, not {event.dtype}.")
    for name, values in (("risk", risk), ("time", time)):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{name} of row {row} is {values[row]}, which has no rank.")
    return risk, time, event


def _structured(time: ArrayLike, event: ArrayLike) -> NDArray:
    from sksurv.util import Surv

    return Surv.from_arrays(np.asarray(event, bool), np.asarray(time, float))


def _no_pairs(event: NDArray) -> str:
    if len(event) < 2:
        return f"no comparable pair: {len(event)} sample{'s' * (len(event) != 1)}"
    why = "no event before another's time" if event.any() else "no events"
    return f"no comparable pair: {why}"
