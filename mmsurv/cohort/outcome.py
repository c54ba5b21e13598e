"""Time and event of each row, in the coding the user named.

Owns what an outcome may look like. A coding is never inferred from the values: 0/1 reads as well as ``censorship``
as it does as ``event``, and the wrong guess turns every result round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mmsurv.cohort.options import EventCoding, TimeUnit
from mmsurv.cohort.reading import Table, is_missing, parse_number, place
from mmsurv.errors import CohortError

DAYS_PER_MONTH = 365.25 / 12

EVENT_CODES: Mapping[EventCoding, Mapping[str, bool]] = {
    "1=event": {"0": False, "0.0": False, "1": True, "1.0": True},
    "dead": {"alive": False, "dead": True},
    "censorship": {"0": True, "0.0": True, "1": False, "1.0": False},
}
CODE_NAMES: Mapping[EventCoding, str] = {
    "1=event": "0 (censored) or 1 (event)",
    "dead": "Alive or Dead",
    "censorship": "0 (event) or 1 (censored)",
}


@dataclass(frozen=True)
class Outcome:
    """What was observed of one case."""

    time: float
    """Months, finite and greater than zero."""
    event: bool
    """True where the event was observed, False where the case was censored."""

    def __str__(self) -> str:
        return f"{self.time:g} months, {'event' if self.event else 'censored'}"


@dataclass(frozen=True, kw_only=True)
class OutcomeColumns:
    """Where the outcome stands and how it is written."""

    time: str
    event: str
    unit: TimeUnit
    coding: EventCoding


def read_outcome(table: Table, index: int, columns: OutcomeColumns) -> Outcome | None:
    """The outcome of one row, or None where both its cells are blank.

    Raises:
        CohortError: one cell of the two is blank, the time is not a number greater than zero, or the event is
            not a code of the coding.
    """
    time, event = table.text[columns.time][index], table.text[columns.event][index]
    row = table.row(index)
    if is_missing(time) and is_missing(event):
        return None
    if is_missing(time):
        raise CohortError(
            f"{place(table.path, row, columns.time)}: the time is missing, but {columns.event!r} is {event!r}. "
            "Fill in the time, or blank both cells of a case without outcome."
        )
    if is_missing(event):
        raise CohortError(
            f"{place(table.path, row, columns.event)}: the outcome is missing, but {columns.time!r} is {time!r}. "
            "Fill in the outcome, or blank both cells of a case without outcome."
        )
    return Outcome(
        _parse_time(time, columns.unit, place(table.path, row, columns.time)),
        _parse_event(event, columns.coding, place(table.path, row, columns.event)),
    )


def _parse_time(cell: str, unit: TimeUnit, where: str) -> float:
    value = parse_number(cell)
    if value is None or not math.isfinite(value):
        raise CohortError(f"{where}: expected a time in {unit}, found {cell!r}. Correct the cell.")
    if value <= 0:
        raise CohortError(
            f"{where}: expected a time greater than zero, found {cell!r}. Correct the cell, or take the case out: "
            "a case not followed at all tells nothing of survival."
        )
    return value / DAYS_PER_MONTH if unit == "days" else value


def _parse_event(cell: str, coding: EventCoding, where: str) -> bool:
    event = EVENT_CODES[coding].get(cell.lower())
    if event is not None:
        return event
    fitting = [name for name, codes in EVENT_CODES.items() if cell.lower() in codes]
    remedy = f"If that is a code of the table, say --event-coding {fitting[0]}." if fitting else "Correct the cell."
    raise CohortError(f"{where}: expected {CODE_NAMES[coding]}, found {cell!r}. {remedy}")
