"""The results of a sweep as one table: a row per configuration and way of evaluation, at full precision.

Owns which numbers a row has and where in a run's metrics they stand. Everything comes from files of the runs, so a
table made again from the same folder has the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmsurv_train.survival_summary import reported
from mmsurv_train.sweep.plan import Plan, Planned

LEVELS = ("wsi", "case")
COUNTS = ("part", "patients", "slides", "events", "seeds", "folds")
NUMBERS = tuple(
    f"{level}_{name}"
    for level in LEVELS
    for name in (
        "mean", "sd", "low", "high", "ensemble", "ensemble_low", "ensemble_high", "folds_mean", "folds_sd",
    )
)  # fmt: skip
"""Of every level: the C-index of a network (mean over seeds, sample sd over seeds, interval of the mean), that of the
ensemble of all seeds with its interval, and mean and sample sd of the folds' own C-indices (of their ensembles)."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one configuration in one way of evaluation."""

    planned: Planned
    evaluated_with: str
    """``bags.at_prediction`` of the evaluation."""
    metrics: Mapping[str, Any] | None
    """metrics.json; None where the configuration failed."""
    reason: str | None = None
    """Why it failed."""


def table(plan: Plan, results: Sequence[Result]) -> pd.DataFrame:
    """One row per result, in their order.

    Returns:
        configuration, evaluated_with, a column for each setting that varies (dotted), status (complete or failed),
        :data:`COUNTS`, :data:`NUMBERS`, reason. A number that does not exist is missing.
    """
    columns = ["configuration", "evaluated_with", *plan.varying, "status", *COUNTS, *NUMBERS, "reason"]
    whole = {"patients": "Int64", "slides": "Int64", "events": "Int64", "seeds": "Int64", "folds": "Int64"}
    frame = pd.DataFrame([_row(plan, result) for result in results], columns=columns)
    return frame.astype(whole | dict.fromkeys(NUMBERS, "float64"))


def _row(plan: Plan, result: Result) -> dict[str, Any]:
    row = {
        "configuration": result.planned.name,
        "evaluated_with": result.evaluated_with,
        "seeds": result.planned.recipe.fit.n_seeds,
        "folds": plan.n_folds,
        **plan.varied(result.planned),
    }
    if result.metrics is None:
        return {**row, "status": "failed", "reason": result.reason}
    return {**row, "status": "complete", **_numbers(result.metrics)}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    part = reported(metrics)
    levels = metrics["parts"][part]
    row: dict[str, Any] = {
        "part": part,
        "patients": levels["case"]["n"],
        "slides": levels["wsi"]["n"],
        "events": levels["case"]["events"],
    }
    for level in LEVELS:
        networks, ensemble = metrics["seeds"][level], levels[level]["c_index"]
        row |= {f"{level}_{name}": networks.get(name) for name in ("mean", "sd", "low", "high")}
        row[f"{level}_ensemble"] = ensemble["value"]
        row |= {f"{level}_ensemble_{name}": ensemble.get(name) for name in ("low", "high")}
        folds = metrics.get("fold_mean", {}).get(level, {})
        row |= {f"{level}_folds_{name}": folds.get(name) for name in ("mean", "sd")}
    return row
