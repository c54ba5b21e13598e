"""Folds and seeds of a run are one pass; what is stopped goes on, what cannot be is refused before the work."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsurv.config import to_table
from mmsurv.errors import CohortError, ConfigError, RunError, SplitError
from mmsurv.store import create_store
from mmsurv.store.testing import RECIPE as RECIPE_OF_STORE
from mmsurv.store.testing import make_record
from mmsurv_train import inputs
from mmsurv_train import run as runs
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.train import train
from mmsurv_train.unfinished import threads

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=3, device="cpu", n_seeds=2),
    split=SplitSettings(n_folds=3),
    evaluate=EvaluateSettings(n_bootstrap=20),
)
SAME = (runs.PREDICTIONS, runs.CASE_PREDICTIONS, runs.METRICS)
OF_A_FOLD = (*SAME, runs.MODEL, runs.PREPROCESS, runs.SPLIT, runs.HISTORY, runs.BASELINE)


def with_fit(**changes) -> TrainRecipe:
    return dataclasses.replace(RECIPE, fit=dataclasses.replace(RECIPE.fit, **changes))


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


def test_a_training_that_was_stopped_while_it_read_leaves_nothing_and_says_so(sources, tmp_path, caplog) -> None:
    def stop(_n_slides: int) -> None:
        raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train(RECIPE, sources, tmp_path / "run", command="", on_slide=stop)
    assert list(tmp_path.iterdir()) == []
    assert "Nothing of the training was kept yet: the same command begins anew" in caplog.text


def test_a_second_training_at_the_same_place_is_refused_and_the_first_ends(sources, tmp_path) -> None:
    refused: list[str] = []

    def again(_job: int, _row) -> None:
        if not refused:
            with pytest.raises(RunError, match=r"another mmsurv is training there") as error:
                train(RECIPE, sources, tmp_path / "run", command="second")
            refused.append(str(error.value))

    run = train(RECIPE, sources, tmp_path / "run", command="first", on_epoch=again)
    assert str(tmp_path / ".run.checkpoint") in refused[0]
    assert run.provenance["command"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.usefixtures("state_at_once")
def test_a_training_goes_on_and_is_recorded_with_the_threads_it_was_begun_with(sources, tmp_path) -> None:
    def stop(job: int, row) -> None:
        if (job, row["epoch"]) == (2, 2):
            raise KeyboardInterrupt("by the user")

    now = torch.get_num_threads()
    with threads(now + 1), pytest.raises(KeyboardInterrupt, match="by the user"):
        train(RECIPE, sources, tmp_path / "run", command="", on_epoch=stop)
    assert train(RECIPE, sources, tmp_path / "run", command="").provenance["threads"] == now + 1
    assert torch.get_num_threads() == now


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


def test_a_run_made_meanwhile_by_someone_else_is_not_taken_for_ones_own(sources, tmp_path) -> None:
    def overtaken(*_: object) -> None:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / runs.METRICS).write_text("someone else's")

    with pytest.raises(RunError, match="already holds a run"):
        train(with_fit(n_seeds=1), sources, tmp_path / "run", command="", on_epoch=overtaken)
    assert (tmp_path / "run" / runs.METRICS).read_text() == "someone else's"


def test_a_store_without_any_slide_of_the_cohort_is_refused(sources, tmp_path) -> None:
    store = create_store(tmp_path / "store", recipe=RECIPE_OF_STORE, dim=8)
    store.write(make_record("someone-else", tiles=3, seed=0))
    with pytest.raises(
        CohortError, match=r"no slide of the store belongs to a case .*'slide-00', the store 'someone-else'"
    ):
        train(RECIPE, dataclasses.replace(sources, store=str(tmp_path / "store")), tmp_path / "run", command="")


def test_a_model_without_its_data_is_refused(sources, tmp_path) -> None:
    with pytest.raises(ConfigError, match="needs tile features: name their store with --store"):
        train(RECIPE, dataclasses.replace(sources, store=None), tmp_path / "run", command="")
    without_rna = dataclasses.replace(sources, cohort=dataclasses.replace(sources.cohort, rna=None))
    with pytest.raises(ConfigError, match="needs RNA: name the table with --rna"):
        train(RECIPE, without_rna, tmp_path / "run", command="")
    assert list(tmp_path.iterdir()) == []


def test_the_fold_asked_for_must_exist(sources, tmp_path) -> None:
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3, fold=3))
    with pytest.raises(ConfigError, match="fold 3 does not exist: folds are 0 to 2"):
        train(recipe, sources, tmp_path / "run", command="")


def test_one_fold_of_a_cross_validation_is_the_run_of_that_fold(sources, tmp_path) -> None:
    folds = train(RECIPE, sources, tmp_path / "cv", command="").folds()
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3, fold=1))
    alone = train(recipe, sources, tmp_path / "run", command="")
    for column in ("risk", "risk_0", "risk_1"):  # to the order of sums: one pass over one fold, or over three
        np.testing.assert_allclose(alone.predictions.cases[column], folds[1].predictions.cases[column], atol=1e-4)
