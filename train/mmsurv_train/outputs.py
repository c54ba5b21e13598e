"""What networks give, and the risk in it.

Owns that a Cox network gives the risk itself, and a discrete-time network logits of hazards, from which a risk
follows.

Shape suffixes: M networks, B patients, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmsurv_train import discrete
from mmsurv_train.cox import RiskSets
from mmsurv_train.recipe import FitSettings


class LossOfStep(Protocol):
    """A loss of M networks for patients that are fixed."""

    n_terms: Tensor
    """Of each network, what its loss is the mean of, (M,): events, or patients. 0: it has no loss."""

    def loss(self, out_MBK: Tensor) -> Tensor:
        """(M,); 0 where there is no term."""


class CoxLoss:
    """The negative log partial likelihood, averaged over events."""

    def __init__(self, sets: RiskSets) -> None:
        self._sets, self.n_terms = sets, sets.events_M

    def loss(self, out_MBK: Tensor) -> Tensor:
        return self._sets.loss(out_MBK[..., 0])


class NllLoss:
    """The discrete-time negative log likelihood, averaged over patients."""

    def __init__(self, likelihood: discrete.DiscreteTime, used_MB: Tensor) -> None:
        self._likelihood, self.n_terms = likelihood, used_MB.sum(1)

    def loss(self, out_MBK: Tensor) -> Tensor:
        return self._likelihood.loss(out_MBK)


def risk_of(out_MBK: Tensor) -> Tensor:
    """Risks (M, B)."""
    return out_MBK[..., 0] if out_MBK.shape[-1] == 1 else discrete.risk(out_MBK)


def loss_of(
    settings: FitSettings, time_MB: Tensor, event_MB: Tensor, used_MB: Tensor, edges: Sequence[np.ndarray | None]
) -> LossOfStep:
    """The loss that the recipe names.

    Args:
        settings: the recipe's [fit].
        time_MB, event_MB: outcomes.
        used_MB: False where a place holds none of a network's patients.
        edges: of each network's time intervals, where the loss has any.
    """
    if settings.loss != "nll":
        return CoxLoss(RiskSets(time_MB, event_MB, used_MB, ties=settings.ties))
    edges_ME = torch.from_numpy(np.stack([one for one in edges if one is not None]))
    likelihood = discrete.DiscreteTime(time_MB, event_MB, used_MB, edges_ME, alpha=settings.nll_alpha)
    return NllLoss(likelihood, used_MB)
