"""What a user says about their tables: the ``[cohort]`` table of a run.

Owns the settings only; no table is opened here, and nothing heavier than the standard library is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

IdRule = Literal["none", "tcga"]
EventCoding = Literal["1=event", "dead", "censorship"]
TimeUnit = Literal["months", "days"]

CASE_COLUMNS = ("case_id", "case")
SLIDE_COLUMNS = ("slide_id", "wsi_file_name")
TIME_COLUMNS: dict[TimeUnit, tuple[str, ...]] = {
    "months": ("survival_months", "time"),
    "days": ("survival_days", "time"),
}
EVENT_COLUMNS: dict[EventCoding, tuple[str, ...]] = {
    "1=event": ("event", "vital_status"),
    "dead": ("vital_status",),
    "censorship": ("censorship",),
}
RESERVED = ("time", "event")
"""Columns of ``Cohort.cases`` that a clinical column cannot take the name of."""


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """Which tables make the cohort, and what their columns mean. A column left at None is found by its known names."""

    clinical: str
    """Path of the clinical table, CSV or TSV, gzipped or not: one row per slide or one row per case."""
    rna: str | None = None
    """Path of the RNA table (CSV, TSV, gzipped or not, or Parquet): one row per case, one column per gene."""
    id_rule: IdRule = "none"
    """How an id becomes a case id. ``none``: it is one; ``tcga``: the first 12 characters of a TCGA barcode."""
    case_column: str | None = None
    """Case id in the clinical table; known names: case_id, case."""
    slide_column: str | None = None
    """Slide id or slide file name in the clinical table; known names: slide_id, wsi_file_name."""
    time_column: str | None = None
    """Time to event or censoring; known names: survival_months or time, with days: survival_days or time."""
    event_column: str | None = None
    """Outcome; known names: event or vital_status (1=event), vital_status (dead), censorship (censorship)."""
    rna_case_column: str | None = None
    """Case id in the RNA table; known names: case_id, case; otherwise the first column."""
    event_coding: EventCoding = "1=event"
    """``1=event``: 1 event, 0 censored; ``dead``: Dead or Alive; ``censorship``: 1 censored, 0 event."""
    time_unit: TimeUnit = "months"
    """Unit of the time column; days are divided by 30.4375."""
    rna_log2: bool = False
    """Take log2(x + 1) of every RNA value."""
    strip_ensembl_versions: bool = False
    """Name genes without the version of their Ensembl id: ENSG00000141510.18 becomes ENSG00000141510."""
    clinical_columns: tuple[str, ...] = ()
    """Further columns of the clinical table to keep, such as age."""

    def __post_init__(self) -> None:
        for name, choices in (("id_rule", IdRule), ("event_coding", EventCoding), ("time_unit", TimeUnit)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, not {getattr(self, name)!r}.")
        if not self.clinical:
            raise ValueError("clinical must name a table.")
        twice = sorted({name for name in self.clinical_columns if self.clinical_columns.count(name) > 1})
        if twice:
            raise ValueError(f"clinical_columns names {', '.join(map(repr, twice))} more than once.")
        for name in self.clinical_columns:
            if name in RESERVED:
                raise ValueError(f"clinical_columns cannot hold {name!r}: a cohort's own column has that name.")
