"""The floors of a run for people, and the model itself with less to go on: a line for each.

Owns the words; used by the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsurv_train.digits import NONE, interval, number
from mmsurv_train.survival_summary import reported


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
        folds = "" if mean is None or mean["mean"] is None else f"  folds {number(mean['mean'])} ± {number(mean['sd'])}"
        found.append(f"  {name.ljust(width)}  {number(estimate['value'])}  {interval(estimate)}{folds}".rstrip())
    return found


def ordered(floors: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """By the number of inputs, then by name: the same order from memory and from a file."""
    return sorted(floors.items(), key=lambda item: (len(item[1]["inputs"]), item[0]))


def gap(model: Mapping[str, Any], floor: Mapping[str, Any]) -> float | None:
    """The model's C-index less the floor's; None where one has none, or where they are of other patients: a floor has
    no risk for a patient who lacks its input, and C-indices of other patients say nothing of the models.

    Args:
        model: what was measured of the model on the reported part, by case.
        floor: what was measured of the floor.
    """
    own, other = model["c_index"]["value"], floor["c_index"]["value"]
    return None if own is None or other is None or model["n"] != floor["n"] else float(own - other)


def verdict(metrics: Mapping[str, Any]) -> str:
    """Whether the model is above the best floor, in one sentence."""
    model, floors = metrics["parts"][reported(metrics)]["case"], dict(ordered(metrics["floors"]))
    found = {name: gap(model, floor) for name, floor in floors.items()}
    gaps = {name: by for name, by in found.items() if by is not None}
    if not gaps:
        return f"Model against floors: {NONE}"
    best = min(gaps, key=lambda name: gaps[name])
    word = "above" if gaps[best] > 0 else "not above"
    remedy = f"For an interval: mmsurv compare RUN RUN:{best}"
    fewer = [name for name, floor in floors.items() if floor["n"] != model["n"]]
    beside = f" Of fewer patients, so not held against it: {', '.join(fewer)}." if fewer else ""
    return f"The model is {word} its best floor, {best} ({gaps[best]:+.3f}).{beside} {remedy}"
