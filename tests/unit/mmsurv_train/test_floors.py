"""Penalised Cox regressions beside every run: which there are, on whom they are fitted, what is said of them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from mmsurv.errors import RunError, SplitError
from mmsurv_train import floor_summary
from mmsurv_train import run as runs
from mmsurv_train.evaluate import evaluate
from mmsurv_train.floors import RidgeScore, Stacked
from mmsurv_train.floors.beside import floors_of
from mmsurv_train.floors.ridge import inner_folds, ridge_path
from mmsurv_train.floors.stacked import fit_stack
from mmsurv_train.recipe import (
    BagSettings,
    ClinicalSettings,
    EvaluateSettings,
    FitSettings,
    ModelSettings,
    SplitSettings,
    TrainRecipe,
)
from mmsurv_train.train import train

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint", rna_widths=(4,)),
    bags=BagSettings(),
    fit=FitSettings(epochs=2, device="cpu"),
    evaluate=EvaluateSettings(n_bootstrap=20),
)


@pytest.fixture
def made_up():
    rng = np.random.default_rng(0)
    x_BC = rng.normal(size=(80, 3))
    time_B = rng.exponential(np.exp(-x_BC[:, 0]))
    return x_BC, time_B, rng.random(80) < 0.7, [f"case-{i}" for i in range(80)]


def test_out_of_fold_scores_are_made_without_the_patient(made_up):
    x_BC, time_B, event_B, ids = made_up
    score = RidgeScore.fit(x_BC, time_B, event_B, ids)
    fold_B = inner_folds(ids, event_B, 5)
    inside = fold_B != fold_B[0]
    scaled = (x_BC - x_BC.mean(0)) / x_BC.std(0)
    strongest = [penalty for penalty, _ in score.path if penalty >= score.model.penalty]
    beta_C = ridge_path(scaled[inside], time_B[inside], event_B[inside], strongest)[-1]
    expected = (scaled @ beta_C)[0] - (scaled[inside] @ beta_C).mean()
    assert score.out_of_fold[0] == pytest.approx(expected, abs=1e-9)


def test_the_penalty_is_the_best_of_the_path(made_up):
    score = RidgeScore.fit(*made_up)
    assert score.model.penalty == max(score.path, key=lambda step: step[1])[0]
    assert len(score.path) == 6


def test_noise_is_shrunk_and_signal_is_kept(made_up):
    weight = np.abs(RidgeScore.fit(*made_up).model.weight)
    assert weight[0] > 3 * weight[1:].max()


def test_a_column_that_does_not_vary_has_no_weight(made_up):
    x_BC, *rest = made_up
    x_BC[:, 2] = 7.0
    assert RidgeScore.fit(x_BC, *rest).model.weight[2] == 0


def test_two_deaths_at_least(made_up):
    x_BC, time_B, _, ids = made_up
    with pytest.raises(SplitError, match="A penalty cannot be chosen from 80 patients with 1 deaths"):
        RidgeScore.fit(x_BC, time_B, np.arange(80) == 3, ids)


def test_a_stack_weighs_what_holds_out_of_fold(made_up):
    x_BC, time_B, event_B, ids = made_up
    noise_BC = np.random.default_rng(1).normal(size=(80, 60))
    found = fit_stack({"rna": x_BC, "clinical": noise_BC}, time_B, event_B, ids).stack
    assert found.parts["rna"].weight > 0.3
    assert found.parts["clinical"].weight == 0  # out of fold, noise runs against the outcome


def test_who_lacks_a_modality_gets_its_mean(made_up):
    x_BC, time_B, event_B, ids = made_up
    has_B = np.arange(80) % 4 > 0
    stack = fit_stack({"rna": x_BC, "clinical": x_BC[:, 1:]}, time_B, event_B, ids, {"clinical": has_B}).stack
    values = {"rna": x_BC[:2], "clinical": x_BC[:2, 1:]}
    neither = {name: np.zeros(2, bool) for name in values}
    np.testing.assert_array_equal(stack.risk(values, neither), [0.0, 0.0])
    only = {"clinical": np.zeros(2, bool)}
    np.testing.assert_allclose(stack.risk(values, only), stack.parts["rna"].risk(values["rna"]))


def test_a_stack_is_the_same_after_json(made_up):
    x_BC, time_B, event_B, ids = made_up
    stack = fit_stack({"rna": x_BC, "clinical": x_BC[:, 1:]}, time_B, event_B, ids).stack
    table = json.loads(json.dumps(stack.to_table()))
    again = Stacked.from_table(table, columns={"rna": 3, "clinical": 2}, source="floors.json")
    values = {"rna": x_BC, "clinical": x_BC[:, 1:]}
    np.testing.assert_array_equal(stack.risk(values), again.risk(values))
    with pytest.raises(RunError, match="3 coefficients for 4 columns"):
        Stacked.from_table(table, columns={"rna": 4, "clinical": 2}, source="floors.json")
    with pytest.raises(RunError, match="expected scores of rna, found rna, clinical"):
        Stacked.from_table(table, columns={"rna": 3}, source="floors.json")


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (("rna",), ["rna"]),
        (("wsi", "rna"), ["wsi", "rna", "late"]),
        (("rna", "clinical"), ["rna", "clinical", "rna+clinical"]),
        (("wsi", "rna", "clinical"), ["wsi", "rna", "clinical", "rna+clinical", "late"]),
    ],
)
def test_floors_are_of_the_inputs(inputs, names):
    model = ModelSettings(name="late", inputs=inputs)
    columns = ("age",) if "clinical" in inputs else ()
    assert list(floors_of(TrainRecipe(model=model, clinical=ClinicalSettings(columns=columns)))) == names


def test_a_column_that_varies_by_rounding_only_has_no_weight(made_up):
    x_BC, *rest = made_up
    x_BC[:, 2] = 12.345678
    assert RidgeScore.fit(x_BC, *rest).model.weight[2] == 0


@pytest.mark.parametrize("folds", [0, 2])
def test_a_run_has_its_floors_beside_it_and_they_are_computed_again(sources, tmp_path, folds):
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=folds))
    run = train(recipe, sources, tmp_path / "run", command="test")
    part = "out-of-fold" if folds else "test"
    table = runs.read_csv(run.path / runs.FLOOR_PREDICTIONS)
    cases = run.predictions.part(part).cases
    assert table[table["part"] == part]["case_id"].tolist() == cases["case_id"].tolist()
    assert list(table.columns) == ["case_id", "part", "wsi", "rna", "late"]
    for floor in run.metrics["floors"].values():
        assert (floor["n"], floor["events"]) == (len(cases), int(cases["event"].sum()))
        assert ("fold_mean" in floor) == bool(folds)
    assert "floors, case level" in "\n".join(floor_summary.lines(run.metrics))
    assert evaluate(run.path).identical


def test_floors_know_nothing_of_the_test_part(sources, study, tmp_path):
    """Other outcomes of the test patients change none of their risks."""
    run = train(RECIPE, sources, tmp_path / "run", command="test")
    tested = set(run.predictions.part("test").cases["case_id"])
    clinical = pd.read_csv(study / "clinical.csv")
    clinical.loc[clinical["case_id"].isin(tested), "survival_months"] += 100.0
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    cohort = dataclasses.replace(sources.cohort, clinical=str(tmp_path / "clinical.csv"))
    other = train(RECIPE, dataclasses.replace(sources, cohort=cohort), tmp_path / "other", command="test")
    before, now = ((run_.path / runs.FLOOR_PREDICTIONS).read_bytes() for run_ in (run, other))
    assert before == now


def test_without_floors_where_the_recipe_says_so(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, evaluate=dataclasses.replace(RECIPE.evaluate, floors=False))
    run = train(recipe, sources, tmp_path / "run", command="test")
    assert not (run.path / runs.FLOORS).exists()
    assert (run.metrics["floors"], floor_summary.lines(run.metrics)) == ({}, [])
    assert evaluate(run.path).identical


@pytest.mark.parametrize(
    ("value", "said"), [(0.7, "is above its best floor, rna"), (0.5, "is not above its best floor")]
)
def test_the_verdict_says_whether_the_model_is_above_its_best_floor(value, said):
    floors = {
        "rna": {"inputs": ["rna"], "n": 40, "c_index": {"value": 0.6}},
        "wsi": {"inputs": ["wsi"], "n": 40, "c_index": {"value": 0.5}},
    }
    metrics = {"parts": {"test": {"case": {"n": 40, "c_index": {"value": value}}}}, "floors": floors}
    assert said in floor_summary.verdict(metrics)


def test_a_floor_of_fewer_patients_is_not_held_against_the_model():
    floors = {
        "rna": {"inputs": ["rna"], "n": 38, "c_index": {"value": 0.8}},
        "late": {"inputs": ["wsi", "rna"], "n": 40, "c_index": {"value": 0.6}},
    }
    metrics = {"parts": {"test": {"case": {"n": 40, "c_index": {"value": 0.7}}}}, "floors": floors}
    said = floor_summary.verdict(metrics)
    assert "is above its best floor, late (+0.100). Of fewer patients, so not held against it: rna." in said
    del floors["late"]
    assert floor_summary.verdict(metrics) == "Model against floors: –"


@pytest.mark.parametrize("folds", [0, 2])
def test_evaluate_detects_other_coefficients_of_a_floor_and_missing_files(sources, tmp_path, folds):
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=folds))
    run = train(recipe, sources, tmp_path / "run", command="test")
    fitted = (run.folds() or [run])[-1].path / runs.FLOORS
    table = runs.read_json(fitted)
    table["floors"]["rna"]["weight"][0] += 1e-12
    runs.write_json(fitted, table)
    (run.path / runs.FLOOR_PREDICTIONS).unlink()
    found = evaluate(run.path).differences
    assert f"{fitted}: differs from what is computed" in found
    assert f"{run.path / runs.FLOOR_PREDICTIONS}: missing; it is computed for this run" in found
