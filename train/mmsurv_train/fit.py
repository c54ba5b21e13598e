"""Fitting a survival model on cached features, and predicting with it.

Owns the loop and the choice of the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from torch import nn

from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.split import Split
    from mmsurv_train.bags import Bags
    from mmsurv_train.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model and what is needed to use it."""

    model: nn.Module
    preprocess: Preprocess
    history: pd.DataFrame
    """One row per epoch: epoch (from 1), loss, validation_loss, validation_c_index, skipped_batches."""
    best_epoch: int


@dataclass(frozen=True, kw_only=True)
class RiskTables:
    """Risks of a cohort; higher means an earlier death."""

    slides: pd.DataFrame
    """slide_id, case_id, risk."""
    cases: pd.DataFrame
    """case_id, risk."""


def fit(
    recipe: TrainRecipe,
    cohort: Cohort,
    bags: Bags | None,
    split: Split,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Train on the training part, choose the epoch on the validation part; the test part is never looked at."""
    raise NotImplementedError


def predict(
    fitted: Fitted | tuple[nn.Module, Preprocess], recipe: TrainRecipe, cohort: Cohort, bags: Bags | None
) -> RiskTables:
    """Risks of all cases and slides of a cohort that have what the model needs."""
    raise NotImplementedError
