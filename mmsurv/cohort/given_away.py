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


def _plain(name: str) -> str:
    """A name in small letters, with nothing between them."""
    return re.sub(r"[\W_]", "", name.lower())


OUTCOME_NAMES = frozenset(
    _plain(name) for names in (*TIME_COLUMNS.values(), *EVENT_COLUMNS.values()) for name in names
) | {
    "os", "ostime", "osmonths", "osdays", "osstatus", "osevent", "dss", "dsstime", "dfi", "dfitime", "pfi", "pfitime",
    "pfs", "pfstime", "pfsmonths", "pfsstatus", "daystodeath", "daystolastfollowup", "timetoevent", "timetodeath",
    "overallsurvival", "survival", "survivaltime", "survivalyears", "survivalstatus", "death", "dead", "deceased",
}  # fmt: skip
"""Names of outcomes, in small letters and with nothing between them."""

LEAST = 10
"""So many values of the time, and so many of the dead and of the living, agree with a column by no chance."""


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
        if _plain(name) in OUTCOME_NAMES:
            raise _given_away(path, name, "by its name an outcome")


def refuse_copies(path: Path, cases: pd.DataFrame, further: Sequence[str]) -> None:
    """Refuse columns that say the same as the outcome.

    Args:
        path: the table, for messages.
        cases: time, event and the further columns; cases without an outcome do not count.
        further: their names.

    Raises:
        CohortError: a column has ten values or more and rises or falls with the time in every case that has one; or
            it tells the dead from the living, ten or more of each, by its two values or by being blank.
    """
    known = cases[cases["time"].notna()]
    for name in further:
        if pd.api.types.is_numeric_dtype(known[name]) and _in_order_of(known[name].dropna(), known["time"]):
            raise _given_away(path, name, "in the order of the time to the event in every case")
        if _tells(known[name], known["event"]) or _tells(known[name].notna(), known["event"]):
            raise _given_away(path, name, "the same as the event in every case")


def _in_order_of(values: pd.Series, time: pd.Series) -> bool:
    """Whether the one orders cases as the other does, or the other way round; rounded values may be alike."""
    value_N, time_N = values.to_numpy(float), time[values.index].to_numpy(float)
    if len(np.unique(value_N)) < LEAST:
        return False
    return any((np.diff(way[np.lexsort((way, time_N))]) >= 0).all() for way in (value_N, -value_N))


def _tells(values: pd.Series, event: pd.Series) -> bool:
    level = values.astype(object).where(values.notna(), None).map(repr).to_numpy()
    of_level = event.groupby(level).agg(["min", "max"])
    enough = min(int(event.sum()), int((~event).sum())) >= LEAST
    return enough and len(of_level) == 2 and bool((of_level["min"] == of_level["max"]).all())


def _given_away(path: Path, name: str, what: str) -> CohortError:
    return CohortError(
        f"{path}: column {name!r} is {what}, and no clinical variable: a model that sees it has nothing to predict. "
        "Leave it out of --clinical-column, --clinical-variable and --stratum."
    )
