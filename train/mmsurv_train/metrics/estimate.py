"""A number with its interval, what it was judged against, and the drawing of patients for the interval.

Owns what all measures share: the estimate, the reference for censoring, the resamples, and the checks of what comes in.
Shape suffixes: N samples (slides or cases), P patients, R resamples.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

INTERVAL_METHOD = "percentile bootstrap over patients"

_BLOCK_DRAWS = 1000
"""Resamples held at once: 1000 × 20,000 slides × 8 bytes is 160 MB."""
_MOST_KEPT = 2_000_000
"""Draws of a cohort that are kept for the next measure: 16 MB."""


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


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where the weights for censoring come from: the training part, or all patients of pooled folds."""

    name: str
    """Which part it is, for the record."""
    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    tau: float
    """Months; Uno's C-index and the integrated Brier score look no further. Fixed from the same part."""


def resample_patients(n_patients: int, *, n_resamples: int, seed: int | np.random.Generator) -> NDArray[np.float64]:
    """How often each patient was drawn, shape (R, P): draws with replacement, P at a time.

    The same seed and number of patients give the same draws, so two models on the same patients, in the same
    order, are resampled alike. A generator in the place of the seed goes on where its last draws ended.
    """
    generator = np.random.default_rng(seed)
    share = np.full(n_patients, 1 / n_patients)
    return generator.multinomial(n_patients, share, size=n_resamples).astype(float)


def drawn_samples(
    patient_N: Sequence[str] | pd.Series | NDArray, *, n_resamples: int, seed: int
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """How often each sample was drawn in each resample, block by block: which resamples, and their (R, N).

    Patients are drawn, in sorted order, with all their samples.
    """
    _, patient = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    n_patients = int(patient.max(initial=-1)) + 1
    if n_resamples <= _BLOCK_DRAWS and n_patients * n_resamples <= _MOST_KEPT:
        if n_resamples:
            yield slice(0, n_resamples), _kept(n_patients, n_resamples, seed)[:, patient]
        return
    generator = np.random.default_rng(seed)
    for start in range(0, n_resamples, _BLOCK_DRAWS):
        block = slice(start, min(start + _BLOCK_DRAWS, n_resamples))
        drawn = resample_patients(n_patients, n_resamples=block.stop - block.start, seed=generator)
        yield block, drawn[:, patient]


@functools.lru_cache(maxsize=2)
def _kept(n_patients: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """The same draws serve every measure, and drawing them takes longer than most measures do."""
    drawn = resample_patients(n_patients, n_resamples=n_resamples, seed=seed)
    drawn.setflags(write=False)
    return drawn


def with_interval(
    estimate: Estimate, draws_R: NDArray[np.float64], *, confidence: float = 0.95, having: str = "a comparable pair"
) -> Estimate:
    """The estimate with the percentile interval of its resamples; undefined resamples are left out.

    Args:
        estimate: without a value it stays as it is.
        draws_R: the same measure in each resample, NaN where it is not defined.
        confidence: share of the resamples within the interval.
        having: what a resample must have for the measure to be defined, for the reason where too few have it.
    """
    defined = draws_R[np.isfinite(draws_R)]
    if estimate.value is None:
        return estimate
    if len(defined) < max(2, len(draws_R) / 2):
        reason = f"no interval: only {len(defined)} of {len(draws_R)} resamples have {having}"
        return Estimate(estimate.value, reason=reason)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(estimate.value, float(low), float(high))


def checked(risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
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


def structured(time: ArrayLike, event: ArrayLike) -> NDArray:
    from sksurv.util import Surv

    return Surv.from_arrays(np.asarray(event, bool), np.asarray(time, float))
