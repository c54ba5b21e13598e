"""Epoch by epoch: how a network did on its validation patients, which epoch was its best, and when it stops.

Owns the history of one network, and its way through the epochs of a pass. Validation patients are one risk set, scored
as at prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsurv_train.metrics import c_index
from mmsurv_train.outputs import loss_of, risk_of
from mmsurv_train.recipe import FitSettings
from mmsurv_train.stack import Network


class Judge:
    """The history of one network."""

    def __init__(
        self, settings: FitSettings, time_B: np.ndarray, event_B: np.ndarray, edges: np.ndarray | None = None
    ) -> None:
        """
        Args:
            settings: how the best epoch is chosen, and how long to wait for a better one.
            time_B, event_B: outcomes of the validation patients.
            edges: of the time intervals, where the loss has any.
        """
        self.settings, self.time_B, self.event_B = settings, time_B, event_B
        time_1B, event_1B = torch.from_numpy(time_B)[None], torch.from_numpy(event_B)[None]
        self._loss = loss_of(settings, time_1B, event_1B, torch.ones_like(event_1B), [edges])
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        """The parameters of the best epoch so far."""
        self.best_epoch = 0
        self._least = (math.inf, math.inf)

    def hear(self, trained: Mapping[str, float], out_BK: Tensor) -> tuple[dict[str, float], bool]:
        """Take an epoch's training row and validation outputs; says its whole row, and whether it is the best so far.

        Raises:
            FloatingPointError: risks are not finite.
        """
        if not bool(torch.isfinite(out_BK).all()):
            raise FloatingPointError("risks are not finite")
        loss, risk_B = self._loss.loss(out_BK[None])[0].item(), risk_of(out_BK)
        concordance = c_index(risk_B.double().numpy(), self.time_B, self.event_B).value
        row = {
            **trained,
            "validation_loss": loss,
            "validation_c_index": math.nan if concordance is None else concordance,
        }
        self.history.append(row)
        badness = self._badness(row)
        better = self.settings.select == "last" or badness < self._least
        if better:
            self._least, self.best_epoch = badness, int(row["epoch"])
        return row, better

    @property
    def is_done(self) -> bool:
        """Whether all epochs are over, or none was better for as long as the recipe waits."""
        epoch = int(self.history[-1]["epoch"]) if self.history else 0
        if self.settings.select == "last":
            return epoch >= self.settings.epochs
        waited = epoch - self.best_epoch
        return epoch >= self.settings.epochs or bool(self.settings.patience and waited >= self.settings.patience)

    def to_table(self) -> dict[str, Any]:
        """JSON-able, without the parameters."""
        return {"history": self.history, "best_epoch": self.best_epoch, "least": list(self._least)}

    def restore(self, table: Mapping[str, Any], best: dict[str, Tensor] | None) -> None:
        """Put back what ``to_table`` gave, and the best parameters."""
        self.history, self.best_epoch = [dict(row) for row in table["history"]], table["best_epoch"]
        self._least, self.best = (table["least"][0], table["least"][1]), best

    def _badness(self, row: Mapping[str, float]) -> tuple[float, float]:
        """What the best epoch has least of."""
        loss, concordance = row["validation_loss"], row["validation_c_index"]
        if self.settings.select == "loss" or math.isnan(concordance):
            return (loss, 0.0)
        return (-concordance, loss)


@dataclass(eq=False)
class Course:
    """One network's way through the epochs."""

    network: Network
    judge: Judge
    failed: str = ""
    """Why it cannot go on; empty while it can."""
    trained: dict[str, float] = field(default_factory=dict)
    """The training row of the epoch that is still to be judged."""
    total: float = 0.0
    terms: int = 0
    skipped: int = 0

    def begin_epoch(self) -> None:
        self.total, self.terms, self.skipped = 0.0, 0, 0

    def end_epoch(self, epoch: int) -> None:
        loss = self.total / self.terms if self.terms else math.nan
        self.trained = {"epoch": epoch, "loss": loss, "skipped_batches": self.skipped}

    @property
    def goes_on(self) -> bool:
        return not self.failed and not self.judge.is_done
