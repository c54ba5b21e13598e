"""Predicted survival: from log relative hazards and a cumulative baseline hazard to a curve for each patient.

Owns ``S(t | risk) = exp(−H₀(t) · exp(slope · risk))`` as a step function that starts at 1, for patients of one model or
of several, each with the baseline of their own. H₀ says nothing beyond the last death of the training patients; there
survival is NaN, to be left out or explained by whoever asks.
Shape suffixes: N patients, T times, K steps of a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Baseline:
    """A cumulative baseline hazard: steps at the times at which someone died."""

    time: NDArray[np.float64]
    """Months, increasing; at least one."""
    cumulative: NDArray[np.float64]
    slope: float = 1.0
    """Log hazard per unit of a patient's risk; 1 where risks are log hazards."""

    @property
    def end(self) -> float:
        """Months to which it is defined: the last death."""
        return float(self.time[-1])

    def log_at(self, time: ArrayLike) -> NDArray[np.float64]:
        """log H₀ at each time; −inf before the first death, NaN beyond the last."""
        time = np.asarray(time, np.float64)
        with np.errstate(divide="ignore"):  # no hazard yet: its log is −inf, and survival 1
            steps = np.log(np.r_[0.0, self.cumulative])
        found = steps[np.searchsorted(self.time, time, side="right")]
        return np.where(time <= self.end, found, np.nan)


class SurvivalCurves(Protocol):
    """Predicted survival of N patients, whatever it is made of; :class:`Curves` says what its methods give."""

    @property
    def end(self) -> float: ...

    def at(self, time_T: ArrayLike) -> NDArray[np.float64]: ...

    def at_own(self, time_N: ArrayLike) -> NDArray[np.float64]: ...

    def ends(self) -> NDArray[np.float64]: ...

    def take(self, rows: NDArray) -> SurvivalCurves: ...


@dataclass(frozen=True, eq=False)
class Curves:
    """The predicted survival of N patients."""

    baselines: Sequence[Baseline]
    """Of each model."""
    model: NDArray[np.int64]
    """Which of them is a patient's."""
    risk: NDArray[np.float64]
    """On the scale of each patient's model; its baseline says how many log hazards a unit is."""

    @property
    def end(self) -> float:
        """Months to which every patient's curve is defined."""
        return min((self.baselines[k].end for k in np.unique(self.model)), default=0.0)

    def at(self, time_T: ArrayLike) -> NDArray[np.float64]:
        """Survival (N, T) at the same times for all; NaN beyond the end of a patient's baseline."""
        log_hazard_MT = np.stack([baseline.log_at(time_T) for baseline in self.baselines])
        return _survival(log_hazard_MT[self.model] + self._log_relative[:, None])

    def at_own(self, time_N: ArrayLike) -> NDArray[np.float64]:
        """Survival (N,) of each patient at a time of its own."""
        time_N = np.asarray(time_N, np.float64)
        log_hazard_N = np.full(len(time_N), np.nan)
        for k, baseline in enumerate(self.baselines):
            mine = self.model == k
            log_hazard_N[mine] = baseline.log_at(time_N[mine])
        return _survival(log_hazard_N + self._log_relative)

    @property
    def _log_relative(self) -> NDArray[np.float64]:
        """Log relative hazards (N,)."""
        return self.risk * np.array([baseline.slope for baseline in self.baselines])[self.model]

    def ends(self) -> NDArray[np.float64]:
        """Months (N,) to which each patient's curve is defined."""
        return np.array([baseline.end for baseline in self.baselines])[self.model]

    def take(self, rows: NDArray) -> Curves:
        """The curves of some patients: indices, or True for those to keep."""
        return replace(self, model=self.model[rows], risk=self.risk[rows])


@dataclass(frozen=True, eq=False)
class MeanCurves:
    """The mean of several models' curves of the same patients; NaN beyond the end of any."""

    each: Sequence[SurvivalCurves]

    @property
    def end(self) -> float:
        return min(curves.end for curves in self.each)

    def at(self, time_T: ArrayLike) -> NDArray[np.float64]:
        return np.mean([curves.at(time_T) for curves in self.each], axis=0)

    def at_own(self, time_N: ArrayLike) -> NDArray[np.float64]:
        return np.mean([curves.at_own(time_N) for curves in self.each], axis=0)

    def ends(self) -> NDArray[np.float64]:
        return np.min([curves.ends() for curves in self.each], axis=0)

    def take(self, rows: NDArray) -> MeanCurves:
        return MeanCurves([curves.take(rows) for curves in self.each])


def kaplan_meier_baseline(time_N: ArrayLike, event_N: ArrayLike) -> Baseline:
    """The Kaplan–Meier curve as the baseline of a model that knows nothing: its risk is 0 for everyone.

    Its last value is carried on for ever, so that where a model says something, there is something to compare it with.
    """
    from sksurv.nonparametric import kaplan_meier_estimator

    event_N = np.asarray(event_N, bool)
    time, survival = kaplan_meier_estimator(event_N, np.asarray(time_N, float))
    died = np.isin(time, np.asarray(time_N, float)[event_N])
    with np.errstate(divide="ignore"):  # all dead at the last time: the cumulative hazard is infinite
        cumulative = -np.log(survival[died])
    return Baseline(np.r_[time[died], np.inf], np.r_[cumulative, cumulative[-1:] if died.any() else 0.0])


def _survival(log_hazard: NDArray) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # a hazard too great for a float: nobody survives
        return np.exp(-np.exp(log_hazard))
