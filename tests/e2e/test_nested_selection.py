"""Settings chosen on inner folds of each training part, as typed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from mmsurv.cli import main
from mmsurv.errors import ConfigError
from mmsurv.split import make_folds, read_split
from mmsurv_train import fit, stack, unfinished
from mmsurv_train import run as runs
from mmsurv_train.nested import inner_splits

RECIPE = """
[model]
name = "rna"
rna_widths = []
[fit]
epochs = 3
device = "cpu"
[evaluate]
n_bootstrap = 0
[grid]
"fit.learning_rate" = [1e-6, 0.1]
"""


@pytest.fixture
def mmsurv(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"\d") as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(str(stop.value.code)), out, err

    return run


@pytest.fixture
def data(study: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return ["--recipe", tmp_path / "recipe.toml", "--clinical", study / "clinical.csv", "--rna", study / "rna.csv"]


def test_each_fold_has_its_own_settings_and_the_note_says_how_many_were_tried(mmsurv, data, tmp_path) -> None:
    code, out, err = mmsurv("train", *data, "--folds", 3, "--inner-folds", 4, "-o", tmp_path / "run")
    assert code == 0, err
    assert "settings: 2 tried on 4 inner folds of each training part; chosen: " in out
    run = runs.read_run(tmp_path / "run")
    table = pd.read_csv(run.path / runs.SELECTION)
    assert len(table) == 6
    assert table.groupby("fold")["chosen"].sum().tolist() == [1, 1, 1]
    best = table.loc[table.groupby("fold")["c_index"].idxmax(), "configuration"].tolist()
    assert table[table["chosen"] == 1]["configuration"].tolist() == best
    selection = run.provenance["selection"]
    assert (selection["n_settings_tried"], list(selection["chosen"].values())) == (2, best)
    rates = [fold.config["recipe"]["fit"]["learning_rate"] for fold in run.folds()]
    assert [f"learning_rate={rate:g}" for rate in rates] == best
    assert table["fit.learning_rate"].tolist() == [1e-6, 0.1] * 3
    assert set(table["n_inner"]) == {4}
    code, out, _ = mmsurv("evaluate", tmp_path / "run")
    assert (code, "identical to" in out) == (0, True)
    assert mmsurv("report", tmp_path / "run", "-o", tmp_path / "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "2 settings were tried on 4 inner folds of each training part" in page
    assert f"Chosen: {best[0]} (fold 0)" in page


def test_the_test_part_has_no_part_in_the_choice(mmsurv, data, study, tmp_path) -> None:
    """Other outcomes of the test patients of a split choose the same, by the same numbers."""
    mmsurv("train", *data, "--inner-folds", 2, "-o", tmp_path / "run")
    tested = read_split(tmp_path / "run" / runs.SPLIT).cases("test")
    clinical = pd.read_csv(study / "clinical.csv")
    clinical.loc[clinical["case_id"].isin(tested), "survival_months"] += 50
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    data[3] = tmp_path / "clinical.csv"
    mmsurv("train", *data, "--inner-folds", 2, "-o", tmp_path / "other")
    before, now = ((tmp_path / name / runs.SELECTION).read_bytes() for name in ("run", "other"))
    assert before == now


def test_inner_folds_hold_the_training_and_validation_patients_only() -> None:
    names = pd.Index([f"case-{i:02d}" for i in range(40)], name="case_id")
    cases = pd.DataFrame({"event": [True, False] * 20}, index=names)
    outer = make_folds(cases, n_folds=4, seed=0)[0]
    inner = inner_splits(outer, cases, 3, seed=0)
    inside = {*outer.cases("train"), *outer.cases("validation")}
    assert len(inner) == 3
    assert all(set(split.parts.index) == inside for split in inner)


@pytest.mark.parametrize(
    ("grid", "code", "message"),
    [
        ('"fit.epochs" = [2]', 2, "has one configuration, so there is nothing to choose"),
        ('"model.name" = ["rna", "late"]', 2, "settings are chosen for one model on the same patients; models differ"),
    ],
)
def test_what_cannot_be_chosen_among_is_refused(mmsurv, data, tmp_path, grid, code, message) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.split("[grid]")[0] + f"[grid]\n{grid}\n")
    found, _, err = mmsurv("train", *data, "--inner-folds", 2, "-o", tmp_path / "run")
    assert (found, message in err) == (code, True)


def test_without_inner_folds_a_recipe_with_a_grid_is_refused_with_both_ways(mmsurv, data, tmp_path) -> None:
    code, _, err = mmsurv("train", *data, "-o", tmp_path / "run", "--json")
    assert code == 2
    assert "train them all with mmsurv sweep" in err
    assert "--inner-folds" in err


def test_a_selection_that_was_stopped_goes_on_to_the_same_bytes(mmsurv, data, tmp_path, monkeypatch) -> None:
    asked = ["train", *data, "--folds", 3, "--inner-folds", 4, "-o"]
    assert mmsurv(*asked, tmp_path / "whole")[0] == 0
    steps: list[int] = []
    deadly: list[int] = []
    step = stack.Stack.step

    def watched(self, moving):
        steps.append(len(steps))
        if deadly == [len(steps)]:
            raise KeyboardInterrupt
        step(self, moving)

    monkeypatch.setattr(stack.Stack, "step", watched)
    monkeypatch.setattr(unfinished, "Checkpoint", partial(unfinished.Checkpoint, every_seconds=0.0))
    for step_number in (3, 4):  # while choosing, then in the last epoch of what was chosen
        deadly[:], steps[:] = [step_number], []
        assert mmsurv(*asked, tmp_path / "run")[0] == 130
        assert (tmp_path / ".run.checkpoint").is_dir()
    deadly[:], steps[:] = [], []
    code, _, err = mmsurv("train", *data, "--folds", 3, "--inner-folds", 3, "-o", tmp_path / "run")
    assert (code, "inner_folds  4 → 3" in err) == (1, True), err
    assert mmsurv(*asked, tmp_path / "run")[0] == 0
    assert len(steps) == 1
    assert not (tmp_path / ".run.checkpoint").exists()
    for name in (runs.SELECTION, runs.METRICS, runs.CASE_PREDICTIONS, f"fold-1/{runs.MODEL}"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_strata_are_read_and_a_column_that_is_none_is_refused_before_training(mmsurv, data, study, tmp_path) -> None:
    rows = pd.read_csv(study / "clinical.csv")
    rows["site"] = rows["case_id"].str[-1:].astype(int).mod(2).map({0: "north", 1: "south"})
    rows.to_csv(tmp_path / "clinical.csv", index=False)
    data[3] = tmp_path / "clinical.csv"
    asked = ["train", *data, "--inner-folds", 2, "-o", tmp_path / "run", "--stratum"]
    assert mmsurv(*asked, "sites")[0] == 1
    assert mmsurv(*asked, "site")[0] == 0
    groups = runs.read_run(tmp_path / "run").metrics["strata"][0]["groups"]
    assert [group["name"] for group in groups] == ["north", "south"]


def test_more_inner_folds_than_deaths_are_refused_with_how_many_there_can_be(mmsurv, data, tmp_path) -> None:
    code, _, err = mmsurv("train", *data, "--inner-folds", 50, "-o", tmp_path / "run")
    assert (code, "50 inner folds need a death each, and of the 30 patients outside a test part" in err) == (1, True), (
        err
    )
    assert not list(tmp_path.glob(".run*"))


LOSSES = """
[model]
name = "rna"
[fit]
epochs = 2
device = "cpu"
[evaluate]
n_bootstrap = 0
[grid]
"fit.loss" = ["cox-efron", "nll"]
"""


def test_losses_whose_risks_mean_other_things_are_not_chosen_among(mmsurv, data, tmp_path) -> None:
    """The folds would be pooled with one scale of risk."""
    (tmp_path / "recipe.toml").write_text(LOSSES)
    code, _, err = mmsurv("train", *data, "--folds", 3, "--inner-folds", 3, "-o", tmp_path / "run")
    assert (code, "Cox and discrete-time losses differ" in err) == (2, True), err


def test_a_selection_that_can_never_end_leaves_no_state_and_says_why(mmsurv, data, tmp_path, caplog) -> None:
    code, _, err = mmsurv("train", *data, "--folds", 3, "--inner-folds", 17, "-o", tmp_path / "run")
    assert (code, "could be trained and tested on all inner folds" in err) == (2, True), err
    assert "has no C-index: " in caplog.text
    assert not (tmp_path / ".run.checkpoint").exists()


def test_settings_that_all_fail_are_said_by_the_first_and_leave_no_state(mmsurv, data, tmp_path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("[1e-6, 0.1]", "[1e30, 1e31]"))
    code, _, err = mmsurv("train", *data, "--folds", 3, "--inner-folds", 3, "-o", tmp_path / "run")
    assert (code, "The first failed so: " in err, "Lower fit.learning_rate" in err) == (2, True, True), err
    assert "Take fewer" not in err
    assert not (tmp_path / ".run.checkpoint").exists()


def test_a_chosen_training_that_fails_leaves_no_state_either(mmsurv, data, tmp_path, monkeypatch) -> None:
    together, calls = fit.fit_many, []

    def failing(jobs, *arguments, **options):
        calls.append(len(jobs))
        found = together(jobs, *arguments, **options)
        return found if len(calls) == 1 else [fit.FitFailed(error=ConfigError("broken")), *found[1:]]

    monkeypatch.setattr(fit, "fit_many", failing)
    code, _, err = mmsurv("train", *data, "--folds", 3, "--inner-folds", 4, "-o", tmp_path / "run")
    assert (code, "broken" in err, len(calls)) == (2, True, 2), err
    assert not (tmp_path / ".run.checkpoint").exists()
