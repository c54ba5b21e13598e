"""One model that predicts from slides, from RNA, or from both, also of patients who lack one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from mmsurv_train import floor_summary
from mmsurv_train import run as runs
from mmsurv_train.evaluate import evaluate
from mmsurv_train.patterns import patterns_of
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.train import train

RECIPE = TrainRecipe(
    model=ModelSettings(name="cross-attention", dim=4, query_hidden=3, rna_widths=(2,), modality_dropout=0.3),
    fit=FitSettings(epochs=3, n_seeds=2, device="cpu", learning_rate=0.05),
    evaluate=EvaluateSettings(n_bootstrap=20),
)


def with_model(**settings):
    return dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, **settings))


def test_every_combination_of_inputs_is_a_pattern_where_patients_may_lack_some():
    assert list(patterns_of(RECIPE)) == ["wsi", "rna", "wsi+rna"]
    assert patterns_of(with_model(modality_dropout=0.0)) == {}


@pytest.mark.parametrize("name", ["cross-attention", "joint", "abmil"])
@pytest.mark.parametrize("base", ["none", "ridge"])
def test_patients_without_slides_or_without_rna_are_trained_on_and_predicted(sources, tmp_path, name, base):
    """Two of the 40 cases have no RNA, one has no slide."""
    run = train(with_model(name=name, inputs=("wsi", "rna"), base=base), sources, tmp_path / "run", command="test")
    assert len(run.predictions.cases) == 40
    assert np.isfinite(run.predictions.cases["risk"]).all()
    table = runs.read_csv(run.path / runs.PATTERN_PREDICTIONS)
    assert table[["wsi", "rna", "wsi+rna"]].notna().sum().tolist() == [39, 38, 37]
    assert evaluate(run.path).identical


def test_nobody_is_said_to_be_left_out_who_is_not(sources, tmp_path, caplog):
    recipe = dataclasses.replace(RECIPE, evaluate=EvaluateSettings(n_bootstrap=0, floors=False))
    train(recipe, sources, tmp_path / "run", command="test")
    assert "left out of model" not in caplog.text


def test_of_folds_they_are_pooled_and_printed(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=2))
    run = train(recipe, sources, tmp_path / "run", command="test")
    assert {name: one["n"] for name, one in run.metrics["patterns"].items()} == {"wsi": 39, "rna": 38, "wsi+rna": 37}
    said = floor_summary.lines(run.metrics)
    assert said[0] == "as if patients had nothing else, case level:"
    assert [line.split()[0] for line in said[1:4]] == ["rna", "wsi", "wsi+rna"]
    assert evaluate(run.path).identical


def test_who_has_all_is_predicted_as_with_nothing_hidden(sources, tmp_path):
    run = train(RECIPE, sources, tmp_path / "run", command="test")
    table = runs.read_csv(run.path / runs.PATTERN_PREDICTIONS).set_index("case_id")
    risk = run.predictions.cases.set_index("case_id")["risk"]
    whole = table["wsi+rna"].dropna()
    np.testing.assert_allclose(whole, risk[whole.index], atol=1e-6)
    lacking = table.index[table["rna"].isna()]
    np.testing.assert_allclose(table["wsi"][lacking], risk[lacking], atol=1e-6)
    assert not np.allclose(table["wsi"].dropna(), risk[table["wsi"].dropna().index])


def test_a_combination_that_nobody_has_is_blank(sources, study, tmp_path):
    """Half of the cases have slides only, half RNA only."""
    rna = pd.read_csv(study / "rna.csv")
    rna[rna["case_id"].str[-2:].astype(int) >= 20].to_csv(tmp_path / "rna.csv", index=False)
    clinical = pd.read_csv(study / "clinical.csv")
    later = clinical["case_id"].str[-2:].astype(int) >= 20
    clinical.loc[later, "slide_id"] = np.nan
    clinical.drop_duplicates(["case_id", "slide_id"]).to_csv(tmp_path / "clinical.csv", index=False)
    cohort = dataclasses.replace(sources.cohort, clinical=str(tmp_path / "clinical.csv"), rna=str(tmp_path / "rna.csv"))
    run = train(RECIPE, dataclasses.replace(sources, cohort=cohort), tmp_path / "run", command="test")
    table = runs.read_csv(run.path / runs.PATTERN_PREDICTIONS)
    assert table[["wsi", "rna", "wsi+rna"]].notna().sum().tolist() == [20, 20, 0]
    assert run.metrics["patterns"]["wsi+rna"]["n"] == 0
    assert evaluate(run.path).identical
