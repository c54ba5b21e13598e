"""The clinical table: one row per slide or per case, to one outcome per case and one case per slide.

Owns what makes such a table contradictory: two outcomes of one case, a slide in two rows, a slide whose name belongs
to another case. Also reads the single-file form, in which RNA stands beside the outcome in ``rna_*`` columns.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmsurv.cohort.columns import find_column, require_column, require_given
from mmsurv.cohort.given_away import refuse_copies, refuse_known
from mmsurv.cohort.histology import glioma_groups, histology_column
from mmsurv.cohort.ids import case_id_of, slide_id_of
from mmsurv.cohort.options import (
    CASE_COLUMNS,
    EVENT_COLUMNS,
    SLIDE_COLUMNS,
    TIME_COLUMNS,
    CohortOptions,
    IdRule,
)
from mmsurv.cohort.outcome import Outcome, OutcomeColumns, read_outcome
from mmsurv.cohort.reading import Layout, Table, is_missing, parse_number, place, read_table
from mmsurv.errors import BadSlideIdError, CohortError
from mmsurv.store.ids import check_slide_id

logger = logging.getLogger("mmsurv")

RNA_PREFIX = "rna_"


@dataclass(frozen=True, kw_only=True)
class ClinicalColumns:
    """Which column of the clinical table is what."""

    case: str | None
    slide: str | None
    outcome: OutcomeColumns | None
    """None where outcomes are optional and the table has none."""
    further: tuple[str, ...]
    rna: tuple[str, ...]
    """The single-file form's RNA columns; empty in other tables."""
    histology: str | None
    """Found by its name, never asked for."""


@dataclass(frozen=True, kw_only=True)
class Clinical:
    """What the clinical table says."""

    table: Table
    columns: ClinicalColumns
    rows: Mapping[str, Sequence[int]]
    """Indices into ``table`` of each case, in the order of the table."""
    cases: pd.DataFrame
    """Index case_id (sorted): time, event, then the further columns; cases with an outcome only, unless outcomes are
    optional: a case without one then has time NaN, and event False, which says nothing."""
    without_outcome: tuple[str, ...]
    slides: pd.DataFrame | None
    """Columns slide_id, case_id, sorted by slide_id, of all cases; None where the table has no slide column."""
    histology: pd.Series | None
    """GBM, LGG or None of each of ``cases``, named as its column; None where the table has no such column."""


NAMED_BY = "--clinical-column, --clinical-variable or --stratum names"
"""Who asks for a further column, unless a run does."""


def read_clinical(
    options: CohortOptions, *, outcome_optional: bool = False, named_by: Mapping[str, str] | None = None
) -> Clinical:
    """Read the clinical table that ``options`` describe.

    Args:
        options: which table, and what its columns mean.
        outcome_optional: keep cases without an outcome, and read a table that has neither of the two columns.
        named_by: who asks for a further column, where no option does: for the message where it is not there.

    Raises:
        CohortError: a column is not found or ambiguous; a row's id, time or event cannot be believed; two rows
            contradict each other; or no case has an event, unless outcomes are optional.
    """
    path = Path(options.clinical)
    if path.suffix.lower() == ".parquet":
        raise CohortError(f"{path}: a clinical table is read from CSV or TSV, whose cells are as written. Save it so.")
    chosen: list[ClinicalColumns] = []

    def choose(columns: tuple[str, ...]) -> Layout:
        chosen.append(_choose(path, columns, options, outcome_optional, named_by or {}))
        return _layout(chosen[0])

    table = read_table(path, choose)
    columns = chosen[0]
    slide_ids = _slide_ids(table, columns.slide)
    case_ids = [_case_id(table, i, columns, slide_ids, options.id_rule) for i in range(len(table.row_numbers))]
    rows: dict[str, list[int]] = {}
    for index, case_id in enumerate(case_ids):
        rows.setdefault(case_id, []).append(index)
    if slide_ids is None:
        _refuse_repeated_cases(table, rows)
    outcomes = {case_id: _one_outcome(table, case_id, rows[case_id], columns.outcome) for case_id in sorted(rows)}
    cases = _cases(table, rows, outcomes, columns, outcome_optional)
    histology = columns.histology
    return Clinical(
        table=table,
        columns=columns,
        rows=rows,
        cases=cases,
        without_outcome=tuple(case_id for case_id, outcome in outcomes.items() if outcome is None),
        slides=None if slide_ids is None else _slides(table, slide_ids, case_ids, columns.slide),
        histology=None if histology is None else glioma_groups(table.text[histology], rows, cases.index, histology),
    )


def _choose(
    path: Path, columns: tuple[str, ...], options: CohortOptions, outcome_optional: bool, named_by: Mapping[str, str]
) -> ClinicalColumns:
    slide = find_column(path, columns, options.slide_column, SLIDE_COLUMNS, what="slide", option="--slide-column")
    from_slides = slide is not None and options.id_rule != "none"
    find_case = find_column if from_slides else require_column
    case = find_case(path, columns, options.case_column, CASE_COLUMNS, what="case", option="--case-column")
    outcome = _outcome_columns(path, columns, options, outcome_optional)
    further = tuple(
        require_given(path, columns, name, named_by=named_by.get(name, NAMED_BY)) for name in options.clinical_columns
    )
    refuse_known(path, further, case=case, slide=slide, outcome=outcome)
    rna = tuple(name for name in columns if name.startswith(RNA_PREFIX)) if options.rna is None else ()
    histology = histology_column(columns)
    return ClinicalColumns(case=case, slide=slide, outcome=outcome, further=further, rna=rna, histology=histology)


def _outcome_columns(
    path: Path, columns: tuple[str, ...], options: CohortOptions, optional: bool
) -> OutcomeColumns | None:
    """Both columns; None where outcomes are optional, and no name was given and no known one is there of either."""
    time_names, event_names = TIME_COLUMNS[options.time_unit], EVENT_COLUMNS[options.event_coding]
    given = options.time_column is not None or options.event_column is not None
    if optional and not given and not any(name in columns for name in (*time_names, *event_names)):
        return None
    return OutcomeColumns(
        time=require_column(
            path, columns, options.time_column, time_names,
            what=f"time in {options.time_unit}", option="--time-column",
        ),
        event=require_column(
            path, columns, options.event_column, event_names,
            what=f"event (--event-coding {options.event_coding})", option="--event-column",
        ),
        unit=options.time_unit,
        coding=options.event_coding,
    )  # fmt: skip


def _layout(columns: ClinicalColumns) -> Layout:
    outcome = () if columns.outcome is None else (columns.outcome.time, columns.outcome.event)
    named = [columns.case, columns.slide, *outcome, *columns.further, columns.histology]
    text = tuple(dict.fromkeys(name for name in named if name is not None))
    return Layout(text=text, numbers=tuple(name for name in columns.rna if name not in text))


def _slide_ids(table: Table, column: str | None) -> list[str] | None:
    """The slide id of each row, blank where the row names no slide."""
    if column is None:
        return None
    ids = [slide_id_of(name) for name in table.text[column]]
    for index, slide_id in enumerate(ids):
        if not slide_id:
            continue
        try:
            check_slide_id(slide_id)
        except BadSlideIdError as error:
            raise CohortError(f"{place(table.path, table.row(index), column)}: {error}") from error
    return ids


def _case_id(table: Table, index: int, columns: ClinicalColumns, slide_ids: list[str] | None, rule: IdRule) -> str:
    slide_id = slide_ids[index] if slide_ids is not None else ""
    if columns.case is None:
        if not slide_id:
            raise CohortError(f"{place(table.path, table.row(index), columns.slide)}: the row names no slide or case.")
        return ruled_case_id(table, index, columns.slide, slide_id, rule)
    name = table.text[columns.case][index]
    if not name:
        raise CohortError(f"{place(table.path, table.row(index), columns.case)}: the case id is blank.")
    case_id = ruled_case_id(table, index, columns.case, name, rule)
    if slide_id and rule != "none":
        of_slide = ruled_case_id(table, index, columns.slide, slide_id, rule)
        if of_slide != case_id:
            raise CohortError(
                f"{place(table.path, table.row(index), columns.slide)}: the slide {slide_id!r} belongs to case "
                f"{of_slide!r} by --id-rule {rule}, the row says {case_id!r}. Correct one of them."
            )
    return case_id


def ruled_case_id(table: Table, index: int, column: str | None, name: str, rule: IdRule) -> str:
    """The case id of one cell.

    Raises:
        CohortError: the id rule does not know such a name.
    """
    case_id = case_id_of(name, rule)
    if case_id is None:
        raise CohortError(
            f"{place(table.path, table.row(index), column)}: expected a TCGA barcode such as "
            f"TCGA-02-0047-01Z-00-DX1, found {name!r}. Correct the cell, or leave --id-rule out."
        )
    return case_id


def _refuse_repeated_cases(table: Table, rows: Mapping[str, Sequence[int]]) -> None:
    for case_id, indices in rows.items():
        if len(indices) > 1:
            raise CohortError(
                f"{table.path}: case {case_id!r} stands in {table.rows(indices)}, and no column holds slides. "
                "Keep one row per case, or name the slides' column with --slide-column."
            )


def _one_outcome(table: Table, case_id: str, indices: Sequence[int], columns: OutcomeColumns | None) -> Outcome | None:
    if columns is None:
        return None
    outcomes = [read_outcome(table, index, columns) for index in indices]
    for index, outcome in zip(indices, outcomes, strict=True):
        if outcome != outcomes[0]:
            first, other = (str(found or "none") for found in (outcomes[0], outcome))
            raise CohortError(
                f"{table.path}, {table.rows([indices[0], index])}, columns {columns.time!r} and {columns.event!r}: "
                f"case {case_id!r} has two outcomes ({first}; {other}). Correct the rows: a case has one outcome."
            )
    return outcomes[0]


def _cases(
    table: Table,
    rows: Mapping[str, Sequence[int]],
    outcomes: Mapping[str, Outcome | None],
    columns: ClinicalColumns,
    outcome_optional: bool,
) -> pd.DataFrame:
    known = {case_id: outcome for case_id, outcome in outcomes.items() if outcome is not None}
    if columns.outcome is not None and not outcome_optional and not any(one.event for one in known.values()):
        raise CohortError(
            f"{place(table.path, column=columns.outcome.event)}: no event among {len(known)} cases with outcome, so "
            f"survival cannot be modelled. Read with --event-coding {columns.outcome.coding}; is that the coding?"
        )
    kept = list(outcomes) if outcome_optional else list(known)
    frame = pd.DataFrame(
        {
            "time": [known[case_id].time if case_id in known else math.nan for case_id in kept],
            "event": [case_id in known and known[case_id].event for case_id in kept],
        },
        index=pd.Index(kept, name="case_id", dtype=object),
    )
    for name in columns.further:
        frame[name] = _one_value_each(table, {case_id: rows[case_id] for case_id in kept}, name)
    if not outcome_optional:  # who is to be predicted is fitted by nobody
        refuse_copies(table.path, frame, columns.further)
    return frame


def _one_value_each(table: Table, rows: Mapping[str, Sequence[int]], column: str) -> pd.Series:
    """A further clinical column by case: numbers if every cell that is not missing is one, otherwise text."""
    cells: list[str] = []
    for case_id, indices in rows.items():
        values = [table.text[column][index] for index in indices]
        for index, value in zip(indices, values, strict=True):
            if value != values[0]:
                raise CohortError(
                    f"{table.path}, {table.rows([indices[0], index])}, column {column!r}: case {case_id!r} has two "
                    f"values ({values[0]!r}; {value!r}). Correct the rows, or leave the column out."
                )
        cells.append(values[0])
    labels = pd.Index(list(rows), name="case_id", dtype=object)
    parsed = [math.nan if is_missing(cell) else parse_number(cell) for cell in cells]
    numbers = [number for number in parsed if number is not None and not math.isinf(number)]
    if len(numbers) == len(cells):
        return pd.Series(numbers, index=labels, dtype="float64")
    _warn_of_strays(table, column, rows, cells, parsed)
    return pd.Series([None if is_missing(cell) else cell for cell in cells], index=labels, dtype=object)


def _warn_of_strays(
    table: Table, column: str, rows: Mapping[str, Sequence[int]], cells: list[str], parsed: list[float | None]
) -> None:
    """Warn of a column of numbers that a few cells of text make one of text."""
    strays = [index for index, number in enumerate(parsed) if number is None or math.isinf(number)]
    n_numbers = sum(number is not None and math.isfinite(number) for number in parsed)
    if n_numbers > len(strays):
        first = strays[0]
        where = place(table.path, table.row(list(rows.values())[first][0]), column)
        logger.warning(
            "%s: %r is no number, and %d other cells are: the whole column is read as text, each value a level of its "
            "own. Correct the cell, or leave it blank.", where, cells[first], n_numbers,
        )  # fmt: skip


def _slides(table: Table, slide_ids: list[str], case_ids: list[str], column: str | None) -> pd.DataFrame:
    first: dict[str, int] = {}
    for index, slide_id in enumerate(slide_ids):
        if slide_id and first.setdefault(slide_id, index) != index:
            raise CohortError(
                f"{table.path}, {table.rows([first[slide_id], index])}, column {column!r}: slide {slide_id!r} stands "
                "in two rows. Keep one."
            )
    pairs = [(slide_id, case_ids[index]) for slide_id, index in sorted(first.items())]
    return pd.DataFrame(pairs, columns=["slide_id", "case_id"], dtype=object)
