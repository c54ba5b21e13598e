"""Groups of patients apart: who is in which, and that their numbers are their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mmsurv.cohort import Cohort, CohortOptions
from mmsurv.cohort.report import JoinReport
from mmsurv.errors import CohortError
from mmsurv_train import level, scores, strata
from mmsurv_train.recipe import EvaluateSettings
from mmsurv_train.scores import Predictions

SETTINGS = EvaluateSettings(n_bootstrap=20, times_months=(12.0, 24.0))


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    """160 cases, of whom every second is of a group that dies fast; risks know the group and little else."""
    rng = np.random.default_rng(1)
    fast = np.arange(160) % 2 == 0
    risk = 2.0 * fast + 0.3 * rng.normal(size=160)
    time = np.round(rng.exponential(40 * np.exp(-risk)) + 0.1, 2)
    event = rng.random(160) < 0.8
    names = [f"{'g' if one else 'l'}{i:03d}" for i, one in enumerate(fast)]
    part = np.where(np.arange(160) < 80, "train", np.where(np.arange(160) < 90, "validation", "test"))
    cases = pd.DataFrame({"case_id": names, "part": part, "risk": risk, "time": time, "event": event})
    slides = cases.assign(slide_id=[f"s-{name}" for name in names])
    return Predictions(slides=slides, cases=cases.sort_values("case_id", ignore_index=True))


def cohort(predictions: Predictions, **columns) -> Cohort:
    cases = predictions.cases.set_index("case_id")[["time", "event"]].assign(**columns)
    none = pd.DataFrame({"slide_id": [], "case_id": []})
    return Cohort(cases, none, None, JoinReport.__new__(JoinReport))


def of_case(predictions: Predictions) -> dict[str, str]:
    return {name: "GBM" if name[0] == "g" else "LGG" for name in predictions.cases["case_id"]}


def test_each_group_is_measured_by_itself_and_against_its_own_kaplan_meier(predictions: Predictions) -> None:
    chosen = [strata.Stratification(column="code", by=strata.BY_HISTOLOGY, of_case=of_case(predictions))]
    found = scores.measure(predictions, SETTINGS, model="rna", network_seeds=[0], chosen=chosen)
    (one,) = found["strata"]
    assert (one["column"], one["by"], one["n_without"]) == ("code", "GBM and LGG", 0)
    gbm, lgg = one["groups"]
    assert (gbm["name"], lgg["name"]) == ("GBM", "LGG")
    whole = found["parts"]["test"]["case"]
    assert gbm["n"] + lgg["n"] == whole["n"]
    assert gbm["c_index"]["value"] < whole["c_index"]["value"]
    test = predictions.cases[predictions.cases["part"] == "test"]
    compared = scores.reference(predictions.part("train").cases, SETTINGS)
    alone = level.measure_level(test[test["case_id"].str.startswith("g")], compared, SETTINGS)
    assert {name: gbm[name] for name in alone} == alone
    # Knowing the group is most of what the model knows: in it, little is left over its Kaplan–Meier curve.
    assert whole["integrated_brier"]["skill"]["value"] > 0.2
    assert abs(gbm["integrated_brier"]["skill"]["value"]) < 0.15


def test_a_group_with_few_events_has_counts_and_a_reason_and_the_same_keys(predictions: Predictions) -> None:
    few = {name: "few" if name in ("g100", "g102", "l101") else "rest" for name in predictions.cases["case_id"]}
    chosen = [strata.Stratification(column="code", by=strata.BY_VALUE, of_case=few)]
    found = scores.measure(predictions, SETTINGS, model="rna", network_seeds=[0], chosen=chosen)["strata"][0]["groups"]
    assert found[0]["n"] == 3
    assert "events, fewer than 10" in found[0]["c_index"]["reason"]
    assert found[0]["c_index"]["value"] is None
    assert found[0].keys() == found[1].keys()


def test_cases_of_no_group_are_counted(predictions: Predictions) -> None:
    half = {name: group for name, group in of_case(predictions).items() if group == "GBM"}
    chosen = [strata.Stratification(column="code", by=strata.BY_HISTOLOGY, of_case=half)]
    found = scores.measure(predictions, SETTINGS, model="rna", network_seeds=[0], chosen=chosen)["strata"]
    assert found[0]["n_without"] == 35
    assert [group["name"] for group in found[0]["groups"]] == ["GBM"]


def test_gbm_and_lgg_are_apart_unasked_where_the_cohort_has_both(predictions: Predictions) -> None:
    plain = cohort(predictions)
    assert strata.stratifications(plain, SETTINGS) == ()
    groups = pd.Series(of_case(predictions), name="oncotree_code", dtype=object)
    (found,) = strata.stratifications(replace(plain, histology=groups), SETTINGS)
    assert (found.column, found.by) == ("oncotree_code", strata.BY_HISTOLOGY)
    assert found.of_case["g000"] == "GBM"
    assert strata.stratifications(replace(plain, histology=groups[groups == "GBM"]), SETTINGS) == ()


def test_a_column_that_is_asked_for_parts_cases_by_its_values(predictions: Predictions) -> None:
    grade = [2.0, 3.0] * 79 + [np.nan, 4.0]
    (found,) = strata.stratifications(cohort(predictions, grade=grade), replace(SETTINGS, stratum="grade"))
    assert set(found.of_case.values()) == {"2", "3", "4"}
    assert len(found.of_case) == 159


def test_a_column_of_many_values_is_no_grouping(predictions: Predictions) -> None:
    asked = replace(SETTINGS, stratum="age")
    with pytest.raises(CohortError, match="'age' has 160 values, and strata are at most 12"):
        strata.stratifications(cohort(predictions, age=np.arange(160.0)), asked)
    with pytest.raises(CohortError, match="'age', which was not read"):
        strata.stratifications(cohort(predictions), asked)


def test_the_column_is_read_with_the_clinical_table() -> None:
    options = CohortOptions(clinical="c.csv", clinical_columns=("age",))
    asked = [replace(SETTINGS, stratum=name) for name in ("sex", "age", "sex")]
    assert strata.reading(options, [*asked, SETTINGS]).clinical_columns == ("age", "sex")
