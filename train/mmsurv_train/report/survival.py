"""What the report says of predicted survival and of strata: from runs to plain values and figures.

Owns the selection and the words. Numbers are read from metrics.json; curves are drawn from the predictions and the
baselines that the run holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from mmsurv_train import summary, survival
from mmsurv_train.digits import NONE, by_reason, interval, number, p_value
from mmsurv_train.metrics import Curves
from mmsurv_train.report import figures
from mmsurv_train.run import Run
from mmsurv_train.survival_summary import brier_span, mean_auc, reasons, strata

POINTS = 200
"""Of a predicted curve, as it is drawn."""


@dataclass(frozen=True, kw_only=True)
class Survival:
    """Predicted survival of one run, as the page shows it."""

    label: str
    cells: list[tuple[str, str]]
    """Of the table: the number, and what stands small below it."""
    calibration: Markup
    caption: str


HEADINGS = (
    "AUC, mean", "AUC", "integrated Brier score", "no model (Kaplan–Meier)", "deaths seen ⁄ expected",
    "calibration slope", "D-calibration p",
)  # fmt: skip
STRATUM_HEADINGS = (
    "C-index", "Uno’s C-index", "AUC, mean", "integrated Brier score", "no model (Kaplan–Meier)", "D-calibration p",
)  # fmt: skip


def sections(found: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """What the template shows of both."""
    pairs = list(zip(found, labels, strict=True))
    return {
        "survival_headings": HEADINGS,
        "survival": [describe(run, label, key=f"m{i}") for i, (run, label) in enumerate(pairs)],
        "stratum_headings": STRATUM_HEADINGS,
        "strata": strata_rows(found, labels),
        "missing_survival": [line for run, label in pairs for line in missing(run, label)],
    }


def describe(run: Run, label: str, *, key: str) -> Survival:
    """The row and the calibration figure of one run."""
    part = run.reported_part
    case = run.metrics["parts"][part]["case"]
    caption = (
        f"{label}: predicted survival (across) and Kaplan–Meier survival with its 95 % interval (up) of {part} cases "
        "in groups of rising predicted survival; on the line, prediction and observation agree."
    )
    return Survival(
        label=label,
        cells=_cells(case),
        calibration=figures.calibration(
            [_panel(one) for one in case["calibration"]],
            key=f"{key}-cal", title=f"Calibration, {label}", description=caption,
        ),
        caption=caption,
    )  # fmt: skip


def predicted_curves(run: Run, cases: pd.DataFrame, high: np.ndarray) -> list[figures.Line]:
    """Mean predicted survival of the low-risk and of the high-risk group, each patient's from the model that tested it.

    Drawn as far as every patient's curve is defined.
    """
    folds = run.folds()
    baselines = [survival.from_table(one.baseline) for one in folds or [run]]
    places = {k: place for place, k in enumerate(run.config["folds"])} if folds else {}
    model = cases["fold"].map(places).to_numpy(int) if folds else np.zeros(len(cases), dtype=int)
    risk = cases["raw_risk" if folds else "risk"].to_numpy(float)
    curves = Curves(baselines, model, risk)
    time = np.linspace(0, curves.end, POINTS)
    drawn = curves.at(time)
    return [figures.Line(time, drawn[group].mean(axis=0)) for group in (~high, high) if group.any()]


def strata_rows(found: Sequence[Run], labels: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each stratum of each run."""
    return [
        {
            "stratum": f"{stratification['column']}: {group['name']}",
            "model": label,
            "n": f"{group['n']} ({group['events']})",
            "cells": [
                (number(group["c_index"]["value"]), interval(group["c_index"])),
                (number(group["c_index_ipcw"]["value"]), interval(group["c_index_ipcw"])),
                (mean_auc(group["auc"]), interval(group["auc"]["mean"])),
                (number(group["integrated_brier"]["value"]), interval(group["integrated_brier"])),
                (number(group["integrated_brier"]["kaplan_meier"]), ""),
                (p_value(group["d_calibration"]["p"]), ""),
            ],
        }
        for run, label in zip(found, labels, strict=True)
        for stratification, group in strata(run.metrics)
    ]


def missing(run: Run, label: str) -> list[str]:
    """Why a number of these two tables is missing."""
    return [f"{label}, {line}" for line in by_reason(reasons(run.metrics))]


def _cells(case: Mapping[str, Any]) -> list[tuple[str, str]]:
    auc, brier, calibration = case["auc"], case["integrated_brier"], case["calibration"]
    return [
        (mean_auc(auc), _brackets(auc["mean"])),
        (_series(auc["at"], 3), _months(auc["at"])),
        (number(brier["value"]), " ".join(filter(None, (_brackets(brier), brier_span(brier))))),
        (number(brier["kaplan_meier"]), ""),
        (_series([one["observed_expected"] for one in calibration], 2), _months(calibration)),
        (_series([one["slope"] for one in calibration], 2), _months(calibration)),
        (p_value(case["d_calibration"]["p"]), ""),
    ]


def _series(estimates: Sequence[Mapping[str, Any]], digits: int) -> str:
    return " · ".join(summary.number(one["value"], digits) for one in estimates)


def _months(rows: Sequence[Mapping[str, Any]]) -> str:
    return "at " + " · ".join(f"{one['months']:g}" for one in rows)


def _brackets(estimate: Mapping[str, Any]) -> str:
    found = interval(estimate)
    return "" if found == NONE else f"[{found}]"


def _panel(calibration: Mapping[str, Any]) -> figures.Panel:
    groups = [group for group in calibration["groups"] if group["observed"]["value"] is not None]
    return figures.Panel(
        title=f"{calibration['months']:g} months",
        predicted=[group["predicted"] for group in groups],
        observed=[group["observed"]["value"] for group in groups],
        low=[_or(group["observed"], "low") for group in groups],
        high=[_or(group["observed"], "high") for group in groups],
    )


def _or(observed: Mapping[str, Any], end: str) -> float:
    """An end of the interval; the value itself where there is none, as at survival 1."""
    return observed["value"] if observed.get(end) is None else observed[end]
