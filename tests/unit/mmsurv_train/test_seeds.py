"""The networks of an ensemble one by one: each measured alone, their mean with an interval over common patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmsurv_train import metrics
from mmsurv_train.recipe import EvaluateSettings
from mmsurv_train.scores import Predictions
from mmsurv_train.seeds import measure_seeds, network_columns

SETTINGS = EvaluateSettings(n_bootstrap=200)


def predictions(n_networks: int, *, n: int = 40, events: bool = True) -> Predictions:
    """Patients with two slides each, and networks that know their times more or less well."""
    rng = np.random.default_rng(0)
    time = np.round(rng.exponential(20, n) + 1, 2)
    cases = pd.DataFrame({"case_id": [f"c{i:02d}" for i in range(n)], "time": time, "event": rng.random(n) < 0.7})
    cases["event"] &= events
    slides = cases.loc[np.repeat(np.arange(n), 2)].reset_index(drop=True)
    for table in (cases, slides):
        risks = {f"risk_{i}": rng.normal(0, 10 * (i + 1), len(table)) - table["time"] for i in range(n_networks)}
        table["risk"] = np.mean(list(risks.values()), axis=0)
        for name, risk in risks.items() if n_networks > 1 else ():
            table[name] = risk
    return Predictions(slides=slides, cases=cases)


def test_columns_are_in_the_order_of_the_networks() -> None:
    names = ["risk", "raw_risk", "risk_cut", *(f"risk_{i}" for i in (10, 2, 0, 1))]
    assert network_columns(pd.DataFrame(columns=names)) == ["risk_0", "risk_1", "risk_2", "risk_10"]


def test_every_network_is_measured_alone_at_both_levels() -> None:
    found, measured = predictions(3), measure_seeds(predictions(3), (7, 8, 9), SETTINGS)
    assert measured["seeds"] == [7, 8, 9]
    for level, rows in (("wsi", found.slides), ("case", found.cases)):
        alone = [metrics.c_index(rows[f"risk_{i}"], rows["time"], rows["event"]).value for i in range(3)]
        assert measured[level]["values"] == alone
        assert len(set(alone)) == 3
        assert measured[level]["mean"] == pytest.approx(np.mean(alone))
        assert measured[level]["sd"] == pytest.approx(np.std(alone, ddof=1))
        assert measured[level]["low"] < measured[level]["mean"] < measured[level]["high"]


def test_the_interval_is_of_the_mean_over_networks_that_meet_the_same_patients() -> None:
    slides = predictions(3).slides
    _, patient = np.unique(slides["case_id"], return_inverse=True)
    times_drawn = metrics.resample_patients(40, n_resamples=200, seed=SETTINGS.seed)
    means = []
    for drawn in times_drawn:
        rows = slides.loc[np.repeat(np.arange(len(slides)), drawn[patient].astype(int))]
        values = [metrics.c_index(rows[f"risk_{i}"], rows["time"], rows["event"]).value for i in range(3)]
        means.append(np.mean(values))
    found = measure_seeds(predictions(3), (0, 1, 2), SETTINGS)["wsi"]
    np.testing.assert_allclose([found["low"], found["high"]], np.quantile(means, [0.025, 0.975]), rtol=1e-9)


def test_one_network_has_a_value_and_an_interval_and_no_spread() -> None:
    cases = predictions(1).cases
    found = measure_seeds(predictions(1), (5,), SETTINGS)["case"]
    alone = metrics.c_index(cases["risk"], cases["time"], cases["event"]).value
    assert (found["values"], found["mean"], found["sd"]) == ([alone], alone, None)
    assert found["low"] < alone < found["high"]


def test_no_resamples_means_no_interval() -> None:
    found = measure_seeds(predictions(2), (0, 1), EvaluateSettings(n_bootstrap=0))["case"]
    assert found["sd"] > 0
    assert (found["low"], found["high"]) == (None, None)


def test_where_no_pair_is_comparable_there_is_a_reason_and_no_number() -> None:
    found = measure_seeds(predictions(2, events=False), (0, 1), SETTINGS)["wsi"]
    assert found["values"] == [None, None]
    assert (found["mean"], found["sd"], found["low"], found["high"]) == (None, None, None, None)
    assert "no events" in found["reason"]


def test_risks_of_other_networks_than_the_seeds_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 seeds, and risks of 2 networks: risk_0, risk_1"):
        measure_seeds(predictions(2), (0, 1, 2), SETTINGS)
