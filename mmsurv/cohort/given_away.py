"""Clinical columns that give the outcome away, which a model must not see.

Owns what is refused: ids, the outcome's own columns, columns by the name of another outcome, and columns that say the
same as the outcome under whatever name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmsurv.cohort.options import EVENT_COLUMNS, TIME_COLUMNS
from mmsurv.cohort.outcome import OutcomeColumns
from mmsurv.errors import CohortError

OUTCOME_NAMES = frozenset(
    re.sub("[^a-z]", "", name)
    for names in (*TIME_COLUMNS.values(), *EVENT_COLUMNS.values())
    for name in names
) | {
    "os", "ostime", "osmonths", "osdays", "osstatus", "osevent", "dss", "dsstime", "dfi", "dfitime", "pfi", "pfitime",
    "pfs", "pfstime", "pfsmonths", "pfsstatus", "daystodeath", "daystolastfollowup", "timetoevent", "timetodeath",
    "overallsurvival", "survival", "survivaltime", "survivalyears", "survivalstatus", "death", "dead", "deceased",
}  # fmt: skip
"""Names of outcomes, in small letters and without anything between them."""

LEAST = 10
"""Cases with fewer values may agree with an outcome by chance."""


def refuse_known(
    path: Path, further: Sequence[str], *, case: str | None, slide: str | None, outcome: OutcomeColumns | None
) -> None:
    """Refuse columns by their names.

    Raises:
        CohortError: one is an id, or an outcome.
    """
    known = {case: "the case id", slide: "the slide"}
    if outcome is not None:
        known |= {outcome.time: "the time to the event", outcome.event: "the event"}
    for name in further:
        if name in known:
            raise _given_away(path, name, known[name])
        if re.sub("[^a-z]", "", name.lower()) in OUTCOME_NAMES:
            raise _given_away(path, name, "by its name an outcome")


def refuse_copies(path: Path, cases: pd.DataFrame, further: Sequence[str]) -> None:
    """Refuse columns that say the same as the outcome.

    Args:
        path: the table, for messages.
        cases: time, event and the further columns; cases without an outcome do not count.
        further: their names.

    Raises:
        CohortError: a column rises with the time in all of 10 cases or more, or tells who died in all of them.
    """
    known = cases[cases["time"].notna()]
    for name in further:
        rows = known[known[name].notna()]
        if len(rows) < LEAST:
            continue
        if pd.api.types.is_numeric_dtype(rows[name]) and _rises_with(rows[name], rows["time"]):
            raise _given_away(path, name, "in the order of the time to the event in every case")
        levels = rows.groupby(name)["event"].agg(["min", "max"])
        if len(levels) == 2 and (levels["min"] == levels["max"]).all() and levels["min"].nunique() == 2:
            raise _given_away(path, name, "the same as the event in every case")


def _rises_with(values: pd.Series, time: pd.Series) -> bool:
    """Whether the one orders cases as the other does; rounded values may be alike."""
    value_N, time_N = values.to_numpy(float), time.to_numpy(float)
    in_order = value_N[np.lexsort((value_N, time_N))]
    return len(np.unique(value_N)) >= LEAST and bool((np.diff(in_order) >= 0).all())


def _given_away(path: Path, name: str, what: str) -> CohortError:
    return CohortError(
        f"{path}: column {name!r} is {what}, and no clinical variable: a model that sees it has nothing to predict. "
        "Leave it out of --clinical-column, --clinical-variable and --stratum."
    )
