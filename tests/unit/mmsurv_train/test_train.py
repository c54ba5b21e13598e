"""Folds and seeds of a run, and configurations, in one pass; what is stopped goes on, what fails is named."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mmsurv.cohort import CohortOptions
from mmsurv.config import to_table
from mmsurv.errors import ConfigError, RunError, SplitError
from mmsurv_train import fit, inputs, stack, unfinished, writing
from mmsurv_train import run as runs
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, RnaSettings, SplitSettings, TrainRecipe
from mmsurv_train.train import Configuration, train, train_all

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=3, device="cpu", n_seeds=2),
    split=SplitSettings(n_folds=3),
    evaluate=EvaluateSettings(n_bootstrap=20),
)
SAME = (runs.PREDICTIONS, runs.CASE_PREDICTIONS, runs.METRICS)
OF_A_FOLD = (*SAME, runs.MODEL, runs.PREPROCESS, runs.SPLIT, runs.HISTORY, runs.BASELINE)


@pytest.fixture
def sources(study: Path) -> Sources:
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    return Sources(cohort=cohort, store=str(study / "store"))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The first seed of every job that is fitted together."""
    seen: list[list[int]] = []
    together = fit.fit_many

    def watched(jobs, *arguments, **options):
        seen.append([job.recipe.fit.seed for job in jobs])
        return together(jobs, *arguments, **options)

    monkeypatch.setattr(fit, "fit_many", watched)
    return seen


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each step of training moved."""
    seen: list[int] = []
    step = stack.Stack.step

    def watched(self, moving):
        seen.append(sum(moving))
        step(self, moving)

    monkeypatch.setattr(stack.Stack, "step", watched)
    return seen


@pytest.fixture
def state_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state after every epoch, not once a minute."""
    monkeypatch.setattr(unfinished, "Checkpoint", partial(unfinished.Checkpoint, every_seconds=0.0))


def with_fit(**changes) -> TrainRecipe:
    return dataclasses.replace(RECIPE, fit=dataclasses.replace(RECIPE.fit, **changes))


def configurations(**recipes: TrainRecipe) -> list[Configuration]:
    return [Configuration(name=name, recipe=recipe) for name, recipe in recipes.items()]


def assert_same(left: Path, right: Path) -> None:
    """Two cross-validations are the same to the last byte."""
    names = [*SAME, *(f"fold-{k}/{name}" for k in range(3) for name in OF_A_FOLD)]
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


def test_folds_and_seeds_are_one_pass_and_every_network_has_its_column(sources, passes, tmp_path) -> None:
    run = train(RECIPE, sources, tmp_path / "run", command="")
    assert passes == [[0, 0, 0]]
    fold = run.folds()[0]
    for table in (fold.predictions.slides, fold.predictions.cases):
        np.testing.assert_allclose(table["risk"], table[["risk_0", "risk_1"]].mean(axis=1), rtol=1e-6)
        assert (table["risk_0"] != table["risk_1"]).any()
    assert {len(tensor) for tensor in fold.weights().values()} == {2}
    assert set(fold.history["seed"]) == {0, 1}
    assert len(fold.provenance["best_epoch"]) == 2
    assert len(run.metrics["seeds"]["case"]["values"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_one_seed_gives_a_run_without_columns_of_networks(sources, tmp_path) -> None:
    run = train(with_fit(n_seeds=1), sources, tmp_path / "run", command="")
    assert list(run.predictions.cases.columns) == [
        "case_id", "part", "risk", "time", "event", "fold", "raw_risk", "high_risk",
    ]  # fmt: skip
    assert {len(tensor) for tensor in run.folds()[0].weights().values()} == {1}
    assert run.metrics["seeds"]["case"]["sd"] is None
    assert run.metrics["seeds"]["case"]["mean"] == run.metrics["parts"]["out-of-fold"]["case"]["c_index"]["value"]


def test_the_record_says_how_features_were_read(sources, tmp_path) -> None:
    run = train(with_fit(n_seeds=1), dataclasses.replace(sources, memory=10**8), tmp_path / "run", command="")
    features = run.provenance["features"]
    assert features["reading"] in ("mapped", "memory", "streamed")
    assert features["bytes"] > 0
    assert features["memory"] == 10**8
    rna = dataclasses.replace(with_fit(n_seeds=1), model=ModelSettings(name="rna"))
    assert train(rna, sources, tmp_path / "rna", command="").provenance["features"] is None


@pytest.mark.usefixtures("state_at_once")
def test_a_training_that_was_stopped_goes_on_and_ends_with_the_same_bytes(sources, steps, tmp_path) -> None:
    def stop(job: int, row) -> None:
        if (job, row["epoch"]) == (2, 2):
            raise KeyboardInterrupt("by the user")

    train(RECIPE, sources, tmp_path / "whole", command="")
    of_whole = len(steps)
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train(RECIPE, sources, tmp_path / "run", command="", on_epoch=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.checkpoint", "whole"]
    steps.clear()
    train(RECIPE, sources, tmp_path / "run", command="")
    assert 0 < len(steps) < of_whole
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(sources, steps, tmp_path) -> None:
    code = f"""
import os, signal
from functools import partial
from pathlib import Path
from mmsurv.config import from_table
from mmsurv_train import unfinished
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.train import train

def killed(job, row):
    if (job, row["epoch"]) == (2, 2):
        os.kill(os.getpid(), signal.SIGKILL)

unfinished.Checkpoint = partial(unfinished.Checkpoint, every_seconds=0.0)
recipe = from_table(TrainRecipe, {to_table(RECIPE)!r}, source="test")
sources = from_table(Sources, {to_table(sources)!r}, source="test")
train(recipe, sources, Path({str(tmp_path / "run")!r}), command="", on_epoch=killed)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == [".run.checkpoint"]
    train(RECIPE, sources, tmp_path / "run", command="")
    assert 0 < len(steps) < RECIPE.fit.epochs
    train(RECIPE, sources, tmp_path / "whole", command="")
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


@pytest.mark.usefixtures("state_at_once")
def test_a_stopped_training_is_not_gone_on_with_by_another_recipe(sources, tmp_path) -> None:
    def stop(job: int, row) -> None:
        if (job, row["epoch"]) == (2, 3):
            raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train(RECIPE, sources, tmp_path / "run", command="", on_epoch=stop)
    with pytest.raises(RunError, match=r"recipes\.run\.fit\.learning_rate  0\.0005 → 0\.1"):
        train(with_fit(learning_rate=0.1), sources, tmp_path / "run", command="")


def test_a_fold_without_an_event_is_named_before_any_feature_is_read(sources, study, tmp_path, monkeypatch) -> None:
    import pandas as pd

    clinical = pd.read_csv(study / "clinical.csv").drop_duplicates("case_id")
    alive = clinical.loc[clinical["vital_status"] == 0, "case_id"].tolist()
    folds = pd.DataFrame({"case_id": clinical["case_id"], "fold": "other"})
    folds.loc[folds["case_id"].isin(alive), "fold"] = "alive"
    folds.loc[::3, "fold"] = folds.loc[::3, "fold"].replace("other", "third")
    folds.to_csv(tmp_path / "folds.csv", index=False)
    monkeypatch.setattr(inputs, "read_features", lambda *_, **__: pytest.fail("features were read"))
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(folds_file=str(tmp_path / "folds.csv")))
    with pytest.raises(SplitError, match=r"fold 'alive' has no event among its \d+ cases .*Join it to another fold"):
        train(recipe, sources, tmp_path / "run", command="")
    assert [path.name for path in tmp_path.iterdir()] == ["folds.csv"]


def test_a_training_part_with_too_few_events_is_named_with_its_fold(sources, study, tmp_path) -> None:
    import pandas as pd

    clinical = pd.read_csv(study / "clinical.csv")
    usable = clinical["case_id"].between("case-02", "case-38")
    dead = clinical.loc[usable & (clinical["vital_status"] == 1), "case_id"].unique()
    clinical.loc[~clinical["case_id"].isin(dead[:2]), "vital_status"] = 0
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    cohort = dataclasses.replace(sources.cohort, clinical=str(tmp_path / "clinical.csv"))
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=2))
    with pytest.raises(
        SplitError, match=r"training part of fold 0 into train, validation needs an event in each.* fewer"
    ):
        train(recipe, dataclasses.replace(sources, cohort=cohort), tmp_path / "run", command="")


def test_a_fold_whose_risks_stop_being_finite_is_named(sources, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"fold 0.*Lower fit\.learning_rate"):
        train(with_fit(learning_rate=1e30), sources, tmp_path / "run", command="")
    assert list(tmp_path.iterdir()) == []


def test_configurations_that_need_the_same_data_share_a_pass(sources, passes, tmp_path) -> None:
    wsi = dataclasses.replace(RECIPE, model=ModelSettings(name="wsi"))
    chosen = configurations(slow=RECIPE, fast=with_fit(learning_rate=1e-2), wsi=wsi)
    places = {one.name: tmp_path / one.name for one in chosen}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="mmsurv sweep")
    assert [len(jobs) for jobs in passes] == [6, 3]
    assert list(found) == ["slow", "fast", "wsi"]
    assert [run.metrics["model"] for run in found.values()] == ["joint", "joint", "wsi"]
    alone = train(RECIPE, sources, tmp_path / "alone", command="")
    np.testing.assert_allclose(alone.predictions.cases["risk"], found["slow"].predictions.cases["risk"], atol=1e-3)
    assert not (tmp_path / "unfinished").exists()


def test_models_that_meet_the_same_patients_share_a_pass(sources, passes, tmp_path) -> None:
    wsi = dataclasses.replace(RECIPE, model=ModelSettings(name="wsi"))
    chosen = configurations(joint=RECIPE, wsi=wsi)
    complete = dataclasses.replace(sources, complete_cases=True)
    places = {one.name: tmp_path / one.name for one in chosen}
    found = train_all(chosen, complete, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert [len(jobs) for jobs in passes] == [6]
    assert found["joint"].provenance["cases"] == found["wsi"].provenance["cases"]


def test_a_configuration_that_fails_is_named_and_stops_no_other(sources, tmp_path) -> None:
    missing = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3, fold=7))
    constant = dataclasses.replace(RECIPE, rna=RnaSettings(min_variance=1e9))
    chosen = configurations(good=RECIPE, diverges=with_fit(learning_rate=1e30), missing=missing, constant=constant)
    places = {one.name: tmp_path / "runs" / one.name for one in chosen}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert found["good"].kind == runs.CROSS_VALIDATION
    assert "Lower fit.learning_rate" in str(found["diverges"])
    assert "fold 7 does not exist" in str(found["missing"])
    assert "constant, fold 0: None of the 6 genes varies" in str(found["constant"])
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


def test_a_place_that_holds_something_else_is_a_failure_of_that_configuration(sources, tmp_path) -> None:
    train(RECIPE, sources, tmp_path / "a", command="")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("draft")
    chosen = configurations(a=with_fit(seed=9), b=RECIPE)
    places = {one.name: tmp_path / one.name for one in chosen}
    found = train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")
    assert "holds a run of another recipe than a:\n  fit.seed  0 → 9" in str(found["a"])
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
