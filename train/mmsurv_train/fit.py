"""Fitting a survival model on cached features.

Owns the loop and the choice of the epoch.

Shape suffixes: B patients.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmsurv.errors import ConfigError, NoEventsError, SplitError
from mmsurv_train.bags import Bags, Draw
from mmsurv_train.cox import neg_log_partial_likelihood
from mmsurv_train.fusion import SurvivalModel, build_model
from mmsurv_train.metrics import c_index
from mmsurv_train.patients import Patients, scorable_cases, slides_of, training_bags
from mmsurv_train.predict import RiskTables, case_risks, find_device, predict
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import FitSettings, TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.split import Split

logger = logging.getLogger("mmsurv")

__all__ = ["Fitted", "RiskTables", "fit", "patient_batches", "predict"]

OnEpoch = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model and what is needed to use it."""

    model: SurvivalModel
    """With the weights of the best epoch, on the CPU."""
    preprocess: Preprocess
    history: pd.DataFrame
    """One row per epoch: epoch (from 1), loss, validation_loss, validation_c_index (NaN where no pair of validation
    patients is comparable), skipped_batches."""
    best_epoch: int


def fit(
    recipe: TrainRecipe, cohort: Cohort, bags: Bags | None, split: Split, *, on_epoch: OnEpoch | None = None
) -> Fitted:
    """Train on the training part and choose the epoch on the validation part; the test part is never looked at.

    Scales are fitted on the training part as well. On one machine, with one number of threads, the same arguments
    give the same bits; the global random state is neither used nor changed.

    Args:
        recipe: what to fit, and how.
        cohort: outcomes, RNA and which slide is whose.
        bags: features of the cohort's slides; may be None for the model ``rna``.
        split: which patients train and which validate. Patients without what the model needs are left out of both,
            with a warning.
        on_epoch: called after each epoch with its row of the history.

    Raises:
        CohortError: the cohort lacks what the model needs.
        SplitError: the training or the validation part has no patient, or no death, or one unknown to the cohort.
        ConfigError: risks stopped being finite (the learning rate is too high), or the device is not there.
    """
    device = find_device(recipe.fit.device)
    bags = bags.to(device) if bags is not None and recipe.model.needs_tiles else None
    known = set(scorable_cases(recipe.model, cohort, bags))
    train_cases = _part(split, "train", cohort, known)
    validation_cases = _part(split, "validation", cohort, known)
    preprocess = _fit_preprocess(recipe, cohort, bags, train_cases)
    model = build_model(
        recipe.model, feature_dim=preprocess.feature_dim, n_genes=preprocess.n_genes, seed=recipe.fit.seed
    )
    if bags is not None:
        model.standardise_by(torch.from_numpy(preprocess.feature_mean), torch.from_numpy(preprocess.feature_sd))
    model.to(device)
    train, validation = (
        Patients.collect(cases, cohort, bags, preprocess, device) for cases in (train_cases, validation_cases)
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.fit.seed)
        history, best_epoch = _Trainer(recipe, model, bags, train, validation).run(on_epoch)
    return Fitted(model=model.cpu().eval(), preprocess=preprocess, history=history, best_epoch=best_epoch)


class _Trainer:
    """One model on its way through the epochs."""

    def __init__(
        self, recipe: TrainRecipe, model: SurvivalModel, bags: Bags | None, train: Patients, validation: Patients
    ) -> None:
        self.recipe, self.model, self.bags = recipe, model, bags
        self.patients, self.validation = train, validation
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=recipe.fit.learning_rate, weight_decay=recipe.fit.weight_decay
        )

    def run(self, on_epoch: OnEpoch | None) -> tuple[pd.DataFrame, int]:
        """Train, leave the model with the weights of its best epoch, and return the history and that epoch."""
        rows: list[dict[str, float]] = []
        best, best_epoch, best_state = (math.inf, math.inf), 0, copy.deepcopy(self.model.state_dict())
        for epoch in range(1, self.recipe.fit.epochs + 1):
            try:
                row = {"epoch": epoch, **self.train_epoch(epoch), **self.validate()}
            except FloatingPointError as error:
                raise ConfigError(
                    f"In epoch {epoch} the risks stopped being finite. Lower fit.learning_rate "
                    f"({self.recipe.fit.learning_rate}), or look for extreme values in the input."
                ) from error
            rows.append(row)
            if on_epoch:
                on_epoch(row)
            badness = _badness(row, self.recipe.fit)
            if badness < best:
                best, best_epoch, best_state = badness, epoch, copy.deepcopy(self.model.state_dict())
            elif self.recipe.fit.patience and epoch - best_epoch >= self.recipe.fit.patience:
                break
        self.model.load_state_dict(best_state)
        return pd.DataFrame(rows), best_epoch

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training patients. The loss is that of the epoch's events, not of its batches."""
        settings = self.recipe.fit
        self.model.train()
        draw = Draw(settings.seed, epoch)
        total, events, skipped = 0.0, 0, 0
        for rows in patient_batches(self.patients.event, settings.batch_size, seed=settings.seed, epoch=epoch):
            event_B = self.patients.event[rows]
            try:
                risk_B = self.risks(rows, draw)
                loss = neg_log_partial_likelihood(risk_B, self.patients.time[rows], event_B, ties=settings.ties)
            except NoEventsError:
                skipped += 1
                continue
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total, events = total + loss.item() * int(event_B.sum()), events + int(event_B.sum())
        if skipped and epoch == 1:  # as many in every epoch: there are fewer deaths than batches
            logger.warning("%d batches without a death are skipped in every epoch.", skipped)
        return {"loss": total / events, "skipped_batches": skipped}

    def risks(self, rows: Sequence[int], draw: Draw) -> Tensor:
        """Risks of some training patients, on the CPU: its sums have one order, so its bits are the same each time."""
        bags = None
        if self.bags is not None:
            bags = training_bags(self.model, self.patients, rows, self.bags, self.recipe.bags, draw)
        return _finite(self.model(bags, self.patients.rna_of(rows)).cpu())

    def validate(self) -> dict[str, float]:
        """Loss and C-index of the validation patients as one risk set, scored as at prediction."""
        risk_B = _finite(case_risks(self.model, self.validation, self.bags, self.recipe.bags))
        time_B, event_B = self.validation.time, self.validation.event
        loss = neg_log_partial_likelihood(risk_B, time_B, event_B, ties=self.recipe.fit.ties)
        concordance = c_index(risk_B.numpy(), time_B.numpy(), event_B.numpy()).value
        return {
            "validation_loss": loss.item(),
            "validation_c_index": math.nan if concordance is None else concordance,
        }


def patient_batches(event_B: Tensor, size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Rows of each step of an epoch.

    Events are dealt out evenly, so a batch lacks one only where there are fewer events than batches. Sizes differ by
    at most one and never exceed ``size``.

    Args:
        event_B: who died.
        size: patients per batch; 0 = all in one, in their own order.
        seed, epoch: of the shuffle.
    """
    n_patients = len(event_B)
    if not size or size >= n_patients:
        return [list(range(n_patients))]
    rng = np.random.default_rng([seed, epoch])
    event = event_B.numpy()
    dealt = np.concatenate([rng.permutation(np.flatnonzero(event)), rng.permutation(np.flatnonzero(~event))])
    n_batches = math.ceil(n_patients / size)
    return [dealt[first::n_batches].tolist() for first in range(n_batches)]


def _fit_preprocess(recipe: TrainRecipe, cohort: Cohort, bags: Bags | None, train_cases: list[str]) -> Preprocess:
    features = None
    if bags is not None:
        slides = slides_of(cohort, bags)
        features = bags.statistics([slide for case in train_cases for slide in slides[case]])
    rna = cohort.rna.loc[train_cases] if recipe.model.needs_rna and cohort.rna is not None else None
    return Preprocess.fit(rna, recipe.rna, features=features)


def _part(split: Split, part: Literal["train", "validation"], cohort: Cohort, known: set[str]) -> list[str]:
    """The part's cases that can be used, sorted; the part must have a death."""
    cases = sorted(split.cases(part))
    strangers = [case for case in cases if case not in cohort.cases.index]
    if strangers:
        raise SplitError(
            f"The split's {part} part names {len(strangers)} cases the cohort does not have, the first "
            f"{strangers[0]!r}. Use the split that was made for this cohort."
        )
    cases = [case for case in cases if case in known]
    events = int(cohort.cases.loc[cases, "event"].sum())
    if len(cases) < 2 or not events:
        need = "nothing can be learnt" if part == "train" else "the best epoch cannot be told"
        raise SplitError(
            f"The {part} part has {len(cases)} usable patients and {events} deaths: {need}. "
            "Take another split.seed, larger split.fractions for it, or fewer folds."
        )
    return cases


def _badness(row: dict[str, float], settings: FitSettings) -> tuple[float, float]:
    """What the best epoch has least of."""
    loss, concordance = row["validation_loss"], row["validation_c_index"]
    if settings.select == "loss" or math.isnan(concordance):
        return (loss, 0.0)
    return (-concordance, loss)


def _finite(risk_B: Tensor) -> Tensor:
    if not bool(torch.isfinite(risk_B).all()):
        raise FloatingPointError("risks are not finite")
    return risk_B
