"""Risks of cases and slides from a fitted model.

Owns how slides' risks become a case's. A case's risk is that of its own bag where bags are cases, and the mean of its
slides' risks where bags are slides.

Shape suffixes: B patients, S slides.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mmsurv.errors import ConfigError
from mmsurv_train.bags import Bags
from mmsurv_train.fusion import SurvivalModel
from mmsurv_train.patients import Patients, prediction_bags, scorable_cases
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import BagSettings, TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv_train.fit import Fitted

AT_ONCE = 64
"""Cases or slides scored at a time."""


@dataclass(frozen=True, kw_only=True)
class RiskTables:
    """Risks of a cohort; higher means an earlier death."""

    slides: pd.DataFrame
    """slide_id, case_id, risk: the risk of a slide's own bag."""
    cases: pd.DataFrame
    """case_id, risk: of the case's own bag, or the mean of its slides' risks where bags are slides."""


def predict(
    fitted: Fitted | tuple[nn.Module, Preprocess], recipe: TrainRecipe, cohort: Cohort, bags: Bags | None
) -> RiskTables:
    """Risks of all cases and slides of a cohort that have what the model needs.

    A slide's risk is that of its own bag. A case's risk is that of its own bag where bags are cases, and the mean of
    its slides' risks where bags are slides. The model ``rna`` gives each slide the risk of its case.

    Args:
        fitted: from ``fit``, or a model and its preprocessing.
        recipe: the one it was fitted by: which bags, how many tiles, which device.
        cohort: patients; those without RNA or slides the model needs are left out, with a warning.
        bags: features of the cohort's slides; may be None for the model ``rna``.

    Raises:
        CohortError: genes of the model are missing, or no case has what it needs.
        ValueError: features of another width than the model's.
    """
    model, preprocess = fitted if isinstance(fitted, tuple) else (fitted.model, fitted.preprocess)
    device = find_device(recipe.fit.device)
    bags = bags.to(device) if bags is not None and recipe.model.needs_tiles else None
    cases = scorable_cases(recipe.model, cohort, bags)
    patients = Patients.collect(cases, cohort, bags, preprocess, device)
    scorer = cast(SurvivalModel, copy.deepcopy(model).to(device))
    risk_B = case_risks(scorer, patients, bags, recipe.bags)
    case_table = pd.DataFrame({"case_id": cases, "risk": risk_B.numpy().astype(np.float64)})
    if bags is None:
        slides = cohort.slides[cohort.slides["case_id"].isin(cases)]
        return RiskTables(slides=slides.merge(case_table, on="case_id", how="left"), cases=case_table)
    names, owners = _slide_rows(patients)
    risk_S = _risks(scorer, patients, owners, [[name] for name in names], bags, recipe.bags)
    table = pd.DataFrame(
        {
            "slide_id": names,
            "case_id": [patients.case_ids[row] for row in owners],
            "risk": risk_S.numpy().astype(np.float64),
        }
    )
    return RiskTables(slides=table.sort_values("slide_id", ignore_index=True), cases=case_table)


def case_risks(model: SurvivalModel, patients: Patients, bags: Bags | None, settings: BagSettings) -> Tensor:
    """Case-level risks (B,) without dropout, on the CPU."""
    rows = list(range(len(patients)))
    if bags is None or settings.unit == "case":
        return _risks(model, patients, rows, patients.slides, bags, settings)
    names, owners = _slide_rows(patients)
    risk_S = _risks(model, patients, owners, [[name] for name in names], bags, settings).double()
    total_B = torch.zeros(len(patients), dtype=torch.float64).index_add(0, torch.tensor(owners), risk_S)
    return total_B / torch.bincount(torch.tensor(owners), minlength=len(patients))


def _slide_rows(patients: Patients) -> tuple[list[str], list[int]]:
    """Every slide, and the row of its patient."""
    pairs = [(slide, row) for row, slides in enumerate(patients.slides) for slide in slides]
    return [slide for slide, _ in pairs], [row for _, row in pairs]


@torch.no_grad()
def _risks(
    model: SurvivalModel,
    patients: Patients,
    rows: Sequence[int],
    chosen: Sequence[Sequence[str]],
    bags: Bags | None,
    settings: BagSettings,
) -> Tensor:
    """Risks of groups of slides (``chosen``) with the RNA of the patients in ``rows``, on the CPU."""
    model.eval()
    parts = []
    for start in range(0, len(rows), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        batch = None if bags is None else prediction_bags(model, chosen[here], bags, settings)
        parts.append(model(batch, patients.rna_of(rows[here])).cpu())
    return torch.cat(parts)


def find_device(name: str) -> torch.device:
    """The device a recipe names; ``auto`` is CUDA where there is one. Raises ConfigError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"fit.device is {name}, and this machine offers none. Use cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"fit.device is {name}, and the last one here is cuda:{torch.cuda.device_count() - 1}.")
    return device


def device_text(device: torch.device) -> str:
    """The device for the record: "cpu", or such as "cuda (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
