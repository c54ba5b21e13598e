"""What joined and what did not: counts for a glance, lists for repair.

Owns the report's fields and its two forms, text and JSON-able table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 5
"""Ids of a list that the text shows; the table has them all."""


@dataclass(frozen=True, kw_only=True)
class JoinReport:
    """The result of a join. Counts are of cases that have an outcome, unless a field says otherwise."""

    clinical: str
    """Path of the clinical table."""
    rna: str | None
    """Path of the RNA table; the clinical table where RNA stands in it; None without RNA."""
    reading: Mapping[str, str | None]
    """How the tables were read: column of case, slide, time and event, event coding, time unit, id rule."""
    n_cases: int
    n_events: int
    months: Mapping[str, float]
    """Least, median and greatest time; empty where no case has an outcome."""
    cases_without_outcome: Sequence[str] = ()

    n_slides: int | None = None
    """Slides with a case (and in the store, where one was given); None where no slide is known of."""
    n_cases_with_slides: int | None = None
    cases_without_slides: Sequence[str] = ()
    slides_without_outcome: Sequence[str] = ()
    """Slides of cases without outcome."""
    slides_not_in_store: Sequence[str] = ()
    store_slides_without_case: Sequence[str] = ()
    """Slides of the store that the clinical table has no case for."""

    n_genes: int | None = None
    """None without RNA."""
    n_cases_with_rna: int | None = None
    n_cases_with_both: int | None = None
    """Cases with at least one slide and RNA."""
    cases_without_rna: Sequence[str] = ()
    slides_without_rna: Sequence[str] = ()
    rna_without_case: Sequence[str] = ()
    """Cases of the RNA table that have no outcome or are not in the clinical table."""
    rna_without_slides: Sequence[str] = ()
    rna_without_values: Sequence[str] = ()
    """Cases whose RNA values are all missing; counted as without RNA."""
    missing_values: int = 0
    """RNA values missing in cases of the cohort; the trainer imputes them from its training part."""
    genes_with_missing_values: Mapping[str, int] = field(default_factory=dict)
    """Gene to number of cases without its value."""
    genes_without_values: Sequence[str] = ()
    """Genes of which no case of the cohort has a value."""

    def to_table(self) -> dict[str, Any]:
        """Every field, JSON-able."""
        return {
            key: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for key, value in asdict(self).items()
        }

    def to_text(self) -> str:
        """A few lines for people; long lists are cut short."""
        return "\n".join([*self._summary(), *self._unjoined(), *self._missing()])

    def _summary(self) -> list[str]:
        read = ", ".join(f"{key} {value}" for key, value in self.reading.items() if value is not None)
        lines = [
            f"clinical  {_printable(self.clinical)}",
            f"          {read}",
            f"cases     {self.n_cases}, {self._outcomes()}",
        ]
        if self.n_slides is not None:
            lines.append(f"slides    {self.n_slides} of {self.n_cases_with_slides} cases")
        if self.n_genes is not None and self.rna is not None:
            source = _printable(self.rna)
            lines.append(f"RNA       {self.n_genes} genes of {self.n_cases_with_rna} cases, from {source}")
        if self.n_cases_with_both is not None:
            lines.append(f"both      {self.n_cases_with_both} cases have slides and RNA")
        return lines

    def _outcomes(self) -> str:
        if not self.months:
            return "without outcomes"
        least, median, greatest = (self.months[name] for name in ("least", "median", "greatest"))
        return f"{self.n_events} events; months {least:g} to {greatest:g}, median {median:g}"

    def _unjoined(self) -> list[str]:
        lists = {
            "cases without outcome": self.cases_without_outcome,
            "cases without slides": self.cases_without_slides,
            "cases without RNA": self.cases_without_rna,
            "slides without outcome": self.slides_without_outcome,
            "slides without RNA": self.slides_without_rna,
            "RNA without case": self.rna_without_case,
            "RNA without slides": self.rna_without_slides,
            "RNA without any value": self.rna_without_values,
            "slides not in the store": self.slides_not_in_store,
            "slides of the store without case": self.store_slides_without_case,
        }
        lines = [f"  {name}: {len(ids)} ({_some(ids)})" for name, ids in lists.items() if ids]
        return ["not joined", *lines] if lines else ["not joined  nothing: every id has its partner"]

    def _missing(self) -> list[str]:
        if not self.missing_values:
            return []
        lines = [
            f"missing   {self.missing_values} RNA values in {len(self.genes_with_missing_values)} genes; "
            "training imputes them by the median of its training part"
        ]
        if self.genes_without_values:
            lines.append(f"  genes without any value: {_some(self.genes_without_values)}")
        return lines


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:SHOWN])
    return shown if len(ids) <= SHOWN else f"{shown} and {len(ids) - SHOWN} more"


def _printable(path: str) -> str:
    """The path as text; a replacement character for each byte of it that is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
