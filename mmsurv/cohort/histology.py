"""Glioblastoma or lower-grade glioma: what a clinical table's histology says, in two groups.

Owns the names of the columns and the mapping of their values. A cohort of both is two diseases in one: a risk that only
tells them apart ranks most pairs of patients rightly. Results are therefore shown for each group apart wherever a table
has such a column, without being asked (docs/evaluate.md).

GBM are glioblastomas (OncoTree GBM, the project TCGA-GBM); LGG the diffuse gliomas of grade 2 and 3 that TCGA-LGG holds
(OncoTree ASTR, AASTR, OAST, AOAST, ODG, AODG, DIFG, LGGNOS). All else is neither, and so is a case whose rows say both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

GBM, LGG = "GBM", "LGG"

HISTOLOGY_COLUMNS = ("oncotree_code", "histology", "histological_type", "primary_diagnosis", "diagnosis", "project_id")
"""Known names; the first that a table has counts."""

_LGG_CODES = frozenset({"lgg", "tcga-lgg", "astr", "aastr", "oast", "aoast", "odg", "aodg", "difg", "lggnos"})
_GBM_CODES = frozenset({"gbm", "tcga-gbm"})
_LGG_WORDS = re.compile(r"astrocytoma|oligodendroglioma|oligoastrocytoma|low(er)?[ -]grade glioma|diffuse glioma")
_GRADE_4 = re.compile(r"grade (4|iv)\b")


def glioma_group(value: str) -> str | None:
    """GBM or LGG, or None for what is neither; case and surrounding blanks do not count.

    An astrocytoma of grade 4 that is not called a glioblastoma is neither.
    """
    name = value.strip().lower()
    if name in _GBM_CODES or "glioblastoma" in name:
        return GBM
    if name in _LGG_CODES or (_LGG_WORDS.search(name) and not _GRADE_4.search(name)):
        return LGG
    return None


def histology_column(columns: Sequence[str]) -> str | None:
    """The table's histology column, or None."""
    return next((name for name in HISTOLOGY_COLUMNS if name in columns), None)


def glioma_groups(cells: Sequence[str], rows: Mapping[str, Sequence[int]], cases: pd.Index, column: str) -> pd.Series:
    """The group of each case: GBM, LGG or None. Index ``cases``, named ``column``.

    Args:
        cells: the column, row by row.
        rows: rows of each case.
        cases: the cases wanted.
        column: its name.
    """
    groups = []
    for case in cases:
        found = {glioma_group(cells[row]) for row in rows[case]}
        groups.append(found.pop() if len(found) == 1 else None)
    return pd.Series(groups, index=cases, name=column, dtype=object)
