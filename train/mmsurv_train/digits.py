"""How numbers are written for people, in the command line's tables and in the report.

Owns the digits, and the dash for what is not defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Such as "0.713"; a dash where it is not defined."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """Such as "0.612 to 0.741"; a dash where there is none."""
    if estimate.get("low") is None:
        return NONE
    return f"{number(estimate['low'])} to {number(estimate['high'])}"


def p_value(p: float | None) -> str:
    """Such as "0.031", "0.0004" or "< 0.0001"."""
    if p is None:
        return NONE
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.4f}" if p < 1e-3 else f"{p:.3f}"


def counted(n: int, noun: str) -> str:
    """Such as "1 slide" or "3 slides"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """(what is missing, why) as a line for each reason, with all that it explains."""
    found: dict[str, dict[str, None]] = {}
    for what, why in reasons:
        found.setdefault(why, {})[what] = None
    return [f"{'; '.join(whats)}: {why}" for why, whats in found.items()]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of text, columns below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
