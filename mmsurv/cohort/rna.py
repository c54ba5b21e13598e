"""RNA profiles, one per case, from their own table or from the ``rna_*`` columns of the clinical one.

Owns gene names and values: duplicates refused, log2 and Ensembl versions by option. A missing value stays NaN here;
it is imputed later, from the training part only.
Shape suffixes: C cases, G genes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmsurv.cohort.clinical import RNA_PREFIX, Clinical, ruled_case_id
from mmsurv.cohort.columns import find_column
from mmsurv.cohort.options import CASE_COLUMNS, CohortOptions
from mmsurv.cohort.reading import Layout, Table, place, read_table
from mmsurv.errors import CohortError

INDEX_COLUMNS = ("", "__index_level_0__", "Unnamed: 0")
"""Names under which pandas writes the row index of a table: the case ids, or mere row numbers; never a gene."""
ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]*[GT]\d{11})\.\d+(_PAR_Y)?$")


@dataclass(frozen=True)
class Rna:
    """The profiles a table holds, whether or not a case of the cohort has them."""

    profiles: pd.DataFrame
    """(C, G) float64, index case_id in the table's order, columns genes; NaN is a missing value."""
    without_values: tuple[str, ...]
    """Cases whose every value is missing: they have no RNA."""


def read_rna(options: CohortOptions) -> Rna:
    """Read the table ``options.rna``.

    Raises:
        CohortError: no gene, a value that is no number, infinite, or negative where log2 was asked for; a blank or
            repeated case id; or a repeated gene. The message has the row and the column.
    """
    path = Path(str(options.rna))

    def choose(columns: tuple[str, ...]) -> Layout:
        key = _key_column(path, columns, options.rna_case_column)
        return Layout(text=(key,), numbers=tuple(name for name in columns if name != key))

    table = read_table(path, choose)
    (key,) = table.text
    case_ids: list[str] = []
    first: dict[str, int] = {}
    for index, name in enumerate(table.text[key]):
        if not name:
            raise CohortError(f"{place(path, table.row(index), key)}: the case id is blank.")
        case_id = ruled_case_id(table, index, key, name, options.id_rule)
        if first.setdefault(case_id, index) != index:
            raise CohortError(
                f"{path}, {table.rows([first[case_id], index])}, column {key!r}: case {case_id!r} has two RNA "
                f"profiles ({table.text[key][first[case_id]]!r}; {name!r}). Keep one row per case."
            )
        case_ids.append(case_id)
    return _finish(table, case_ids, range(len(case_ids)), table.number_columns, options)


def _key_column(path: Path, columns: tuple[str, ...], given: str | None) -> str:
    known = CASE_COLUMNS if any(name in columns for name in CASE_COLUMNS) else INDEX_COLUMNS
    key = find_column(path, columns, given, known, what="case", option="--rna-case-column") or columns[0]
    for name in INDEX_COLUMNS:
        if name in columns and name != key:
            raise CohortError(
                f"{place(path, 1, name)}: a row index beside the case ids of {key!r}, not a gene. Delete the column, "
                "or name the column of the case ids with --rna-case-column."
            )
    return key


def read_rna_of_clinical(clinical: Clinical, options: CohortOptions) -> Rna | None:
    """The profiles of the single-file form; None where the clinical table has no ``rna_*`` column.

    Raises:
        CohortError: as :func:`read_rna`; or two rows of one case that differ in a value.
    """
    table = clinical.table
    if not table.number_columns:
        return None
    for case_id, indices in clinical.rows.items():
        first = table.numbers[indices[0]]
        for index in indices[1:]:
            other = table.numbers[index]
            differ = np.flatnonzero(~((first == other) | (np.isnan(first) & np.isnan(other))))
            if len(differ):
                raise CohortError(
                    f"{table.path}, {table.rows([indices[0], index])}, column {table.number_columns[differ[0]]!r}: "
                    f"case {case_id!r} has two RNA profiles ({first[differ[0]]:g}; {other[differ[0]]:g}). "
                    "Correct the rows: a case has one profile."
                )
    rows = [indices[0] for indices in clinical.rows.values()]
    genes = [name.removeprefix(RNA_PREFIX) for name in table.number_columns]
    return _finish(table, list(clinical.rows), rows, genes, options)


def _finish(
    table: Table, case_ids: Sequence[str], rows: Sequence[int], genes: Sequence[str], options: CohortOptions
) -> Rna:
    """``rows[i]`` is the row of the table that holds the profile of ``case_ids[i]``."""
    if not genes:
        raise CohortError(f"{table.path}: the RNA table has no gene, only {table.columns[0]!r}.")
    values_CG = table.numbers[list(rows)]
    if options.rna_log2:
        negative = np.argwhere(values_CG < 0)
        if len(negative):
            case, gene = negative[0]
            where = place(table.path, table.row(rows[case]), table.number_columns[gene])
            raise CohortError(
                f"{where}: {values_CG[case, gene]:g} is negative, so --rna-log2 does not apply: the table is already "
                "in logarithms or z-scores. Leave the option out."
            )
        values_CG = np.log2(values_CG + 1.0)
    names = _gene_names(table, genes, options.strip_ensembl_versions)
    empty = np.isnan(values_CG).all(axis=1)
    kept = [case_id for case_id, is_empty in zip(case_ids, empty, strict=True) if not is_empty]
    profiles = pd.DataFrame(
        values_CG[~empty],
        index=pd.Index(kept, name="case_id", dtype=object),
        columns=pd.Index(names, name="gene", dtype=object),
    )
    return Rna(profiles, tuple(sorted(set(case_ids) - set(kept))))


def _gene_names(table: Table, genes: Sequence[str], strip_versions: bool) -> list[str]:
    names = [ENSEMBL_VERSION.sub(r"\1\2", gene) if strip_versions else gene for gene in genes]
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if first.setdefault(name, index) != index:
            raise CohortError(
                f"{table.path}, row 1: columns {table.number_columns[first[name]]!r} and "
                f"{table.number_columns[index]!r} are both gene {name!r}. Keep one."
            )
    return names
