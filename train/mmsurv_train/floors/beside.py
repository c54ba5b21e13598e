"""The floors of a run: what penalised Cox regressions on the same patients and inputs come to.

Owns which floors a run has, and their fit. Each input alone has one by its name (``wsi`` is the mean tile), RNA and
clinical variables together have ``rna+clinical``, and all inputs together ``late``. A floor chooses no epoch, and its
penalty is chosen inside the patients it is fitted on; so it is fitted on the validation patients as well, whom a
network does not learn from. The test part is never looked at.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv_train.bags import Bags
from mmsurv_train.floors.ridge import RidgeScore, ridge_to_table
from mmsurv_train.floors.stacked import stack
from mmsurv_train.modalities import Modality
from mmsurv_train.patients import scorable_cases, slides_of
from mmsurv_train.prepare import fit_scales, values_of
from mmsurv_train.recipe import FitSettings, ModelSettings, TrainRecipe
from mmsurv_train.risk_columns import RiskColumns

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.split import Split

LATE = "late"
ON = "training and validation part"


def floors_of(recipe: TrainRecipe) -> dict[str, tuple[Modality, ...]]:
    """Names of the floors of a recipe's inputs, and what each looks at."""
    inputs = recipe.inputs
    named: dict[str, tuple[Modality, ...]] = {name: (name,) for name in inputs}
    if {"rna", "clinical"} <= set(inputs):
        named["rna+clinical"] = ("rna", "clinical")
    if len(inputs) > 1 and inputs not in named.values():
        named[LATE] = inputs
    return named


def fit_floors(recipe: TrainRecipe, cohort: Cohort, bags: Bags | None, split: Split) -> RiskColumns:
    """Fit all floors of a recipe on a split.

    Args:
        recipe: says what the model looks at, and how RNA and clinical variables are scaled.
        cohort, bags: the data.
        split: which patients train and validate.

    Raises:
        SplitError: too few deaths to choose a penalty.
        CohortError: the cohort lacks an input.
    """
    plain = dataclasses.replace(
        recipe,
        model=ModelSettings(name="late", inputs=recipe.inputs, modality_dropout=recipe.model.modality_dropout),
        fit=FitSettings(),
    )
    usable = sorted(set(scorable_cases(plain, cohort, bags)) & set(split.parts.index))
    known = [case for case in usable if split.parts[case] != "test"]
    slides = slides_of(cohort, bags) if recipe.needs_tiles else {}
    preprocess = fit_scales(plain, known, cohort, bags, slides)
    outcomes = cohort.cases.loc[known]
    time_B, event_B = outcomes["time"].to_numpy(float), outcomes["event"].to_numpy(bool)
    fitted, has_fitted = values_of(known, recipe.inputs, preprocess, plain, cohort, bags)
    scores = {}
    for modality, x_BC in fitted.items():
        rows = has_fitted[modality].nonzero()[0]
        ids = [known[row] for row in rows.tolist()]
        scores[modality] = RidgeScore.fit(x_BC[rows], time_B[rows], event_B[rows], ids)
    everyone, has = values_of(usable, recipe.inputs, preprocess, plain, cohort, bags)
    named = floors_of(recipe)
    risks = {}
    table: dict[str, Any] = {"fitted_on": {"parts": ON, "cases": known}, "floors": {}}
    for name, modalities in named.items():
        if len(modalities) == 1:
            (only,) = modalities
            risk_B = scores[only].model.risk(everyone[only])
            risks[name] = pd.Series(risk_B).where(has[only])
            table["floors"][name] = {
                "inputs": [only],
                **ridge_to_table(scores[only].model),
                "path": [list(step) for step in scores[only].path],
            }
        else:
            chosen = stack({one: scores[one] for one in modalities}, time_B, event_B, has_fitted).stack
            risks[name] = pd.Series(chosen.risk({one: everyone[one] for one in modalities}, has))
            table["floors"][name] = {"inputs": list(modalities), "scores": chosen.to_table()}
    predictions = pd.DataFrame({"case_id": usable, "part": split.parts.loc[usable].to_numpy(), **risks})
    return RiskColumns(predictions=predictions, inputs=named, table=table)
