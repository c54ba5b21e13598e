"""Predicted survival and strata as text, below the table of C-indices.

Owns the words; of the part that is reported (test or out-of-fold), at case level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsurv_train.digits import NONE, aligned, interval, number, p_value

STRATUM_HEADINGS = (
    "stratum", "n", "events", "C-index", "interval", "mean AUC", "interval", "Brier", "Kaplan–Meier", "D-cal. p",
)  # fmt: skip


EXTERNAL = "Kaplan–Meier, also of strata: of the run's training part (of folds, of all its patients)."


def reported(metrics: Mapping[str, Any]) -> str:
    """The part whose numbers count: the one that is neither trained nor chosen on."""
    (part,) = set(metrics["parts"]) - {"train", "validation"}
    return part


def lines(metrics: Mapping[str, Any]) -> list[str]:
    """A block on predicted survival where it was measured, then a table of strata where there are any."""
    part = reported(metrics)
    case = metrics["parts"][part]["case"]
    return [*(_block(part, case) if "integrated_brier" in case else []), *_strata(metrics)]


def reasons(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of these two is missing, and why; C-indices give theirs with the table."""
    part = reported(metrics)
    whole = survival_reasons(metrics["parts"][part]["case"])
    found = [(f"{part}, case, {name}", reason) for name, reason in whole.items()]
    for stratification, group in strata(metrics):
        name, all_of_it = f"{stratification['column']} {group['name']}", group["c_index"].get("reason")
        if all_of_it:
            found.append((name, all_of_it))
        else:
            # What all lack for one reason, its strata lack too: that need not be said of each.
            own = {what: why for what, why in survival_reasons(group).items() if whole.get(what) != why}
            found += [(f"{name}, {what}", reason) for what, reason in own.items()]
    return found


def survival_reasons(measured: Mapping[str, Any]) -> dict[str, str]:
    """Why an AUC, a Brier score or a test of calibration is missing, by its name in words."""
    found = {f"AUC at {one['months']:g} months": one for one in measured["auc"]["at"]}
    if "integrated_brier" in measured:
        found["integrated Brier score"] = measured["integrated_brier"]
        ratios = {
            f"calibration at {one['months']:g} months": one["observed_expected"] for one in measured["calibration"]
        }
        found |= {**ratios, "D-calibration": measured["d_calibration"]}
    return {name: one["reason"] for name, one in found.items() if one.get("reason")}


def strata(metrics: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each stratum with the stratification it is of, in the order of the file."""
    return [(one, group) for one in metrics.get("strata", []) for group in one["groups"]]


def brier_span(brier: Mapping[str, Any]) -> str:
    """Such as "to 60.1 months"; empty where there is no score."""
    return f"to {brier['to_months']:.1f} months" if "to_months" in brier else ""


def mean_auc(auc: Mapping[str, Any]) -> str:
    """The mean AUC; with the months it is over where these are not all that were asked for."""
    months = auc["mean"]["months"]
    some = 0 < len(months) < len(auc["at"])
    return number(auc["mean"]["value"]) + (f" at {', '.join(f'{one:g}' for one in months)}" if some else "")


def _brackets(estimate: Mapping[str, Any]) -> str:
    found = interval(estimate)
    return "" if found == NONE else f" ({found})"


def _block(part: str, case: Mapping[str, Any]) -> list[str]:
    auc, brier, calibration = case["auc"], case["integrated_brier"], case["calibration"]
    at = ", ".join(f"{number(one['value'])} at {one['months']:g}" for one in auc["at"])
    ratios = ", ".join(f"{number(one['observed_expected']['value'], 2)} at {one['months']:g}" for one in calibration)
    slopes = ", ".join(f"{number(one['slope']['value'], 2)} at {one['months']:g}" for one in calibration)
    return [
        f"{part}, case, predicted survival:",
        f"  AUC                   {mean_auc(auc)}{_brackets(auc['mean'])} in the mean; {at} months",
        f"  integrated Brier      {number(brier['value'])}{_brackets(brier)} {brier_span(brier)}; "
        f"no model (Kaplan–Meier) {number(brier['kaplan_meier'])}",
        f"  deaths seen/expected  {ratios} months; slope {slopes} months",
        f"  D-calibration         {_d_calibration(case['d_calibration']['p'])}",
    ]


def _d_calibration(p: float | None) -> str:
    return NONE if p is None else f"p {p_value(p)} (small: not calibrated)"


def _strata(metrics: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            f"{one['column']} {group['name']}",
            str(group["n"]),
            str(group["events"]),
            number(group["c_index"]["value"]),
            interval(group["c_index"]),
            mean_auc(group["auc"]),
            interval(group["auc"]["mean"]),
            number(group["integrated_brier"]["value"]),
            number(group["integrated_brier"]["kaplan_meier"]),
            p_value(group["d_calibration"]["p"]),
        )
        for one, group in strata(metrics)
    ]
    if not rows:
        return []
    table = aligned([STRATUM_HEADINGS, *rows])
    return [*table, EXTERNAL] if reported(metrics) == "external" else table
