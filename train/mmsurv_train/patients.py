"""The patients a model can be fitted on or applied to, as tensors.

Owns who takes part: a case without what the model needs is left out, counted and logged, never in silence.

Shape suffixes: B patients, G genes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsurv.errors import CohortError
from mmsurv_train.bags import Bags, Draw
from mmsurv_train.fusion import SurvivalModel
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import BagSettings, ModelSettings

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort

logger = logging.getLogger("mmsurv")


def scorable_cases(settings: ModelSettings, cohort: Cohort, bags: Bags | None) -> list[str]:
    """Cases of the cohort that have what the model needs, in the cohort's order; logs a warning with the others.

    Raises:
        CohortError: the cohort has no RNA at all, or no case is left.
        ValueError: the model needs tiles and ``bags`` is None.
    """
    cases = list(cohort.cases.index)
    if settings.needs_rna:
        if cohort.rna is None:
            raise CohortError(f"Model {settings.name} needs RNA and the cohort has none. Give an RNA table (--rna).")
        cases = _leave_out(cases, set(cohort.rna.index), "RNA", settings.name)
    if settings.needs_tiles:
        cases = _leave_out(cases, set(slides_of(cohort, bags)), "slides with features", settings.name)
    if not cases:
        raise CohortError(f"No case of the cohort has all that the model {settings.name} needs.")
    return cases


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
    """Patients of one part, in one order; their RNA and, if the model needs tiles, their slides."""

    case_ids: list[str]
    time: Tensor
    """Months, (B,) float64, on the CPU."""
    event: Tensor
    """Died, (B,) bool, on the CPU."""
    rna: Tensor | None
    """(B, G) float32, scaled."""
    slides: list[list[str]]
    """Slides of each patient; empty lists for a model without tiles."""

    @classmethod
    def collect(
        cls, case_ids: Sequence[str], cohort: Cohort, bags: Bags | None, preprocess: Preprocess, device: torch.device
    ) -> Patients:
        """Look the patients up by id. Outcomes stay on the CPU, where the loss is computed."""
        outcomes = cohort.cases.loc[list(case_ids)]
        rna_BG = None
        if preprocess.n_genes and cohort.rna is not None:
            rna_BG = torch.from_numpy(preprocess.rna(cohort.rna.loc[list(case_ids)])).to(device)
        slides = slides_of(cohort, bags) if preprocess.feature_dim else {}
        return cls(
            case_ids=list(case_ids),
            time=torch.tensor(outcomes["time"].to_numpy(float)),
            event=torch.tensor(outcomes["event"].to_numpy(bool)),
            rna=rna_BG,
            slides=[slides.get(case, []) for case in case_ids],
        )

    def __len__(self) -> int:
        return len(self.case_ids)

    def rna_of(self, rows: Sequence[int]) -> Tensor | None:
        return None if self.rna is None else self.rna[list(rows)]


def training_bags(
    model: SurvivalModel, patients: Patients, rows: Sequence[int], bags: Bags, settings: BagSettings, draw: Draw
) -> list[Tensor]:
    """One bag for each of some patients: the case's, or that of one slide drawn from it.

    With ``unit`` slide, each patient gives one slide, so that no risk set holds a patient twice.
    """
    chosen = []
    for row in rows:
        slides = patients.slides[row]
        if settings.unit == "slide":
            slides = [slides[draw.number(patients.case_ids[row]) % len(slides)]]
        chosen.append(slides)
    return _bags(model, chosen, bags, settings.size, draw if settings.redraw else None)


def prediction_bags(
    model: SurvivalModel, chosen: Sequence[Sequence[str]], bags: Bags, settings: BagSettings
) -> list[Tensor]:
    """A bag for each group of slides: all tiles, or the first ones if the recipe keeps its bag size."""
    return _bags(model, chosen, bags, settings.size if settings.at_prediction == "size" else 0, None)


def _bags(
    model: SurvivalModel, chosen: Sequence[Sequence[str]], bags: Bags, size: int, draw: Draw | None
) -> list[Tensor]:
    if model.pools == "mean" and not size:
        return [bags.mean(slides) for slides in chosen]
    return [bags.bag(slides, size=size, draw=draw) for slides in chosen]
