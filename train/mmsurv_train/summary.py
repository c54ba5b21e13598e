"""Metrics as a table: which rows a reader sees first, and how a number with its interval is written.

Owns the words and digits; used by the command line and by the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmsurv_train import floor_summary, survival_summary
from mmsurv_train.digits import NONE, aligned, by_reason, interval, number
from mmsurv_train.digits import p_value as p_value

HEADINGS = ("part", "level", "C-index", "interval", "Uno's C-index", "interval", "n", "events")
LEVEL_NAMES = {"wsi": "WSI", "case": "case"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One part at one level."""

    part: str
    level: str
    c_index: Mapping[str, Any]
    uno: Mapping[str, Any]
    n: int
    events: int


def rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """The parts in the order of the file's making, WSI before case."""
    order = ("train", "validation", "test", "out-of-fold", "external")
    for part in sorted(metrics["parts"], key=order.index):
        for level in LEVEL_NAMES:
            found = metrics["parts"][part][level]
            yield Row(
                part=part,
                level=level,
                c_index=found["c_index"],
                uno=found["c_index_ipcw"],
                n=found["n"],
                events=found["events"],
            )


def text(metrics: Mapping[str, Any]) -> str:
    """The table as aligned text, with the reasons of what is missing and, for folds and for seeds, their mean ± sd."""
    lines = [
        (
            row.part,
            LEVEL_NAMES[row.level],
            number(row.c_index["value"]),
            interval(row.c_index),
            number(row.uno["value"]),
            interval(row.uno),
            str(row.n),
            str(row.events),
        )
        for row in rows(metrics)
    ]
    table = aligned([HEADINGS, *lines])
    beyond = [*floor_summary.lines(metrics), *survival_summary.lines(metrics)]
    return "\n".join([*table, *_folds(metrics), *_seeds(metrics), *beyond, *_reasons(metrics), *_method(metrics)])


def fold_mean(metrics: Mapping[str, Any], level: str) -> str:
    """Mean ± sd such as "0.812 ± 0.034", with the number of folds where not all have a C-index; else a dash."""
    mean = metrics.get("fold_mean", {}).get(level)
    if mean is None or mean["mean"] is None:
        return NONE
    spread = "" if mean["sd"] is None else f" ± {number(mean['sd'])}"
    count = f" (of {mean['n_folds']} folds)" if mean["n_undefined"] else ""
    return f"{number(mean['mean'])}{spread}{count}"


def n_seeds(metrics: Mapping[str, Any]) -> int:
    """How many networks the model is the mean of."""
    return len(metrics["seeds"]["seeds"])


def seed_mean(metrics: Mapping[str, Any], level: str) -> str:
    """Mean ± sd of the networks' own C-indices, such as "0.702 ± 0.011"; a dash for one network."""
    found = metrics["seeds"][level]
    return NONE if found["sd"] is None else f"{number(found['mean'])} ± {number(found['sd'])}"


def seed_interval(metrics: Mapping[str, Any], level: str) -> str:
    """Interval of that mean; a dash for one network or where there is none."""
    found = metrics["seeds"][level]
    return NONE if found["sd"] is None else interval(found)


def _folds(metrics: Mapping[str, Any]) -> list[str]:
    if "fold_mean" not in metrics:
        return []
    return [f"mean ± sd of the folds, {LEVEL_NAMES[level]}: {fold_mean(metrics, level)}" for level in LEVEL_NAMES]


def _seeds(metrics: Mapping[str, Any]) -> list[str]:
    """The networks alone, beside the ensemble in the table."""
    if n_seeds(metrics) == 1:
        return []
    which, lines = metrics["seeds"]["seeds"], []
    for level, name in LEVEL_NAMES.items():
        found = seed_interval(metrics, level)
        of_mean = "" if found == NONE else f", interval of the mean {found}"
        lines.append(f"mean ± sd of the {len(which)} seeds alone, {name}: {seed_mean(metrics, level)}{of_mean}")
    return [*lines, f"The table is of their ensemble: the mean risk of seeds {which[0]} to {which[-1]}."]


def _reasons(metrics: Mapping[str, Any]) -> list[str]:
    found = [
        (f"{row.part}, {LEVEL_NAMES[row.level]}", estimate["reason"])
        for row in rows(metrics)
        for estimate in (row.c_index, row.uno)
        if estimate.get("reason")
    ]
    return by_reason([*found, *survival_summary.reasons(metrics)])


def _method(metrics: Mapping[str, Any]) -> list[str]:
    method = metrics["method"]
    if not method["n_bootstrap"]:
        return []
    return [f"Intervals: {method['confidence']:.0%}, {method['interval']}, {method['n_bootstrap']} draws."]
