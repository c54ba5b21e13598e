"""The time-dependent AUC (cumulative cases, dynamic controls), and its bootstrap.

Owns the statistics only. At t months, those who died by then are told from those who live longer; whoever was censored
before counts through the weights of the others. The point estimates are scikit-survival's, the bootstrap is ours.
Shape suffixes: N samples (slides or cases), R resamples, T times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmsurv_train.metrics.concordance import TIED_TOLERANCE
from mmsurv_train.metrics.estimate import Estimate, Reference, checked, drawn_samples, structured, with_interval
from mmsurv_train.metrics.resampled import survival_of_draws


@dataclass(frozen=True)
class DynamicAuc:
    """The AUC at each time and its mean over the times at which it is defined."""

    at: list[Estimate]
    mean: Estimate
    """Weighted by how much of the survival of the samples falls into each interval, as scikit-survival has it."""
    used: list[float]
    """Months that the mean is over."""


def dynamic_auc(
    risk_N: ArrayLike,
    time_N: ArrayLike,
    event_N: ArrayLike,
    months: Sequence[float],
    reference: Reference,
    *,
    patient_N: Sequence[str] | pd.Series,
    n_resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> DynamicAuc:
    """Time-dependent AUC at each of the months, and their mean, with intervals.

    Args:
        risk_N: shape (N,); higher means an earlier event.
        time_N: months, shape (N,), greater than zero.
        event_N: True where death was observed.
        months: increasing.
        reference: outcomes that the censoring is estimated from; its τ has no part in this.
        patient_N: the patient of each sample, for the resamples.
        n_resamples: 0 for no intervals. The weights stay as they are in all of them.
        seed: of the resamples.
        confidence: of the intervals.

    Source: Uno et al. 2007; Hung and Chiang 2010; mean: Lambert and Chevret 2016.
    sksurv.metrics.cumulative_dynamic_auc.
    """
    risk, time, event = checked(risk_N, time_N, event_N)
    at_T = [auc_at(risk, time, event, moment, reference) for moment in months]
    used = [moment for moment, estimate in zip(months, at_T, strict=True) if estimate.value is not None]
    if not used:
        return DynamicAuc(at_T, Estimate(None, reason="the AUC is defined at none of the times"), [])
    values = np.array([[estimate.value for estimate in at_T if estimate.value is not None]])
    mean = Estimate(float(_mean(values, survival_of_draws(np.ones((1, len(time))), time, event, used))[0]))
    if n_resamples:
        draws_RT, mean_R = _draws(risk, time, event, used, reference, patient_N, n_resamples, seed)
        drawn = dict(zip(used, draws_RT.T, strict=True))
        at_T = [
            with_interval(estimate, drawn[moment], confidence=confidence, having=_needed(moment))
            if moment in drawn else estimate
            for moment, estimate in zip(months, at_T, strict=True)
        ]  # fmt: skip
        mean = with_interval(mean, mean_R, confidence=confidence, having="an AUC at all of the times")
    return DynamicAuc(at_T, mean, used)


def auc_at(risk: NDArray, time: NDArray, event: NDArray, months: float, reference: Reference) -> Estimate:
    """The AUC at one time, without interval; no value, and why, where it is not defined."""
    from sksurv.metrics import cumulative_dynamic_auc

    died = event & (time <= months)
    if not died.any() or not (time > months).any():
        who = "lives longer than" if died.any() else "died within"
        return Estimate(None, reason=f"nobody {who} {months:g} months")
    train = structured(reference.time, reference.event)
    try:  # deaths after the time are as good as censored at it, and their weights are not asked for
        scores, _ = cumulative_dynamic_auc(train, structured(time, died), risk, [months], tied_tol=TIED_TOLERANCE)
    except ValueError as error:
        return Estimate(None, reason=f"censoring cannot be estimated from the reference ({error})")
    return Estimate(float(scores[0]))


def _draws(
    risk: NDArray,
    time: NDArray,
    event: NDArray,
    months: Sequence[float],
    reference: Reference,
    patient_N: Sequence[str] | pd.Series,
    n_resamples: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The AUC (R, T) and its mean (R,) in every resample, NaN where not defined; months are those it is defined at."""
    weight = _weights(time, event & (time <= max(months)), reference)
    order = np.argsort(risk, kind="stable")
    below = np.searchsorted(risk[order], risk - TIED_TOLERANCE, side="left")
    up_to = np.searchsorted(risk[order], risk + TIED_TOLERANCE, side="right")
    draws, mean = np.full((n_resamples, len(months)), np.nan), np.full(n_resamples, np.nan)
    for block, sample in drawn_samples(patient_N, n_resamples=n_resamples, seed=seed):
        for t, moment in enumerate(months):
            died, lives = event & (time <= moment), time > moment
            # Counts of survivors by rising risk: sums of whole numbers, exact in any order.
            counts = np.zeros((len(sample), len(time) + 1))
            np.cumsum((sample * lives)[:, order], axis=1, out=counts[:, 1:])
            outranked = (counts[:, below[died]] + counts[:, up_to[died]]) / 2
            case = sample[:, died] * weight[died]
            whole = case.sum(axis=1) * counts[:, -1]
            np.divide((case * outranked).sum(axis=1), whole, out=draws[block, t], where=whole > 0)
        mean[block] = _mean(draws[block], survival_of_draws(sample, time, event, months))
    return draws, mean


def _weights(time: NDArray, died: NDArray, reference: Reference) -> NDArray[np.float64]:
    """Inverse probability of being uncensored, of those who died; 0 for all others."""
    from sksurv.nonparametric import CensoringDistributionEstimator

    censoring = CensoringDistributionEstimator().fit(structured(reference.time, reference.event))
    return censoring.predict_ipcw(structured(time, died))


def _mean(auc_RT: NDArray, survival_RT: NDArray) -> NDArray[np.float64]:
    """Means weighted by the drop of survival in each interval; of one time, the AUC itself."""
    if auc_RT.shape[1] == 1:
        return auc_RT[:, 0]
    drop_RT = -np.diff(survival_RT, axis=1, prepend=1.0)
    whole_R = 1.0 - survival_RT[:, -1]
    return np.divide((auc_RT * drop_RT).sum(1), whole_R, out=np.full(len(auc_RT), np.nan), where=whole_R > 0)


def _needed(months: float) -> str:
    return f"both someone who died and someone who lives longer than {months:g} months"
