"""The table of the command line: the ensemble in its rows, its networks below."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmsurv_train import level, summary
from mmsurv_train.recipe import EvaluateSettings

CASES = pd.DataFrame({"case_id": list("abcdefghij"), "event": [True, False] * 5})


def measured(reason: str | None = None, **found: Any) -> dict[str, Any]:
    """A level with C-indices of 0.75, and of predicted survival only why there is none."""
    estimate = {"value": 0.75, "low": None, "high": None}
    empty = level.without(reason or "too few", CASES, EvaluateSettings())
    return {**empty, **({} if reason else {"c_index": estimate, "c_index_ipcw": estimate}), **found}


def metrics(values: list[float | None], *, sd: float | None, low: float | None = None) -> dict[str, Any]:
    high = None if low is None else low + 0.1
    alone = {"values": values, "mean": 0.7, "sd": sd, "low": low, "high": high}
    return {
        "parts": {"test": {"wsi": measured(), "case": measured()}},
        "strata": [],
        "seeds": {"seeds": list(range(3, 3 + len(values))), "wsi": alone, "case": alone},
        "method": {"n_bootstrap": 0},
    }


def test_seeds_are_listed_with_their_spread_and_the_interval_of_their_mean() -> None:
    lines = summary.text(metrics([0.69, 0.71], sd=0.0141, low=0.65)).splitlines()
    assert lines[3:6] == [
        "mean ± sd of the 2 seeds alone, WSI: 0.700 ± 0.014, interval of the mean 0.650 to 0.750",
        "mean ± sd of the 2 seeds alone, case: 0.700 ± 0.014, interval of the mean 0.650 to 0.750",
        "The table is of their ensemble: the mean risk of seeds 3 to 4.",
    ]


def test_without_resamples_there_is_no_interval_of_the_mean() -> None:
    lines = summary.text(metrics([0.69, 0.71], sd=0.0141)).splitlines()
    assert lines[4] == "mean ± sd of the 2 seeds alone, case: 0.700 ± 0.014"


def test_one_seed_needs_no_line() -> None:
    lines = summary.text(metrics([0.7], sd=None, low=0.6)).splitlines()
    assert lines[3] == "test, case, predicted survival:"


def test_seeds_that_cannot_be_measured_are_a_dash() -> None:
    lines = summary.text(metrics([None, None], sd=None)).splitlines()
    assert lines[4] == "mean ± sd of the 2 seeds alone, case: –"


def test_predicted_survival_stands_below_the_c_indices_and_strata_below_that() -> None:
    found = metrics([0.7], sd=None)
    found["parts"]["test"]["case"] |= {
        "auc": {
            "at": [{"months": 12.0, "value": 0.8}, {"months": 60.0, "value": None, "reason": "nobody lives longer"}],
            "mean": {"value": 0.8, "low": 0.7, "high": 0.9, "months": [12.0]},
        },
        "integrated_brier": {"value": 0.123, "low": None, "high": None, "kaplan_meier": 0.186, "to_months": 60.09},
        "calibration": [{"months": 12.0, "observed_expected": {"value": 1.105}, "slope": {"value": None}}],
        "d_calibration": {"p": 0.9171},
    }
    group = measured(name="LGG", n=479, events=112, auc=found["parts"]["test"]["case"]["auc"])
    few = measured("4 events, fewer than 10", name="GBM")
    found["strata"] = [{"column": "oncotree_code", "by": "GBM and LGG", "n_without": 0, "groups": [few, group]}]
    assert summary.text(found).splitlines()[3:12] == [
        "test, case, predicted survival:",
        "  AUC                   0.800 at 12 (0.700 to 0.900) in the mean; 0.800 at 12, – at 60 months",
        "  integrated Brier      0.123 to 60.1 months; no model (Kaplan–Meier) 0.186",
        "  deaths seen/expected  1.10 at 12 months; slope – at 12 months",
        "  D-calibration         p 0.917 (small: not calibrated)",
        "stratum            n    events  C-index  interval  mean AUC     interval        Brier  Kaplan–Meier  D-cal. p",
        "oncotree_code GBM  10   5       –        –         –            –               –      –             –",
        "oncotree_code LGG  479  112     0.750    –         0.800 at 12  0.700 to 0.900  –      –             –",
        "test, case, AUC at 60 months: nobody lives longer",
    ]
    assert "oncotree_code GBM: 4 events, fewer than 10" in summary.text(found).splitlines()


def test_without_predicted_survival_there_are_c_indices_alone() -> None:
    found = metrics([0.7], sd=None)
    case = {name: measured()[name] for name in ("n", "events", "c_index", "c_index_ipcw", "auc")}
    del found["strata"]
    found["parts"] = {"test": {"wsi": case, "case": case}}
    lines = summary.text(found).splitlines()
    assert len(lines) == 3 + 1  # two levels below the headings, and why there is no AUC at any time
    assert lines[3] == "; ".join(f"test, case, AUC at {months} months" for months in (12, 36, 60)) + ": too few"
