"""Cox partial likelihood and Breslow baseline hazard.

Owns the maths only: no data loading, no logging.
Shape suffixes: M networks, B patients, E events of all networks, K distinct event times.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmsurv.errors import NoEventsError

Ties = Literal["efron", "breslow"]


def neg_log_partial_likelihood(risk_B: Tensor, time_B: Tensor, event_B: Tensor, *, ties: Ties = "efron") -> Tensor:
    """Negative Cox log partial likelihood, averaged over events.

    Everything stays in log space, so risks of any size give finite values and gradients. Adding one number to all
    risks changes nothing.

    Args:
        risk_B: log relative hazard, shape (B,), float32 or float64; higher means an earlier event.
        time_B: months from diagnosis, shape (B,).
        event_B: True (or 1) where death was observed, False where censored.
        ties: "efron" or "breslow"; the same value where no two events share a time.

    Returns:
        Scalar, dtype and device of ``risk_B``.

    Raises:
        NoEventsError: no event in the batch, so the likelihood is undefined.
        ValueError: the shapes differ, a time or risk is not finite, or ``ties`` is neither.

    Source: Breslow 1974; Efron 1977. Checked against scikit-survival, lifelines and torchsurv in
    tests/reference/test_cox.py.
    """
    event_B = event_B.bool()
    _check(risk_B, time_B, event_B, ties)
    return RiskSets(time_B[None], event_B[None], ties=ties).loss(risk_B[None])[0]


class RiskSets:
    """Who is at risk at whose death, of M networks with patients of their own; made once, used every step."""

    def __init__(
        self, time_MB: Tensor, event_MB: Tensor, used_MB: Tensor | None = None, *, ties: Ties = "efron"
    ) -> None:
        """
        Args:
            time_MB: months; higher is later.
            event_MB: True where death was observed.
            used_MB: False where a place holds none of the network's patients; None: all do.
            ties: "efron" or "breslow".
        """
        used_MB = torch.ones_like(event_MB) if used_MB is None else used_MB
        time_MB = time_MB.double().masked_fill(~used_MB, -torch.inf)  # behind everyone, so in no one's risk set
        time_MB, self.order_MB = torch.sort(time_MB, dim=1, descending=True, stable=True)
        event_MB = (event_MB & used_MB).gather(1, self.order_MB)
        self.used_MB = used_MB.gather(1, self.order_MB)
        self.events_M = event_MB.sum(1)
        ends_MB = torch.ones_like(event_MB)
        ends_MB[:, :-1] = time_MB[:, :-1] != time_MB[:, 1:]
        places_B = torch.arange(event_MB.shape[1], device=event_MB.device)
        # Whoever shares a time is at risk at it: the risk set ends with the last of the group, also for its first.
        last_MB = torch.where(ends_MB, places_B, len(places_B)).flip(1).cummin(1).values.flip(1)
        self.model_E, place_E = event_MB.nonzero(as_tuple=True)
        self.event_E = self.model_E * len(places_B) + place_E
        self.last_E = self.model_E * len(places_B) + last_MB[self.model_E, place_E]
        _, self.tie_E, size_K = torch.unique_consecutive(self.last_E, return_inverse=True, return_counts=True)
        self.n_times = len(size_K)
        first_K = torch.cumsum(size_K, 0) - size_K
        rank_E = torch.arange(len(self.tie_E), device=event_MB.device) - first_K[self.tie_E]
        self.share_E = rank_E / size_K[self.tie_E].double()
        self.corrects = ties == "efron" and bool((size_K > 1).any())

    def loss(self, risk_MB: Tensor) -> Tensor:
        """Negative log partial likelihood of each network, averaged over its events, (M,); 0 where it has none."""
        risk_MB = risk_MB.gather(1, self.order_MB).masked_fill(~self.used_MB, torch.finfo(risk_MB.dtype).min / 2)
        log_at_risk_E = torch.logcumsumexp(risk_MB, 1).flatten()[self.last_E]
        risk_E = risk_MB.flatten()[self.event_E]
        if self.corrects:
            log_at_risk_E = log_at_risk_E + self._efron_correction(risk_E, log_at_risk_E)
        total_M = risk_MB.new_zeros(len(risk_MB)).index_add(0, self.model_E, log_at_risk_E - risk_E)
        return total_M / self.events_M.clamp(min=1)

    def _efron_correction(self, risk_E: Tensor, log_at_risk_E: Tensor) -> Tensor:
        """What Efron adds to the log risk sums: the j-th of m tied events sees the tied events at weight 1 − j/m.

        log(R − j/m T) − log R = log1p(−j/m · exp(log T − log R)) with T the sum over the tied events. As T ≤ R, the
        argument never comes nearer to −1 than 1/m − 1, so nothing cancels.
        """
        with torch.no_grad():
            top_K = risk_E.new_empty(self.n_times).scatter_reduce(0, self.tie_E, risk_E, "amax", include_self=False)
        sum_K = torch.zeros_like(top_K).index_add(0, self.tie_E, torch.exp(risk_E - top_K[self.tie_E]))
        log_tied_E = (top_K + torch.log(sum_K))[self.tie_E]
        ratio_E = torch.exp(torch.clamp(log_tied_E - log_at_risk_E, max=0))
        return torch.log1p(-self.share_E.to(risk_E.dtype) * ratio_E)


def _check(risk_B: Tensor, time_B: Tensor, event_B: Tensor, ties: str) -> None:
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow', not {ties!r}")
    if risk_B.ndim != 1 or risk_B.shape != time_B.shape or risk_B.shape != event_B.shape:
        raise ValueError(
            "risk, time and event must be vectors of one length, not of shapes "
            f"{tuple(risk_B.shape)}, {tuple(time_B.shape)} and {tuple(event_B.shape)}"
        )
    if not bool(event_B.any()):
        raise NoEventsError(f"None of the {len(risk_B)} patients has an event: their partial likelihood is undefined.")
    if not bool(torch.isfinite(time_B).all() & torch.isfinite(risk_B.detach()).all()):
        raise ValueError("risks and times must be finite")


def breslow_baseline(risk_B: ArrayLike, time_B: ArrayLike, event_B: ArrayLike) -> pd.DataFrame:
    """Breslow's estimate of the cumulative baseline hazard, at every time at which someone died.

    A patient's survival is ``exp(-cumulative_hazard * exp(risk))``, a step function that starts at 1.

    Args:
        risk_B: log relative hazard of the training patients, shape (B,), on the model's own scale (not centred).
        time_B: months, shape (B,).
        event_B: True where death was observed.

    Returns:
        Columns ``time`` (months, increasing), ``cumulative_hazard`` and ``survival`` (of a patient of risk 0).

    Raises:
        NoEventsError: nobody died.

    Source: Breslow 1972. Checked against scikit-survival and lifelines in tests/reference/test_cox.py.
    """
    risk_B, time_B = np.asarray(risk_B, np.float64), np.asarray(time_B, np.float64)
    event_B = np.asarray(event_B, bool)
    if not event_B.any():
        raise NoEventsError(f"None of the {len(risk_B)} patients has an event: there is no baseline hazard.")
    order = np.argsort(-time_B, kind="stable")
    log_at_risk_B = np.logaddexp.accumulate(risk_B[order])
    time_K, deaths_K = np.unique(time_B[event_B], return_counts=True)
    at_risk_K = np.searchsorted(-time_B[order], -time_K, side="right")  # how many live to each time or beyond
    with np.errstate(over="ignore"):  # risks below −700: the hazard of one of risk 0 is infinite, and their survival 0
        cumulative = np.cumsum(np.exp(np.log(deaths_K) - log_at_risk_B[at_risk_K - 1]))
    return pd.DataFrame({"time": time_K, "cumulative_hazard": cumulative, "survival": np.exp(-cumulative)})
