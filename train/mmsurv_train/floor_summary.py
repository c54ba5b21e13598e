"""The floors of a run for people: a line for each, and whether the model is above them.

Owns the words; used by the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsurv_train.digits import NONE, interval, number


def lines(metrics: Mapping[str, Any]) -> list[str]:
    """The block under the model's table; empty for a run without floors."""
    floors = metrics.get("floors")
    if not floors:
        return []
    width = max(map(len, floors))
    found = ["floors, case level: penalised Cox regressions on the same patients (docs/evaluate.md)"]
    for name in sorted(floors, key=lambda one: (len(floors[one]["inputs"]), one)):
        floor = floors[name]
        estimate, mean = floor["c_index"], floor.get("fold_mean")
        folds = "" if mean is None or mean["mean"] is None else f"  folds {number(mean['mean'])}"
        found.append(f"  {name.ljust(width)}  {number(estimate['value'])}  {interval(estimate)}{folds}".rstrip())
    return [*found, verdict(metrics)]


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
