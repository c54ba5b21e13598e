"""Harrell's and Uno's concordance of risks that are already computed, and their bootstrap.

Owns the statistics only: no files, no models, no choice of patients. The point estimates are scikit-survival's;
the bootstrap is ours, because it resamples patients (a patient's slides are not independent) and has to be fast.
Shape suffixes: N samples (slides or cases), P patients, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmsurv_train.metrics.estimate import Estimate, Reference, checked, drawn_samples, structured

TIED_TOLERANCE = 1e-8
"""Risks closer than this are tied: scikit-survival's default, repeated for the bootstrap."""

_BLOCK_ROWS = 512
"""Rows of the pair matrix held at once: 512 × 20,000 slides × 8 bytes is 80 MB."""


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

    risk, time, event = checked(risk_N, time_N, event_N)
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
        censoring = CensoringDistributionEstimator().fit(structured(reference.time, reference.event))
        weights[used] = censoring.predict_ipcw(structured(time[used], event[used])) ** 2
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

    risk, time, event = checked(risk_N, time_N, event_N)
    judged = event & (time < reference.tau)
    if comparable_pairs(time, event) == 0:
        return Estimate(None, reason=_no_pairs(event))
    if not _pairs(time, event, np.flatnonzero(judged)).any():
        return Estimate(None, reason=f"no comparable pair with an event before τ = {reference.tau:.4g} months")
    train, test = structured(reference.time, reference.event), structured(time, event)
    try:
        value = concordance_index_ipcw(train, test, risk, tau=reference.tau, tied_tol=TIED_TOLERANCE)[0]
    except ValueError as error:
        return Estimate(None, reason=f"censoring cannot be estimated from the reference ({error})")
    return Estimate(float(value))


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
    risk, time, event = checked(risk_N, time_N, event_N)
    weight = np.ones(len(risk)) if weight_N is None else np.asarray(weight_N, float)
    draws = np.zeros(n_resamples)
    for block, sample in drawn_samples(patient_N, n_resamples=n_resamples, seed=seed):
        draws[block] = _c_index_of(sample, risk, time, event, weight)
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


def _pairs(time: NDArray, event: NDArray, rows: NDArray) -> NDArray[np.bool_]:
    """Comparable pairs of the given events with all samples, shape (rows, N)."""
    later = time[None, :] > time[rows, None]
    return later | ((time[None, :] == time[rows, None]) & ~event[None, :])


def _blocks(rows: NDArray) -> list[NDArray]:
    return [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]


def _no_pairs(event: NDArray) -> str:
    if len(event) < 2:
        return f"no comparable pair: {len(event)} sample{'s' * (len(event) != 1)}"
    why = "no event before another's time" if event.any() else "no events"
    return f"no comparable pair: {why}"
