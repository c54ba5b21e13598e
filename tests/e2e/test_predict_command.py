"""``mmsurv predict`` as typed: a run's models and the patients of another cohort."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from mmsurv.cli import main
from mmsurv.cohort import CohortOptions
from mmsurv.store import create_store, open_store
from mmsurv.store.testing import RECIPE as STORE_RECIPE
from mmsurv.store.testing import make_record
from mmsurv_train import run as runs
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import (
    ClinicalSettings,
    EvaluateSettings,
    FitSettings,
    ModelSettings,
    SplitSettings,
    TrainRecipe,
)
from mmsurv_train.together import Configuration
from mmsurv_train.train import train, train_all

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=3, device="cpu"),
    split=SplitSettings(fractions=(0.6, 0.2, 0.2)),
    evaluate=EvaluateSettings(n_bootstrap=20),
)


@pytest.fixture(scope="module")
def trained(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: split, folds (three folds of two networks each), rna (folds, without tiles)."""
    folder = tmp_path_factory.mktemp("runs")
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    sources = Sources(cohort=cohort, store=str(study / "store"), complete_cases=True)
    folds = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3))
    recipes = {
        "split": RECIPE,
        "folds": dataclasses.replace(folds, fit=FitSettings(epochs=3, device="cpu", n_seeds=2)),
        "rna": dataclasses.replace(folds, model=ModelSettings(name="rna")),
    }
    configurations = [Configuration(name=name, recipe=recipe) for name, recipe in recipes.items()]
    places = {name: folder / name for name in recipes}
    train_all(configurations, sources, places, checkpoint_folder=folder / ".checkpoint", command="mmsurv train")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital: 15 cases, two slides of the first five; the genes in another order, beside one more."""
    folder = tmp_path_factory.mktemp("other")
    rng = np.random.default_rng(5)
    cases = [f"new-{i:02d}" for i in range(15)]
    owners = [*cases, *cases[:5]]
    names = [f"new-slide-{i:02d}" for i in range(len(owners))]
    outcome = pd.DataFrame({"case_id": cases, "survival_months": rng.exponential(30, 15).round(2) + 1})
    outcome["vital_status"] = [1, 1, 0] * 5
    slides = pd.DataFrame({"slide_id": names, "case_id": owners})
    slides.merge(outcome, on="case_id").to_csv(folder / "clinical.csv", index=False)
    genes = pd.DataFrame(rng.normal(size=(15, 7)), columns=["Z", *"FEDCBA"])
    genes.assign(case_id=cases).set_index("case_id").to_csv(folder / "rna.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        store = create_store(folder / "store", recipe=STORE_RECIPE, dim=8)
        for index, name in enumerate(names):
            store.write(make_record(name, tiles=6, seed=1000 + index))
    return folder


@pytest.fixture
def mmsurv(capsys: pytest.CaptureFixture[str]):
    """Run the command line; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"\d") as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(str(stop.value.code)), out, err

    return run


def data(folder: Path, **changes: Path) -> list[object]:
    places = {name: folder / file for name, file in FILES.items()} | changes
    return [word for name, place in places.items() for word in (f"--{name}", place)]


FILES = {"store": "store", "clinical": "clinical.csv", "rna": "rna.csv"}


def test_another_cohort_is_predicted_and_measured(mmsurv, trained, other, tmp_path) -> None:
    code, out, err = mmsurv("predict", trained / "split", *data(other), "-o", tmp_path / "out")
    assert (code, err) == (0, "not joined  nothing: every id has its partner\n")
    lines = out.splitlines()
    assert lines[0] == "joint: 15 cases, 20 slides predicted"
    assert lines[1] == "genes: 6 of the model's 6 are there (coverage 100.0%), 1 others ignored"
    assert lines[4].split()[:2] == ["external", "WSI"]
    assert lines[5].split()[:2] == ["external", "case"]
    names = {"predictions.csv", "case_predictions.csv", "metrics.json", "provenance.json", "genes.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    cases = pd.read_csv(tmp_path / "out" / "case_predictions.csv")
    survival = ["survival_12", "survival_36", "survival_60"]
    assert list(cases) == ["case_id", "seen", "risk", *survival, "has_wsi", "has_rna", "time", "event"]
    assert (cases["survival_12"] > cases["survival_36"]).all()
    assert (cases.sort_values("risk")["survival_12"].diff().dropna() <= 0).all()
    assert cases["seen"].sum() == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    training = runs.read_run(trained / "split").metrics
    assert metrics["method"]["tau_months"] == training["method"]["tau_months"]
    assert metrics["risk_cut"] == training["risk_cut"]
    assert metrics["parts"]["external"]["case"]["n"] == 15


@pytest.mark.parametrize("name", ["split", "folds"])
def test_survival_is_measured_and_gbm_and_lgg_are_shown_apart(mmsurv, trained, other, tmp_path, name) -> None:
    rows = pd.read_csv(other / "clinical.csv")
    number = rows["case_id"].str[-2:].astype(int)
    rows["oncotree_code"] = number.mod(2).map({0: "GBM", 1: "ODG"})
    rows["site"] = number.map(lambda value: "north" if value < 12 else "south")
    rows["vital_status"] = 1
    rows.to_csv(tmp_path / "clinical.csv", index=False)
    options = data(other, clinical=tmp_path / "clinical.csv")
    code, out, err = mmsurv("predict", trained / name, *options, "--stratum", "site", "-o", tmp_path / "out")
    assert code == 0, err
    assert "external, case, predicted survival:" in out
    assert "  integrated Brier" in out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["parts"]["external"]["case"]["integrated_brier"]["value"] > 0
    strata = {group["name"]: group for one in metrics["strata"] for group in one["groups"]}
    assert list(strata) == ["GBM", "LGG", "north", "south"]
    assert [strata[one]["n"] for one in strata] == [8, 7, 12, 3]
    assert strata["north"]["integrated_brier"]["value"] > 0
    assert strata["south"]["c_index"]["reason"] == "3 events, fewer than 10"


def test_a_runs_own_patients_get_its_own_risks_and_are_known(mmsurv, trained, study, tmp_path) -> None:
    code, out, err = mmsurv("predict", trained / "split", *data(study), "-o", tmp_path / "out")
    assert code == 0
    run = runs.read_run(trained / "split")
    found = runs.read_csv(tmp_path / "out" / "case_predictions.csv").set_index("case_id")
    own = run.predictions.cases.set_index("case_id")
    assert (found.loc[own.index, "risk"] == own["risk"]).all()  # to the last bit
    assert ((found["seen"] == 1) == (own["part"] != "test")).all()
    n_seen = int((own["part"] != "test").sum())
    assert f"WARNING: {n_seen} of 37 cases are known to the models, so their risks are no prediction." in err
    assert f"not measured: {n_seen} cases known to the models, 0 without outcome" in out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    case = metrics["parts"]["external"]["case"]
    own_case = run.metrics["parts"]["test"]["case"]
    assert case["c_index"] == own_case["c_index"]
    for name in ("integrated_brier", "brier", "calibration", "d_calibration"):  # the same patients, curves and draws
        assert _rounded(case[name]) == _rounded(own_case[name])
    survival = np.exp(-_hazard(run, 12) * np.exp(own["risk"]))
    assert found.loc[own.index, "survival_12"].to_numpy() == pytest.approx(survival.to_numpy())


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 9) if isinstance(value, float) else value


def _hazard(run: runs.Run, months: float) -> float:
    baseline = runs.read_csv(run.path / "baseline.csv")
    return float(baseline["cumulative_hazard"][baseline["time"] <= months].iloc[-1])


def test_of_folds_the_risk_is_the_mean_of_their_standardised_risks(mmsurv, trained, other, study, tmp_path) -> None:
    code, out, _ = mmsurv("predict", trained / "folds", *data(other), "-o", tmp_path / "out")
    assert code == 0
    assert out.startswith("joint, mean of 3 folds: 15 cases, 20 slides predicted")
    found = runs.read_csv(tmp_path / "out" / "case_predictions.csv")
    assert {"risk", "risk_0", "risk_1"} <= set(found)
    expected = []
    for fold in runs.read_run(trained / "folds").folds():
        mmsurv("predict", fold.path, *data(other), "-o", tmp_path / fold.name)
        risk = runs.read_csv(tmp_path / fold.name / "case_predictions.csv")["risk"]
        training = fold.predictions.part("train").cases["risk"]
        expected.append((risk - training.mean()) / training.std(ddof=0))
    assert found["risk"].to_numpy() == pytest.approx(np.mean(expected, axis=0))
    _, _, err = mmsurv("predict", trained / "folds", *data(study), "-o", tmp_path / "known")
    assert "WARNING: 37 of 37 cases are known to the models" in err
    assert not (tmp_path / "known" / "metrics.json").exists()


def test_a_cohort_without_outcomes_is_predicted_and_not_measured(mmsurv, trained, other, tmp_path) -> None:
    table = pd.read_csv(other / "clinical.csv").drop(columns=["survival_months", "vital_status"])
    table.to_csv(tmp_path / "clinical.csv", index=False)
    chosen = data(other, clinical=tmp_path / "clinical.csv")
    code, out, err = mmsurv("predict", trained / "split", *chosen, "-o", tmp_path / "out")
    assert code == 0
    assert "WARNING: No case has an outcome, so nothing is measured." in err
    assert "C-index" not in out
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert "time" not in pd.read_csv(tmp_path / "out" / "case_predictions.csv")


def test_a_model_without_tiles_needs_no_store(mmsurv, trained, other, tmp_path) -> None:
    chosen = ["--clinical", other / "clinical.csv", "--rna", other / "rna.csv"]
    code, out, _ = mmsurv("predict", trained / "rna", *chosen, "--json", "-o", tmp_path / "out")
    assert code == 0
    assert json.loads(out)["metrics"]["kind"] == "external"


def test_missing_genes_are_named_and_too_many_refused(mmsurv, trained, other, tmp_path) -> None:
    pd.read_csv(other / "rna.csv").drop(columns=["C"]).to_csv(tmp_path / "rna.csv", index=False)
    chosen = data(other, rna=tmp_path / "rna.csv")
    code, _, err = mmsurv("predict", trained / "split", *chosen, "-o", tmp_path / "out")
    assert code == 1
    assert "83.3% of the model's genes are there, and at least 90.0% are asked for" in err
    assert not (tmp_path / "out").exists()
    code, out, err = mmsurv("predict", trained / "split", *chosen, "--min-gene-coverage", 0.8, "-o", tmp_path / "out")
    assert code == 0
    assert "WARNING: 1 of the model's 6 genes are missing and take their training median: C." in err
    assert "genes: 5 of the model's 6 are there (coverage 83.3%)" in out
    genes = pd.read_csv(tmp_path / "out" / "genes.csv").set_index("gene")["status"]
    assert genes[genes == "missing"].index.tolist() == ["C"]


def test_another_normalisation_is_said_aloud(mmsurv, trained, other, tmp_path) -> None:
    table = pd.read_csv(other / "rna.csv", index_col=0)
    (2 ** (table + 5)).to_csv(tmp_path / "rna.csv")
    chosen = data(other, rna=tmp_path / "rna.csv")
    _, _, err = mmsurv("predict", trained / "split", *chosen, "-o", tmp_path / "out")
    assert "WARNING: The RNA is not on the training part's scale" in err
    assert "Another normalisation?" in err
    _, _, err = mmsurv("predict", trained / "split", *chosen, "--rna-log2", "-o", tmp_path / "log2")
    assert "WARNING: The run's RNA was read without --rna-log2, and this table otherwise." in err


def test_a_store_of_another_recipe_is_refused_field_by_field(mmsurv, trained, other, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = json.loads(json.dumps(STORE_RECIPE))
    name = next(key for key, value in recipe.items() if isinstance(value, dict))
    recipe[name]["something"] = 7
    store = create_store(tmp_path / "store", recipe=recipe, dim=8)
    for slide_id in open_store(other / "store").slide_ids():
        store.write(make_record(slide_id, tiles=6))
    code, _, err = mmsurv("predict", trained / "split", *data(other, store=tmp_path / "store"), "-o", tmp_path / "out")
    assert code == 1
    assert "RecipeMismatchError" in err
    assert f"{name}.something  – → 7" in err
    assert not (tmp_path / "out").exists()


def test_a_training_slide_under_another_name_is_known(mmsurv, trained, other, study, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = runs.read_run(trained / "split").predictions
    twin = own.slides[own.slides["part"] == "train"]["slide_id"].iloc[0]
    shutil.copytree(other / "store", tmp_path / "store")
    store = open_store(tmp_path / "store")
    store.record_path("new-slide-07").unlink()
    record = open_store(study / "store").read(twin)
    store.write(dataclasses.replace(make_record("new-slide-07", tiles=6), features=record.features))
    _, out, err = mmsurv("predict", trained / "split", *data(other, store=store.path), "-o", tmp_path / "out")
    assert "WARNING: 1 of 15 cases are known to the models" in err
    assert f"new-07: its slide new-slide-07 has the features of {twin} of the training or validation part" in err
    assert "not measured: 1 cases known to the models" in out


def test_the_record_says_which_models_and_which_data(mmsurv, trained, other, tmp_path) -> None:
    mmsurv("predict", trained / "folds", *data(other), "-o", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["command"].startswith(f"mmsurv predict {trained / 'folds'} --store ")
    assert set(record["run"]["models"]) == {"fold-0", "fold-1", "fold-2"}
    assert record["genes"] == {**record["genes"], "of_the_model": 6, "missing": [], "coverage": 1.0, "extra": 1}
    assert record["digests"]["store"] == open_store(other / "store").recipe_sha256
    code, _, err = mmsurv("predict", trained / "folds", *data(other), "-o", tmp_path / "out")
    assert code == 1
    assert "is not empty" in err or "already holds a run" in err


LACKING = dataclasses.replace(RECIPE, model=ModelSettings(name="joint", modality_dropout=0.3))


@pytest.fixture(scope="module", params=["joint", "abmil", "cross-attention", "late"])
def of_any(request, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose patients may lack slides, RNA or clinical variables, and the study's table with an age."""
    folder = tmp_path_factory.mktemp("lacking")
    rows = pd.read_csv(study / "clinical.csv")
    rows.assign(age=40 + rows["case_id"].str[-2:].astype(int)).to_csv(folder / "clinical.csv", index=False)
    cohort = CohortOptions(clinical=str(folder / "clinical.csv"), rna=str(study / "rna.csv"))
    model = ModelSettings(name=request.param, inputs=("wsi", "rna", "clinical"), modality_dropout=0.3)
    recipe = dataclasses.replace(LACKING, model=model, clinical=ClinicalSettings(columns=("age",)))
    train(recipe, Sources(cohort=cohort, store=str(study / "store")), folder / "run", command="mmsurv train")
    return folder


@pytest.mark.parametrize("given", ["rna", "store", "clinical"])
def test_a_table_that_is_not_there_is_what_nobody_has(mmsurv, of_any, study, tmp_path, given) -> None:
    """Predicted as by the pattern that the run measured."""
    sources: list[object] = ["--clinical", of_any / "clinical.csv" if given == "clinical" else study / "clinical.csv"]
    if given != "clinical":
        sources += [f"--{given}", study / FILES[given]]
    code, _, err = mmsurv("predict", of_any / "run", *sources, "-o", tmp_path / "out")
    assert code == 0, err
    words = {"store": "slides (--store)", "rna": "RNA profiles (--rna)", "clinical": "clinical variables"}
    for name, absent in words.items():
        assert (f"WARNING: There are no {absent}: every patient is predicted as one" in err) == (name != given), err
    found = runs.read_csv(tmp_path / "out" / runs.CASE_PREDICTIONS).set_index("case_id")
    pattern = {"store": "wsi"}.get(given, given)
    expected = runs.read_csv(of_any / "run" / runs.PATTERN_PREDICTIONS).set_index("case_id")[pattern].dropna()
    assert found.loc[expected.index, "risk"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5, abs=1e-6)
    assert found["has_wsi"].any() == (given == "store")
    assert found["has_rna"].any() == (given == "rna")


def test_with_nothing_at_all_there_is_nothing_to_predict_from(mmsurv, study, tmp_path) -> None:
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    train(LACKING, Sources(cohort=cohort, store=str(study / "store")), tmp_path / "run", command="mmsurv train")
    code, _, err = mmsurv("predict", tmp_path / "run", "--clinical", study / "clinical.csv", "-o", tmp_path / "out")
    assert (code, "can do without one input, not without all: give --store or --rna." in err) == (2, True), err


def test_what_the_model_looks_at_and_the_clinical_table_lacks_is_the_models(mmsurv, study, tmp_path) -> None:
    rows = pd.read_csv(study / "clinical.csv")
    rows["age"] = 40 + rows["case_id"].str[-2:].astype(int)
    rows.to_csv(tmp_path / "clinical.csv", index=False)
    recipe = dataclasses.replace(
        RECIPE, model=ModelSettings(name="clinical"), clinical=ClinicalSettings(columns=("age",))
    )
    train(recipe, Sources(cohort=CohortOptions(clinical=str(tmp_path / "clinical.csv"))), tmp_path / "run", command="")
    code, _, err = mmsurv("predict", tmp_path / "run", "--clinical", study / "clinical.csv", "-o", tmp_path / "out")
    assert (code, f"no column 'age', which the models of {tmp_path / 'run'} look at." in err) == (1, True), err
    rows["age"] = rows["age"].astype(object)
    rows.loc[rows["case_id"] == "case-03", "age"] = "old"
    rows.to_csv(tmp_path / "text.csv", index=False)
    code, _, err = mmsurv("predict", tmp_path / "run", "--clinical", tmp_path / "text.csv", "-o", tmp_path / "out")
    said = f"{tmp_path / 'text.csv'}: column 'age' held numbers in the training part, now 'old' (case 'case-03')"
    assert (code, said in err) == (1, True), err


@pytest.mark.parametrize("folds", [0, 2])
def test_survival_of_a_discrete_time_model_is_that_of_a_cox_regression_on_its_score(
    mmsurv, study, tmp_path, folds
) -> None:
    fit = FitSettings(epochs=20, learning_rate=0.02, device="cpu", loss="nll")
    split = SplitSettings(n_folds=folds) if folds else RECIPE.split
    recipe = dataclasses.replace(RECIPE, model=ModelSettings(name="rna"), fit=fit, split=split)
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    run = train(recipe, Sources(cohort=cohort), tmp_path / "run", command="mmsurv train")
    assert "no log hazard" in run.metrics["method"]["survival"]
    assert mmsurv("evaluate", run.path)[0] == 0
    part = "out-of-fold" if folds else "test"
    assert run.metrics["parts"][part]["case"]["integrated_brier"]["value"] < 0.25
    one = (run.folds() or [run])[0]
    cases = one.predictions.cases
    training = cases[cases["part"] != "test"]  # and the validation part, from which nothing was learnt
    slope = one.baseline["slope"].iloc[0]
    fitted = CoxPHSurvivalAnalysis(alpha=1e-9, ties="breslow").fit(
        training[["risk"]].to_numpy(), Surv.from_arrays(training["event"].to_numpy(bool), training["time"])
    )
    assert slope == pytest.approx(fitted.coef_[0], rel=0.05)  # a little shrunk
    code, _, err = mmsurv("predict", one.path, "--clinical", study / "clinical.csv", "--rna", study / "rna.csv",
                          "-o", tmp_path / "out")  # fmt: skip
    assert code == 0, err
    found = runs.read_csv(tmp_path / "out" / runs.CASE_PREDICTIONS).set_index("case_id")
    own = one.survival.set_index("case_id")
    assert found.loc[own.index, "survival_12"].to_numpy() == pytest.approx(own["survival_12"].to_numpy())
    spread = own["survival_12"].max() - own["survival_12"].min()
    assert spread > 0.3  # by the score as a log hazard, all curves would be much alike


def test_patients_who_are_known_lend_a_stratum_no_curve(mmsurv, trained, other, study, tmp_path) -> None:
    """“No model” within a group is the run's whole curve, whoever else stands in the table."""
    rows = pd.read_csv(other / "clinical.csv").assign(vital_status=1)
    rows["site"] = rows["case_id"].str[-2:].astype(int).map(lambda value: "north" if value < 12 else "south")
    known = pd.read_csv(study / "clinical.csv").assign(site="north")
    case = runs.read_run(trained / "split").predictions.part("train").cases["case_id"].iloc[0]
    found = []
    for name, table in (("alone", rows), ("both", pd.concat([rows, known[known["case_id"] == case]]))):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        options = ["--clinical", tmp_path / f"{name}.csv", "--rna", other / "rna.csv", "--stratum", "site"]
        code, out, err = mmsurv("predict", trained / "rna", *options, "-o", tmp_path / name)
        assert code == 0, err
        assert "Kaplan–Meier, also of strata: of the run's training part (of folds, of all its patients)." in out
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        found.append(metrics["strata"][0]["groups"][0]["integrated_brier"]["kaplan_meier"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--stratum", "time"], 2, "--stratum: evaluate.stratum cannot name 'time'"),
        (["--stratum", "site"], 1, "no column 'site', which --clinical-column, --clinical-variable or --stratum names"),
        (["--clinical-column", "agee"], 1, "no column 'agee', which --clinical-column, --clinical-variable or"),
    ],
)
def test_columns_that_cannot_be_are_the_options_and_not_the_models(
    mmsurv, trained, other, tmp_path, options, code, message
) -> None:
    found, _, err = mmsurv("predict", trained / "split", *data(other), *options, "-o", tmp_path / "out")
    assert (found, message in err) == (code, True), err


def test_rna_may_stand_in_the_clinical_table_and_nothing_at_all_is_said_so(mmsurv, of_any, study, tmp_path) -> None:
    rna = pd.read_csv(study / "rna.csv").rename(columns={gene: f"rna_{gene}" for gene in "ABCDEF"})
    rows = pd.read_csv(study / "clinical.csv").merge(rna, on="case_id")
    rows.to_csv(tmp_path / "single.csv", index=False)
    code, _, err = mmsurv("predict", of_any / "run", "--clinical", tmp_path / "single.csv", "-o", tmp_path / "out")
    assert code == 0, err
    assert "There are no RNA profiles" not in err
    code, _, err = mmsurv("predict", of_any / "run", "--clinical", study / "clinical.csv", "-o", tmp_path / "other")
    assert (code, "give --store or --rna or a clinical table with 'age'." in err) == (2, True), err


def test_a_discrete_time_run_without_its_slope_is_refused(mmsurv, study, tmp_path) -> None:
    fit = FitSettings(epochs=2, device="cpu", loss="nll")
    recipe = dataclasses.replace(RECIPE, model=ModelSettings(name="rna"), fit=fit)
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    run = train(recipe, Sources(cohort=cohort), tmp_path / "run", command="mmsurv train")
    runs.write_csv(run.path / runs.BASELINE, run.baseline.drop(columns="slope"))
    tables = ["--clinical", study / "clinical.csv", "--rna", study / "rna.csv"]
    code, _, err = mmsurv("predict", run.path, *tables, "-o", tmp_path / "out")
    assert (code, "baseline.csv: the column slope is expected" in err) == (1, True), err
