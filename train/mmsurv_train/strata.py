"""Results for groups of patients apart: by a clinical column that was asked for, and GBM and LGG in any case.

Owns which stratum a case is in, and the ``strata`` of metrics.json. A number over a mixed cohort also rewards telling
its groups apart; within a stratum that is worth nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv.cohort.options import CohortOptions
from mmsurv.errors import CohortError
from mmsurv_train import level, metrics
from mmsurv_train.recipe import EvaluateSettings
from mmsurv_train.survival import Predicted

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort

BY_HISTOLOGY, BY_VALUE = "GBM and LGG", "values"

LEAST_EVENTS = 10
"""A stratum with fewer has counts and no numbers."""
MOST_STRATA = 12
"""A column with more values is no grouping."""


@dataclass(frozen=True, kw_only=True)
class Stratification:
    """One way to part the cases."""

    column: str
    by: str
    """``BY_HISTOLOGY`` or ``BY_VALUE``."""
    of_case: Mapping[str, str]
    """The stratum of each case that has one."""


def reading(options: CohortOptions, settings: Iterable[EvaluateSettings]) -> CohortOptions:
    """The options with the columns that strata are asked by, so that the clinical table is read with them."""
    asked = dict.fromkeys(one.stratum for one in settings if one.stratum is not None)
    further = tuple(name for name in asked if name not in options.clinical_columns)
    return dataclasses.replace(options, clinical_columns=(*options.clinical_columns, *further))


def stratifications(cohort: Cohort, settings: EvaluateSettings) -> tuple[Stratification, ...]:
    """How the cohort's cases are parted: GBM and LGG where it has both, then by the column asked for.

    Raises:
        CohortError: the column was not read, or has too many values.
    """
    found = []
    if cohort.histology is not None and cohort.histology.nunique() > 1:
        groups = cohort.histology.dropna()
        found.append(
            Stratification(
                column=str(groups.name),
                by=BY_HISTOLOGY,
                of_case={str(case): str(name) for case, name in groups.items()},
            )
        )
    if settings.stratum is not None:
        found.append(_by_value(cohort.cases, settings.stratum))
    return tuple(found)


def measure_strata(
    chosen: Sequence[Stratification],
    cases: pd.DataFrame,
    predicted: Predicted,
    compared: metrics.Reference,
    settings: EvaluateSettings,
) -> list[dict[str, Any]]:
    """The ``strata`` of metrics.json: every case-level number of each stratum.

    Args:
        chosen: how cases are parted.
        cases: of the part that is reported.
        predicted: their curves.
        compared: the censoring reference and τ, those of the whole part.
        settings: of the measures.
    """
    found = []
    for one in chosen:
        stratum = cases["case_id"].map(one.of_case)
        groups = []
        for name in sorted(set(one.of_case.values())):
            mine = (stratum == name).to_numpy()
            of_stratum = predicted.within(mine, one.of_case, name)
            groups.append({"name": name, **_measure(cases[mine], of_stratum, compared, settings)})
        found.append({"column": one.column, "by": one.by, "n_without": int(stratum.isna().sum()), "groups": groups})
    return found


def _measure(
    cases: pd.DataFrame, predicted: Predicted, compared: metrics.Reference, settings: EvaluateSettings
) -> dict[str, Any]:
    events = int(cases["event"].sum())
    if events < LEAST_EVENTS:
        return level.without(f"{events} events, fewer than {LEAST_EVENTS}", cases, settings)
    return {
        **level.measure_level(cases, compared, settings),
        **level.measure_survival(cases, predicted, compared, settings),
    }


def _by_value(cases: pd.DataFrame, column: str) -> Stratification:
    if column not in cases:
        raise CohortError(f"evaluate.stratum is {column!r}, which was not read from the clinical table.")
    values = cases[column].dropna()
    if values.nunique() > MOST_STRATA:
        raise CohortError(
            f"--stratum (evaluate.stratum): the clinical column {column!r} has {values.nunique()} values, and strata "
            f"are at most {MOST_STRATA}. Name a column that groups the patients, or add one to the table."
        )
    names = values.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    return Stratification(column=column, by=BY_VALUE, of_case={str(case): name for case, name in names.items()})
