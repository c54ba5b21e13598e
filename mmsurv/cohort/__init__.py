"""Clinical, RNA and slide tables joined by id, with a report of what did not join.

Owns what a cohort is. Importing the package loads click only, so that a command can take ``cohort_options``
without loading pandas for its ``--help``; :class:`Cohort` and :func:`load_cohort` are loaded when first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmsurv.cohort.flags import cohort_options
from mmsurv.cohort.options import CohortOptions

if TYPE_CHECKING:
    from mmsurv.cohort.join import Cohort, load_cohort
    from mmsurv.cohort.report import JoinReport

__all__ = ["Cohort", "CohortOptions", "JoinReport", "cohort_options", "load_cohort"]


def __getattr__(name: str) -> Any:
    if name in ("Cohort", "load_cohort"):
        from mmsurv.cohort import join

        return getattr(join, name)
    if name == "JoinReport":
        from mmsurv.cohort.report import JoinReport

        return JoinReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
