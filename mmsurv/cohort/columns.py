"""Finding a column by the name the user gave, or by the names it is known to have.

Owns name resolution. Two columns that could both be meant are refused, not ranked.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from mmsurv.errors import CohortError


def find_column(
    path: Path, columns: Sequence[str], given: str | None, known: Sequence[str], *, what: str, option: str
) -> str | None:
    """The column that holds ``what``, or None when no name was given and none of the known ones is there.

    Raises:
        CohortError: the given name is not a column, or several known names are.
    """
    if given is not None:
        return require_given(path, columns, given, named_by=f"{option} names")
    found = [name for name in known if name in columns]
    if len(found) > 1:
        raise CohortError(
            f"{path}: {' and '.join(map(repr, found))} could both be the column of the {what}. Say which with {option}."
        )
    return found[0] if found else None


def require_column(
    path: Path, columns: Sequence[str], given: str | None, known: Sequence[str], *, what: str, option: str
) -> str:
    """As :func:`find_column`, but a column that is not found is an error too."""
    column = find_column(path, columns, given, known, what=what, option=option)
    if column is None:
        raise CohortError(
            f"{path}: no column of the {what}: expected {' or '.join(map(repr, known))}, "
            f"found {_some(columns)}. Say which column it is with {option}."
        )
    return column


def require_given(path: Path, columns: Sequence[str], given: str, *, named_by: str) -> str:
    """``given``, if it is a column; ``named_by`` says who asks for it, such as "--time-column names".

    Raises:
        CohortError: it is not; the message has the nearest one.
    """
    if given in columns:
        return given
    close = difflib.get_close_matches(given, columns, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}?" if close else f"Found: {_some(columns)}."
    raise CohortError(f"{path}: no column {given!r}, which {named_by}. {hint}")


def _some(columns: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(map(repr, columns[:limit]))
    return shown if len(columns) <= limit else f"{shown} and {len(columns) - limit} more"
