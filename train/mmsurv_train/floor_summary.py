"""The floors of a run for people, and the model itself with less to go on: a line for each.

Owns the words; used by the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsurv_train.digits import NONE, interval, number


def lines(metrics: Mapping[str, Any]) -> list[str]:
    """The blocks under the model's table; empty for a run without floors and whose patients lack nothing."""
    found = []
    if metrics.get("patterns"):
        found += ["as if patients had nothing else, case level:", *_block(metrics["patterns"])]
    if metrics.get("floors"):
        found += ["floors, case level: penalised Cox regressions on the same patients (docs/evaluate.md)"]
        found += [*_block(metrics["floors"]), verdict(metrics)]
    return found


def _block(floors: Mapping[str, Any]) -> list[str]:
    width, found = max(map(len, floors)), []
    for name, floor in ordered(floors):
        estimate, mean = floor["c_index"], floor.get("fold_mean")
        folds = "" if mean is None or mean["mean"] is None else f"  folds {number(mean['mean'])}"
        found.append(f"  {name.ljust(width)}  {number(estimate['value'])}  {interval(estimate)}{folds}".rstrip())
    return found


def ordered(floors: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """By the number of inputs, then by name: the same order from memory and from a file."""
    return sorted(floors.items(), key=lambda item: (len(item[1]["inputs"]), item[0]))


def best(metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    """The floor of the greatest C-index, and that; None where none has one."""
    values = {name: floor["c_index"]["value"] for name, floor in metrics.get("floors", {}).items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None
    name = max(known, key=lambda one: known[one])
    return name, known[name]


def verdict(metrics: Mapping[str, Any]) -> str:
    """Whether the model is above the best floor, in one sentence."""
    part = "test" if "test" in metrics["parts"] else "out-of-fold"
    value, floor = metrics["parts"][part]["case"]["c_index"]["value"], best(metrics)
    if value is None or floor is None:
        return f"Model against floors: {NONE}"
    by = value - floor[1]
    word = "above" if by > 0 else "not above"
    remedy = f"For an interval: mmsurv compare RUN RUN:{floor[0]}"
    return f"The model is {word} its best floor, {floor[0]} ({by:+.3f}). {remedy}"
