"""What a model looks at, as typed: inputs, clinical variables, losses, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mmsurv.cli import main
from mmsurv_train import run as runs


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
    """The study with an age and a grade, and its store."""
    rows = pd.read_csv(study / "clinical.csv")
    number = rows["case_id"].str[-2:].astype(int)
    rows["age"], rows["grade"] = 40 + number, number.mod(3).map({0: "II", 1: "III", 2: "IV"})
    rows["survival_days"], rows["OS.time"] = 30 * rows["survival_months"], rows["survival_months"]
    rows["weeks"], rows["alive"] = (4.35 * rows["survival_months"]).round(1), 1 - rows["vital_status"]
    rows["state"] = rows["alive"].map({1: "well", 0: "lost"})
    rows.to_csv(tmp_path / "clinical.csv", index=False)
    tables = ["--clinical", tmp_path / "clinical.csv", "--rna", study / "rna.csv", "--store", study / "store"]
    return [*tables, "--epochs", 2, "--bootstrap", 0, "--device", "cpu"]


MODELS = {
    "cross-attention": [],
    "tanh-cross-attention": ["--model", "tanh-cross-attention"],
    "co-attention": ["--model", "co-attention", "--gene-sets"],
    "joint": ["--model", "joint"],
    "early": ["--model", "early"],
    "late": ["--model", "late"],
    "genomic-cnn": ["--model", "genomic-cnn"],
    "abmil": ["--model", "abmil"],
    "patch-gcn": ["--model", "patch-gcn"],
    "wsi-mean": ["--model", "wsi-mean"],
    "rna": ["--model", "rna"],
    "clinical": ["--model", "clinical"],
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_with_clinical_variables_and_is_computed_again(mmsurv, data, tmp_path, name) -> None:
    options = list(MODELS[name])
    if name == "co-attention":
        (tmp_path / "sets.gmt").write_text("one\t-\tA\tB\tC\tD\tE\n")
        options.append(tmp_path / "sets.gmt")
    variables = ["--clinical-variable", "age", "--clinical-variable", "grade"]
    code, out, err = mmsurv("train", *options, *variables, *data, "-o", tmp_path / "run")
    assert code == 0, err
    assert "floors, case level" in out
    run = runs.read_run(tmp_path / "run")
    assert run.metrics["model"] == name
    assert "clinical" in run.metrics["floors"]
    (tmp_path / "sets.gmt").unlink(missing_ok=True)  # what was matched is in the run
    assert mmsurv("evaluate", tmp_path / "run")[0] == 0


@pytest.mark.parametrize("model", ["early", "late"])
def test_fusion_without_tiles_needs_no_store(mmsurv, data, tmp_path, model) -> None:
    del data[4:6]
    options = ["--model", model, "--input", "rna", "--input", "clinical", "--clinical-variable", "age"]
    code, out, err = mmsurv("train", *options, *data, "-o", tmp_path / "run")
    assert (code, "rna+clinical" in out) == (0, True), err
    assert mmsurv("evaluate", tmp_path / "run")[0] == 0


@pytest.mark.parametrize("options", [["--model", "abmil", "--input", "wsi"], ["--input", "wsi", "--model", "abmil"]])
def test_the_order_of_options_makes_no_difference(mmsurv, data, tmp_path, options) -> None:
    code, _, err = mmsurv("train", *options, *data, "-o", tmp_path / "run")
    assert code == 0, err


def test_a_column_of_numbers_with_a_stray_word_is_read_as_text_and_said(mmsurv, data, tmp_path, caplog) -> None:
    rows = pd.read_csv(data[1])
    rows["age"] = rows["age"].astype(object)
    rows.loc[rows["case_id"] == "case-03", "age"] = "old"
    rows.to_csv(data[1], index=False)
    code, _, err = mmsurv("train", "--model", "clinical", "--clinical-variable", "age", *data, "-o", tmp_path / "run")
    assert "column 'age': 'old' is no number, and 39 other cells are" in caplog.text
    assert (code, "'age' varies among the 28 training patients (levels of fewer than 5 are one)" in err) == (1, True)


def test_inputs_say_what_a_model_looks_at(mmsurv, data, tmp_path) -> None:
    options = ["--model", "abmil", "--input", "wsi", "--input", "rna"]
    assert mmsurv("train", *options, *data, "-o", tmp_path / "run")[0] == 0
    assert set(runs.read_run(tmp_path / "run").metrics["floors"]) == {"wsi", "rna", "late"}


def test_the_loss_is_chosen_by_name(mmsurv, data, tmp_path) -> None:
    assert mmsurv("train", "--model", "rna", "--loss", "nll", *data, "-o", tmp_path / "run")[0] == 0
    run = runs.read_run(tmp_path / "run")
    assert run.predictions.cases["risk"].between(-4, 0).all()  # minus a sum of survival over four intervals


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "abmil", "--input", "rna"], 2, "--input: model.inputs must have wsi for the model abmil"),
        (["--model", "patch-gcn", "--bag-size", 5], 2, "the model patch-gcn needs bags.size = 0"),
        (["--model", "clinical"], 2, "looks at clinical variables, and none are named: add --clinical-variable COLUMN"),
        (["--model", "co-attention"], 2, "the model co-attention needs gene sets: name a GMT file, --gene-sets"),
        (["--clinical-variable", "agee"], 1, "no column 'agee', which --clinical-column, --clinical-variable or"),
        (["--clinical-variable", "survival_months"], 1, "'survival_months' is the time to the event, and no clinical"),
        (["--clinical-variable", "vital_status"], 1, "column 'vital_status' is the event, and no clinical variable"),
        (["--clinical-variable", "case_id"], 1, "column 'case_id' is the case id, and no clinical variable"),
        (["--model", "late", "--loss", "nll"], 2, "the model late is a Cox regression"),
        (["--clinical-variable", "survival_days"], 1, "column 'survival_days' is by its name an outcome, and no"),
        (["--clinical-variable", "OS.time"], 1, "column 'OS.time' is by its name an outcome, and no clinical"),
        (["--clinical-variable", "weeks"], 1, "column 'weeks' is in the order of the time to the event in every case"),
        (["--clinical-variable", "alive"], 1, "column 'alive' is the same as the event in every case"),
        (["--clinical-variable", "state"], 1, "column 'state' is the same as the event in every case"),
        (["--clinical-variable", "time"], 2, "--clinical-variable: clinical.columns cannot name 'time'"),
        (["--clinical-variable", "age"] * 2, 2, "--clinical-variable: clinical.columns names 'age' more than once"),
        (["--stratum", "time"], 2, "--stratum: evaluate.stratum cannot name 'time'"),
        (["--stratum", "agee"], 1, "no column 'agee', which --clinical-column, --clinical-variable or --stratum names"),
        (["--gene-sets", "clinical.csv"], 2, "--gene-sets: the model cross-attention takes no gene sets"),
        (["--model", "co-attention", "--gene-sets", "clinical.csv"], 1, "Is it a GMT file?"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(mmsurv, data, tmp_path, options, code, message) -> None:
    options = [data[1] if option == "clinical.csv" else option for option in options]
    found, _, err = mmsurv("train", *options, *data, "-o", tmp_path / "run")
    assert (found, message in err) == (code, True), err
