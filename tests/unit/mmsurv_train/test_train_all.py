"""Configurations share a pass where they need the same data; what is there is kept, what fails is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmsurv_train import run as runs
from mmsurv_train import writing
from mmsurv_train.recipe import (
    ClinicalSettings,
    EvaluateSettings,
    FitSettings,
    ModelSettings,
    RnaSettings,
    SplitSettings,
    TrainRecipe,
)
from mmsurv_train.train import Configuration, train, train_all

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=3, device="cpu", n_seeds=2),
    split=SplitSettings(n_folds=3),
    evaluate=EvaluateSettings(n_bootstrap=20),
)


def with_fit(**changes) -> TrainRecipe:
    return dataclasses.replace(RECIPE, fit=dataclasses.replace(RECIPE.fit, **changes))


def configurations(**recipes: TrainRecipe) -> list[Configuration]:
    return [Configuration(name=name, recipe=recipe) for name, recipe in recipes.items()]


def test_configurations_that_need_the_same_data_share_a_pass(sources, passes, tmp_path) -> None:
    wsi = dataclasses.replace(RECIPE, model=ModelSettings(name="wsi-mean"))
    chosen = configurations(slow=RECIPE, fast=with_fit(learning_rate=1e-2), wsi=wsi)
    places = {one.name: tmp_path / one.name for one in chosen}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="mmsurv sweep")
    assert [len(jobs) for jobs in passes] == [6, 3]
    assert list(found) == ["slow", "fast", "wsi"]
    assert [run.metrics["model"] for run in found.values()] == ["joint", "joint", "wsi-mean"]
    alone = train(RECIPE, sources, tmp_path / "alone", command="")
    np.testing.assert_allclose(alone.predictions.cases["risk"], found["slow"].predictions.cases["risk"], atol=1e-3)
    assert not (tmp_path / "unfinished").exists()


def test_models_that_meet_the_same_patients_share_a_pass(sources, passes, tmp_path) -> None:
    wsi = dataclasses.replace(RECIPE, model=ModelSettings(name="wsi-mean"))
    chosen = configurations(joint=RECIPE, wsi=wsi)
    complete = dataclasses.replace(sources, complete_cases=True)
    places = {one.name: tmp_path / one.name for one in chosen}
    found = train_all(chosen, complete, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert [len(jobs) for jobs in passes] == [6]
    assert found["joint"].provenance["cases"] == found["wsi"].provenance["cases"]


def test_a_configuration_that_fails_is_named_and_stops_no_other(sources, tmp_path) -> None:
    missing = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3, fold=7))
    constant = dataclasses.replace(RECIPE, rna=RnaSettings(min_variance=1e9))
    no_sets = dataclasses.replace(RECIPE, model=ModelSettings(name="co-attention", gene_sets="/nowhere.gmt"))
    unnamed = dataclasses.replace(RECIPE, model=ModelSettings(name="co-attention"))
    chosen = configurations(
        good=RECIPE, diverges=with_fit(learning_rate=1e30), missing=missing, constant=constant, no_sets=no_sets,
        unnamed=unnamed,
    )  # fmt: skip
    places = {one.name: tmp_path / "runs" / one.name for one in chosen}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert found["good"].kind == runs.CROSS_VALIDATION
    assert "Lower fit.learning_rate" in str(found["diverges"])
    assert "fold 7 does not exist" in str(found["missing"])
    assert "constant, fold 0: None of the 6 genes varies" in str(found["constant"])
    assert "/nowhere.gmt: cannot be read" in str(found["no_sets"])
    assert "needs gene sets: name a GMT file" in str(found["unnamed"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["good"]
    assert not (tmp_path / "unfinished").exists()


def test_a_run_that_is_there_is_not_trained_again(sources, passes, tmp_path) -> None:
    first, both = configurations(a=RECIPE), configurations(a=RECIPE, b=with_fit(seed=9))
    places = {one.name: tmp_path / one.name for one in both}
    train_all(first, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    before = (tmp_path / "a" / runs.PROVENANCE).read_bytes()
    found = train_all(both, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert passes == [[0, 0, 0], [9, 9, 9]]
    assert (tmp_path / "a" / runs.PROVENANCE).read_bytes() == before
    assert list(found) == ["a", "b"]


def test_a_run_that_lost_a_fold_is_not_taken_for_a_complete_one(sources, passes, tmp_path) -> None:
    train(RECIPE, sources, tmp_path / "a", command="")
    (tmp_path / "a" / "fold-1").rename(tmp_path / "elsewhere")
    chosen, places = configurations(a=RECIPE), {"a": tmp_path / "a"}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert "is not a complete run: fold-1 missing. Delete that run and train it again" in str(found["a"])
    assert len(passes) == 1


def test_a_place_that_holds_something_else_is_a_failure_of_that_configuration(sources, tmp_path) -> None:
    train(RECIPE, sources, tmp_path / "a", command="")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("draft")
    chosen = configurations(a=with_fit(seed=9), b=RECIPE)
    places = {one.name: tmp_path / one.name for one in chosen}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert "holds a run of another recipe than the one asked for:\n  fit.seed  0 → 9" in str(found["a"])
    assert "is not empty" in str(found["b"])


@pytest.mark.usefixtures("state_at_once")
def test_a_pass_stopped_while_it_wrote_keeps_what_it_wrote_and_trains_nothing_again(
    sources, steps, tmp_path, monkeypatch
) -> None:
    chosen = configurations(a=RECIPE, b=with_fit(seed=9))
    places = {one.name: tmp_path / one.name for one in chosen}
    write = writing.write_run

    def stop(out: Path, *arguments) -> None:
        if out.name == "b":
            raise KeyboardInterrupt("by the user")
        write(out, *arguments)

    monkeypatch.setattr(writing, "write_run", stop)
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="first")
    monkeypatch.setattr(writing, "write_run", write)
    steps.clear()
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="second")
    assert steps == []
    assert [run.provenance["command"] for run in found.values()] == ["first", "second"]
    assert not (tmp_path / "unfinished").exists()


def test_configurations_of_other_clinical_variables_are_read_apart(sources, study, tmp_path):
    rows = pd.read_csv(study / "clinical.csv")
    rows["age"], rows["size"] = rows["case_id"].str[-2:].astype(float), rows["case_id"].str[-1:].astype(float)
    rows.to_csv(tmp_path / "clinical.csv", index=False)
    cohort = dataclasses.replace(sources.cohort, clinical=str(tmp_path / "clinical.csv"))
    sources = dataclasses.replace(sources, cohort=cohort)
    model = ModelSettings(name="clinical")
    wanted = {
        name: dataclasses.replace(RECIPE, model=model, clinical=ClinicalSettings(columns=(name,)))
        for name in ("age", "size")
    }
    found = train_all(
        [Configuration(name=name, recipe=recipe) for name, recipe in wanted.items()],
        sources,
        {name: tmp_path / name for name in wanted},
        checkpoint_folder=tmp_path / "checkpoint",
        command="test",
    )
    for name, run in found.items():
        assert run.config["recipe"]["clinical"]["columns"] == [name]
        assert list(run.metrics["floors"]) == ["clinical"]
