"""The discrete-time survival likelihood of MCAT and its family, and the risk in it.

Owns the maths only. Time is cut into K intervals; a network gives a logit of the hazard of each, which is the chance to
die in the interval of those who reach it.

Shape suffixes: M networks, B patients, K intervals, E = K + 1 edges.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmsurv.errors import NoEventsError


def time_edges(time_B: np.ndarray, event_B: np.ndarray, n_bins: int) -> np.ndarray:
    """Edges (K + 1,) of intervals that hold as many deaths each, in months, from 0 to infinity.

    Args:
        time_B: months of the training patients.
        event_B: who died; only their times count.
        n_bins: K; fewer come back where too many deaths share a time.

    Raises:
        NoEventsError: nobody died.
    """
    if not event_B.any():
        raise NoEventsError(f"None of the {len(time_B)} patients has an event: time cannot be cut by deaths.")
    inner = np.quantile(np.asarray(time_B, np.float64)[event_B], np.arange(1, n_bins) / n_bins)
    return np.array([0.0, *np.unique(inner[inner > 0]), np.inf])


class DiscreteTime:
    """The negative log likelihood of M networks for patients that are fixed; made once, used every step.

    A patient who died in interval k has −log h_k − Σ_{j<k} log(1 − h_j); one censored in it has −Σ_{j≤k} log(1 − h_j).
    With α the censored patients' terms count 1 − α: (1 − α) · L + α · L_died, as in MCAT's code. All is in log space,
    so that logits of any size give finite values.

    Source: Zadeh and Schmid 2020; Chen et al. 2021 (MCAT). tests/reference/test_discrete.py.
    """

    def __init__(self, time_MB: Tensor, event_MB: Tensor, used_MB: Tensor, edges_ME: Tensor, *, alpha: float) -> None:
        """
        Args:
            time_MB: months; a time on an edge is of the interval that begins there.
            event_MB: True where death was observed.
            used_MB: False where a place holds none of the network's patients.
            edges_ME: of each network's intervals.
            alpha: in [0, 1).
        """
        inner_ME = edges_ME[:, 1:-1].contiguous().to(time_MB.device)
        interval_MB = torch.searchsorted(inner_ME, time_MB.to(inner_ME.dtype).contiguous(), right=True)
        places_K = torch.arange(edges_ME.shape[1] - 1, device=time_MB.device)
        event_MB1 = event_MB.bool()[..., None]
        self.dies_MBK = (places_K == interval_MB[..., None]) & event_MB1
        self.outlives_MBK = (places_K < interval_MB[..., None]) | ((places_K == interval_MB[..., None]) & ~event_MB1)
        self.weight_MB = (1.0 - alpha * (~event_MB.bool()).double()) * used_MB  # float32 has no 0.85
        self.n_M = used_MB.sum(1).clamp(min=1)

    def loss(self, logit_MBK: Tensor) -> Tensor:
        """Of each network, averaged over its patients, (M,)."""
        terms_MBK = logsigmoid(logit_MBK) * self.dies_MBK + logsigmoid(-logit_MBK) * self.outlives_MBK
        return -(terms_MBK.sum(2) * self.weight_MB.to(logit_MBK.dtype)).sum(1) / self.n_M


def risk(logit_BK: Tensor) -> Tensor:
    """−Σ_k S_k of (…, K) logits, from −K to 0: higher means an earlier death.

    It ranks patients; it is no log hazard, though everything that follows a Cox model here takes it for one.
    """
    return -torch.exp(torch.cumsum(logsigmoid(-logit_BK), -1)).sum(-1)
