"""The patients a model can be fitted on or applied to.

Owns who takes part: a case without what the model needs is left out, counted and logged, never in silence.

Shape suffixes: P patients.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmsurv.errors import CohortError
from mmsurv_train.bags import Bags
from mmsurv_train.modalities import Modality
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort

logger = logging.getLogger("mmsurv")


def scorable_cases(
    recipe: TrainRecipe, cohort: Cohort, bags: Bags | None, *, only: Collection[Modality] | None = None
) -> list[str]:
    """Cases of the cohort that have what the model looks at, in the cohort's order; logs a warning with the others.

    Where patients may lack a modality (``recipe.may_lack``), one of them is enough; with ``only``, they must have each
    of these.

    Raises:
        CohortError: the cohort has no RNA at all, or no case is left.
        ValueError: the model needs tiles and ``bags`` is None.
    """
    cases, name = list(cohort.cases.index), recipe.model.name
    having = modalities_of(recipe, cohort, bags)
    if only is not None:  # who lacks some of these is scored by what there is, so nobody is left out of the model
        cases = [case for case in cases if all(case in having[modality] for modality in only)]
    elif recipe.may_lack:
        cases = _leave_out(cases, set().union(*having.values()), "input", name)
    else:
        for modality, ids in having.items():
            cases = _leave_out(cases, ids, WHAT[modality], name)
    if not cases:
        raise CohortError(f"No case of the cohort has all that the model {name} needs.")
    return cases


WHAT: dict[Modality, str] = {"wsi": "slides with features", "rna": "RNA", "clinical": "clinical variables"}
"""Modalities in words."""


def modalities_of(recipe: TrainRecipe, cohort: Cohort, bags: Bags | None) -> dict[Modality, set[str]]:
    """Which cases have each of the recipe's inputs; nobody has what is not there, where patients may lack it.

    Raises:
        CohortError: the cohort has no RNA at all.
        ValueError: the model needs tiles and ``bags`` is None.
    """
    having: dict[Modality, set[str]] = {}
    for modality in recipe.inputs:
        if modality == "wsi":
            absent = bags is None and recipe.may_lack
            having[modality] = set() if absent else set(slides_of(cohort, bags))
        elif modality == "rna":
            if cohort.rna is None and not recipe.may_lack:
                name = recipe.model.name
                raise CohortError(f"Model {name} needs RNA and the cohort has none. Give an RNA table (--rna).")
            having[modality] = set() if cohort.rna is None else set(cohort.rna.index)
        else:
            known = cohort.cases[list(recipe.clinical.columns)].notna().any(axis=1)
            having[modality] = set(cohort.cases.index[known])
    return having


def slides_of(cohort: Cohort, bags: Bags | None) -> dict[str, list[str]]:
    """Slides with features of each case that has any, sorted."""
    if bags is None:
        raise ValueError("this model needs tiles: give the bags of the cohort's slides")
    slides = cohort.slides[cohort.slides["slide_id"].isin(bags.slide_ids)].sort_values("slide_id")
    by_case: dict[str, list[str]] = {}
    for case_id, slide_id in zip(slides["case_id"], slides["slide_id"], strict=True):
        by_case.setdefault(case_id, []).append(slide_id)
    return by_case


def _leave_out(cases: list[str], with_it: set[str], what: str, model: str) -> list[str]:
    without = [case for case in cases if case not in with_it]
    if without:
        names = ", ".join(without[:5]) + (", …" if len(without) > 5 else "")
        logger.warning(
            "%d of %d cases have no %s and are left out of model %s: %s", len(without), len(cases), what, model, names
        )
    return [case for case in cases if case in with_it]


@dataclass(frozen=True, kw_only=True, eq=False)
class Patients:
    """Patients in one order, with their outcomes and, where tiles are needed, their slides."""

    case_ids: list[str]
    time: np.ndarray
    """Months, (P,) float64."""
    event: np.ndarray
    """Died, (P,) bool."""
    slides: list[list[str]]
    """Slides of each patient; empty lists for a model without tiles."""

    @classmethod
    def collect(cls, case_ids: Sequence[str], cohort: Cohort, slides: dict[str, list[str]]) -> Patients:
        """Look the patients up by id."""
        outcomes = cohort.cases.loc[list(case_ids)]
        return cls(
            case_ids=list(case_ids),
            time=outcomes["time"].to_numpy(float),
            event=outcomes["event"].to_numpy(bool),
            slides=[slides.get(case, []) for case in case_ids],
        )

    def __len__(self) -> int:
        return len(self.case_ids)
