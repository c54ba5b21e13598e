"""A comparison in words and digits, for the terminal and the report.

Owns the two tables: each run's own numbers, and the differences of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmsurv_train import summary
from mmsurv_train.compare.comparison import MEASURES, Comparison
from mmsurv_train.compare.paired import Difference

WORDS = {"c_index": "Harrell", "c_index_ipcw": "Uno", "fold_mean": "folds' mean"}
"""Measures, short."""


def text(found: Comparison) -> str:
    """Everything a reader must see, as aligned text."""
    lines = [_counts(found), *(f"Note: {warning}" for warning in found.shared.warnings), ""]
    lines += [*_aligned(_runs(found)), "", *_aligned(_pairs(found)), *_reasons(found), "", *_method(found)]
    return "\n".join(lines)


def signed(value: float | None) -> str:
    """Such as "+0.013", "−0.020" or "0.000"; a dash where it is not defined."""
    if value is None:
        return summary.NONE
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "−")


def interval(found: Difference) -> str:
    """Such as "−0.010 to +0.052"; a dash where there is none."""
    return summary.NONE if found.low is None else f"{signed(found.low)} to {signed(found.high)}"


def pair_rows(found: Comparison) -> Iterator[tuple[str, str, str, str, str, str, str]]:
    """Level, measure, pair, difference, interval, p and Holm's p of every pair."""
    for name, level in found.levels.items():
        for measure in found.measures:
            for pair, one in zip(found.pairs, level.differences[measure], strict=True):
                yield (
                    summary.LEVEL_NAMES[name], WORDS[measure], found.pair_label(pair), signed(one.value),
                    interval(one), summary.p_value(one.p), summary.p_value(one.p_holm),
                )  # fmt: skip


def _counts(found: Comparison) -> str:
    case = found.levels["case"]
    wsi = f", {found.levels['wsi'].n} slides" if "wsi" in found.levels else ""
    return f"{len(found.items)} runs on the {case.n} cases that all report ({case.events} events{wsi})."


def _runs(found: Comparison) -> list[Sequence[str]]:
    heads: list[str] = [heading for measure in found.measures for heading in (MEASURES[measure], "interval")]
    rows: list[Sequence[str]] = [("level", "run", *heads)]
    for name, level in found.levels.items():
        for place, label in enumerate(found.labels):
            cells = [summary.LEVEL_NAMES[name], label]
            for measure in found.measures:
                estimate = level.estimates[measure][place]
                cells += [summary.number(estimate.value), summary.interval(estimate.to_table())]
            rows.append(cells)
    return rows


def _pairs(found: Comparison) -> list[Sequence[str]]:
    several = len(found.pairs) > 1
    rows: list[Sequence[str]] = [("level", "measure", "difference of", "value", "interval", "p", "Holm's p")]
    rows += pair_rows(found)
    return rows if several else [row[:-1] for row in rows]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _reasons(found: Comparison) -> list[str]:
    lines: dict[str, None] = {}
    for name, level in found.levels.items():
        for measure in found.measures:
            of_runs = [one.reason for one in level.estimates[measure]]
            of_pairs = [one.reason for one in level.differences[measure]]
            lines |= {
                f"{summary.LEVEL_NAMES[name]}, {WORDS[measure]}: {why}": None for why in of_runs + of_pairs if why
            }
    return list(lines)


def _method(found: Comparison) -> list[str]:
    how = found.how
    lines = [
        f"Intervals: {how.confidence:.0%}, percentile bootstrap over patients, {how.n_resamples} draws, the same for "
        "every run.",
        f"p: two-sided bootstrap, at least 2/{how.n_resamples + 1}.",
        f"Uno: censoring and τ = {found.reference.tau:.1f} months from {found.labels[0]}, {found.reference.name}.",
    ]
    if found.shared.folds is not None:
        lines.insert(1, "Of the folds' mean, patients are drawn within their fold.")
    if len(found.pairs) > 1:
        lines.append(
            f"{len(found.pairs)} pairs are tested: Holm's p is adjusted for that, over the pairs of one measure at one "
            "level."
        )
    return lines
