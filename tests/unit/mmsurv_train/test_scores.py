"""What metrics.json says: every part and level, references from the training part, reasons instead of NaN."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmsurv_train import run as runs
from mmsurv_train import scores
from mmsurv_train.recipe import EvaluateSettings

SETTINGS = EvaluateSettings(n_bootstrap=50)


def tables(n: int = 60, *, with_slides: bool = True) -> scores.Predictions:
    """n patients in three parts, one or two slides each, in an order that is not sorted."""
    rng = np.random.default_rng(0)
    case = np.array([f"c{i:02d}" for i in range(n)])
    time = np.round(rng.exponential(20, n) + 1, 2)
    outcomes = pd.DataFrame({"time": time, "event": rng.random(n) < 0.7}, index=case)
    parts = pd.Series(np.repeat(["train", "validation", "test"], [n // 2, n // 4, n - n // 2 - n // 4]), index=case)
    risk = pd.Series(rng.normal(0, 20, n) - time, index=case)
    owner = np.r_[case, case[::2]] if with_slides else case[:0]
    slides = pd.DataFrame({"slide_id": [f"s{i:03d}" for i in range(len(owner))], "case_id": owner})
    slides["risk"] = slides["case_id"].map(risk).astype(float) + rng.normal(0, 1, len(owner))
    cases = pd.DataFrame({"case_id": case, "risk": risk.to_numpy()})
    risks = SimpleNamespace(slides=slides.sample(frac=1, random_state=0), cases=cases.sample(frac=1, random_state=0))
    return scores.with_outcomes(risks, outcomes, parts)


def measure(predictions: scores.Predictions, settings: EvaluateSettings) -> dict[str, Any]:
    return scores.measure(predictions, settings, model="joint", network_seeds=(0,))


def test_predictions_are_sorted_and_carry_part_and_outcome() -> None:
    predictions = tables()
    assert predictions.slides["slide_id"].is_monotonic_increasing
    assert predictions.cases["case_id"].is_monotonic_increasing
    assert list(predictions.slides.columns) == ["slide_id", "case_id", "part", "risk", "time", "event"]
    assert predictions.cases["event"].dtype == bool
    one = predictions.slides.iloc[0]
    case = predictions.cases.set_index("case_id").loc[one["case_id"]]
    assert (one["part"], one["time"], one["event"]) == (case["part"], case["time"], case["event"])


def test_every_part_has_both_levels_with_intervals() -> None:
    measured = measure(tables(), SETTINGS)
    for part in scores.PARTS:
        for level in scores.LEVELS:
            found = measured["parts"][part][level]
            assert found["c_index"]["low"] <= found["c_index"]["value"] <= found["c_index"]["high"]
            assert found["c_index_ipcw"]["low"] <= found["c_index_ipcw"]["high"]
    test = measured["parts"]["test"]
    assert (test["wsi"]["n"], test["wsi"]["n_cases"], test["case"]["n"]) == (22, 15, 15)
    groups = test["case"]["risk_groups"]
    assert groups["n_high"] + groups["n_low"] == 15


def test_cut_and_tau_come_from_the_training_part() -> None:
    predictions = tables()
    before = measure(predictions, SETTINGS)
    test = predictions.cases["part"] == "test"
    predictions.cases.loc[test, ["risk", "time"]] += 500
    after = measure(predictions, SETTINGS)
    assert after["risk_cut"] == before["risk_cut"]
    assert after["method"]["tau_months"] == before["method"]["tau_months"]
    assert after["parts"]["test"]["case"]["risk_groups"]["n_low"] == 0


def test_tau_can_be_given_in_months() -> None:
    measured = measure(tables(), EvaluateSettings(n_bootstrap=0, tau_months=12.0))
    assert measured["method"]["tau_months"] == 12.0


def test_a_model_without_slides_has_no_wsi_level_and_says_so() -> None:
    wsi = measure(tables(with_slides=False), SETTINGS)["parts"]["test"]["wsi"]
    assert wsi["n"] == 0
    assert wsi["c_index"]["value"] is None
    assert "0 samples" in wsi["c_index"]["reason"]


def test_no_resamples_means_no_interval() -> None:
    found = measure(tables(), EvaluateSettings(n_bootstrap=0))["parts"]["test"]["case"]
    assert found["c_index"]["value"] is not None
    assert found["c_index"]["low"] is None


@pytest.mark.parametrize("level", scores.LEVELS)
def test_a_part_without_events_has_reasons_and_its_json_has_no_nan(level) -> None:
    predictions = tables()
    for table in (predictions.slides, predictions.cases):
        table.loc[table["part"] == "test", "event"] = False
    measured = measure(predictions, SETTINGS)
    found = json.loads(runs.json_text(measured))["parts"]["test"][level]
    assert found["events"] == 0
    assert "no events" in found["c_index"]["reason"]
    assert "no events" in found["c_index_ipcw"]["reason"]


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    widths = []
    for confidence in (0.5, 0.99):
        settings = EvaluateSettings(n_bootstrap=200, confidence=confidence)
        found = measure(tables(), settings)["parts"]["test"]["case"]["c_index"]
        widths.append(found["high"] - found["low"])
    assert widths[0] < widths[1]


def test_the_networks_of_an_ensemble_keep_their_columns_and_are_measured_on_the_test_part() -> None:
    predictions = tables()
    risks = SimpleNamespace(
        slides=predictions.slides[["slide_id", "case_id", "risk"]].assign(risk_0=1.0, risk_1=2.0),
        cases=predictions.cases[["case_id", "risk"]].assign(risk_0=1.0, risk_1=lambda rows: -rows["risk"]),
    )
    outcomes = predictions.cases.set_index("case_id")
    found = scores.with_outcomes(risks, outcomes[["time", "event"]], outcomes["part"])
    assert list(found.cases.columns) == ["case_id", "part", "risk", "time", "event", "risk_0", "risk_1"]
    assert list(found.slides.columns) == ["slide_id", *found.cases.columns]
    measured = scores.measure(found, SETTINGS, model="joint", network_seeds=(3, 4))
    constant, reversed_ = measured["seeds"]["case"]["values"]
    whole = measured["parts"]["test"]["case"]["c_index"]["value"]
    assert constant == 0.5
    assert reversed_ == pytest.approx(1 - whole)
