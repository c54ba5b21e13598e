"""``mmsurv compare`` as typed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mmsurv.cli import main
from mmsurv.cohort import CohortOptions
from mmsurv_train import run as runs
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.together import Configuration
from mmsurv_train.train import train_all

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=2, device="cpu"),
    split=SplitSettings(fractions=(0.5, 0.2, 0.3)),
    evaluate=EvaluateSettings(n_bootstrap=50, seed=3),
)


@pytest.fixture(scope="module")
def trained(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on the same patients: joint, again (another seed), folds and more-folds (two networks) of three folds each,
    other-folds of two."""
    folder = tmp_path_factory.mktemp("runs")
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    sources = Sources(cohort=cohort, store=str(study / "store"), complete_cases=True)
    folds = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3))
    recipes = {
        "joint": RECIPE,
        "again": dataclasses.replace(RECIPE, fit=FitSettings(epochs=2, device="cpu", seed=1)),
        "folds": folds,
        "more-folds": dataclasses.replace(folds, fit=FitSettings(epochs=2, device="cpu", seed=1, n_seeds=2)),
        "other-folds": dataclasses.replace(RECIPE, split=SplitSettings(n_folds=2)),
    }
    configurations = [Configuration(name=name, recipe=recipe) for name, recipe in recipes.items()]
    places = {name: folder / name for name in recipes}
    train_all(configurations, sources, places, checkpoint_folder=folder / ".checkpoint", command="mmsurv train")
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


def test_two_runs_are_compared_on_their_test_part(mmsurv, trained) -> None:
    code, out, err = mmsurv("compare", trained / "joint", trained / "again", "--bootstrap", 50, "--seed", 3)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("2 runs on the 11 cases that all report (")
    assert lines[2].split() == ["level", "run", "C-index", "interval", "Uno's", "C-index", "interval"]
    assert [line.split()[:2] for line in lines[3:7]] == [
        ["case", "joint"], ["case", "again"], ["WSI", "joint"], ["WSI", "again"],
    ]  # fmt: skip
    assert lines[8].split() == ["level", "measure", "difference", "of", "value", "interval", "p"]
    assert lines[9].startswith("case   Harrell  again − joint")
    assert "p: two-sided bootstrap, at least 2/51." in out
    assert "Holm" not in out


def test_on_the_same_patients_and_draws_the_numbers_are_the_runs_own(mmsurv, trained) -> None:
    for pair in (("joint", "again"), ("folds", "more-folds")):
        arguments = ["--bootstrap", 50, "--seed", 3, "--json"]
        _, out, _ = mmsurv("compare", *(trained / name for name in pair), *arguments)
        levels = json.loads(out)["levels"]
        first = runs.read_run(trained / pair[0]).metrics  # Uno's τ is the first run's
        own = first["parts"]["out-of-fold" if "folds" in first else "test"]
        for level in ("case", "wsi"):
            for measure in ("c_index", "c_index_ipcw"):
                assert levels[level][measure]["runs"][0] == {"run": pair[0], **own[level][measure]}
            if "folds" in first:
                value = levels[level]["fold_mean"]["runs"][0]["value"]
                assert value == pytest.approx(first["fold_mean"][level]["mean"])


def test_folds_have_the_difference_of_their_mean_and_several_pairs_holms_p(mmsurv, trained) -> None:
    chosen = [trained / name for name in ("folds", "more-folds", "other-folds")]
    code, out, _ = mmsurv("compare", *chosen, "--bootstrap", 20, "--all-pairs")
    assert code == 0
    assert "Note: other-folds: other folds than folds." in out
    assert "folds' mean" not in out
    assert [line.count(" − ") for line in out.splitlines()].count(1) == 3 * 2 * 2
    assert "3 pairs are tested: Holm's p is adjusted for that" in out
    _, out, _ = mmsurv("compare", *chosen[:2], "--bootstrap", 20)
    assert "case   folds' mean  more-folds − folds" in out


def test_the_folder_has_table_record_and_plots_and_the_same_bytes_again(mmsurv, trained, tmp_path) -> None:
    chosen = [trained / name for name in ("folds", "more-folds")]
    for name in ("one", "two"):
        code, out, _ = mmsurv("compare", *chosen, "--bootstrap", 20, "-o", tmp_path / name)
        assert code == 0
        assert out.splitlines()[-1] == f"Comparison: {tmp_path / name}"
    plots = {f"{name}.{kind}" for name in ("forest", "forest-wsi") for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"comparison.csv", "comparison.json", *plots}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    table = pd.read_csv(tmp_path / "one" / "comparison.csv")
    assert len(table) == 2 * 3 * 3  # levels, measures, two runs and a pair
    pairs = table[table["reference"].notna()]
    assert set(pairs["run"]) == {"more-folds"}
    assert ((pairs["p"] > 0) & (pairs["p"] <= 1)).all()
    svg = (tmp_path / "one" / "forest.svg").read_text()
    assert svg.startswith("<?xml")
    for words in ("more-folds", "minus folds", "mean of the folds", "higher"):
        assert words in svg


def test_a_floor_is_compared_with_its_run(mmsurv, trained, tmp_path) -> None:
    for name in ("joint", "folds"):
        shutil.copytree(trained / name, tmp_path / name)
    run = runs.read_run(tmp_path / "joint")
    cases = run.predictions.cases
    floors = cases[["case_id", "part"]].assign(rna=-cases["time"], clinical=cases["risk"])
    runs.write_csv(run.path / "floor_predictions.csv", floors)
    chosen = [f"{run.path}:rna", run.path, f"{run.path}:clinical"]
    code, out, _ = mmsurv("compare", *chosen, "--bootstrap", 20, "--json")
    assert code == 0
    found = json.loads(out)
    assert [one["label"] for one in found["runs"]] == ["joint:rna", "joint", "joint:clinical"]
    case = found["levels"]["case"]["c_index"]
    assert case["runs"][0]["value"] == 1.0
    assert case["differences"][0]["value"] == case["differences"][1]["value"]
    (tmp_path / "folds" / "floor_predictions.csv").unlink()
    for fold in runs.read_run(tmp_path / "folds").folds():  # of folds, the folds' own tables are pooled
        cases = fold.predictions.cases
        runs.write_csv(fold.path / "floor_predictions.csv", cases[["case_id", "part"]].assign(same=cases["risk"] * 2))
    _, out, _ = mmsurv("compare", tmp_path / "folds", f"{tmp_path / 'folds'}:same", "--bootstrap", 20, "--json")
    one, other = json.loads(out)["levels"]["case"]["c_index"]["runs"]
    assert {**one, "run": ""} == {**other, "run": ""}


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (["joint"], 2, "one run has nothing to be compared with"),
        (["joint", "joint"], 1, "is named 2 times"),
        (["joint", "joint:age"], 1, "has no floor 'age'. It has wsi, rna, late"),
        (["joint", "nothing"], 1, "is not a folder; a run is the folder"),
    ],
)
def test_what_cannot_be_compared_is_refused(mmsurv, trained, names, code, message) -> None:
    found, _, err = mmsurv("compare", *(f"{trained}/{name}" for name in names))
    assert found == code
    assert message in err


def test_runs_of_one_name_are_called_by_their_place_and_a_taken_place_is_refused(mmsurv, trained, tmp_path) -> None:
    shutil.copytree(trained / "again", tmp_path / "joint")
    _, out, _ = mmsurv("compare", trained / "joint", tmp_path / "joint", "--bootstrap", 20)
    assert f"{tmp_path / 'joint'} − {trained / 'joint'}" in out
    code, _, err = mmsurv("compare", trained / "joint", trained / "again", "-o", trained)
    assert code == 1
    assert "is not empty" in err


def test_the_report_shows_the_differences_to_its_first_run(mmsurv, trained, tmp_path) -> None:
    chosen = [trained / name for name in ("joint", "again")]
    mmsurv("report", *chosen, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h3>Differences to joint (joint)</h3>" in page
    assert '<th scope="row">joint (again) − joint (joint)</th>' in page
    mmsurv("report", chosen[0], "-o", tmp_path / "one.html")
    assert "Differences to" not in (tmp_path / "one.html").read_text()


def test_the_report_says_what_cannot_be_compared(mmsurv, trained, tmp_path) -> None:
    shutil.copytree(trained / "again", tmp_path / "again")
    for name in (runs.PREDICTIONS, runs.CASE_PREDICTIONS):
        table = runs.read_csv(tmp_path / "again" / name)
        runs.write_csv(tmp_path / "again" / name, table.assign(time=table["time"] + 1))
    code, _, _ = mmsurv("report", trained / "joint", tmp_path / "again", "-o", tmp_path / "report.html")
    assert code == 0
    assert "Not compared: 11 of 11 shared cases have other outcomes" in (tmp_path / "report.html").read_text()
