"""``mmsurv train``, ``mmsurv evaluate`` and ``mmsurv report`` as typed."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmsurv.cli import cli, main
from mmsurv.store import open_store
from mmsurv_train import run as runs

RECIPE = """
[model]
name = "joint"
[fit]
epochs = 3
device = "cpu"
[split]
fractions = [0.6, 0.2, 0.2]
[evaluate]
n_bootstrap = 20
"""


@pytest.fixture
def mmsurv(capsys: pytest.CaptureFixture[str]):
    """Run the command line; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"\d") as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(str(stop.value.code)), out, err

    return run


@pytest.fixture
def data(study: Path, tmp_path: Path) -> list[object]:
    """The options that name recipe and data."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    tables = ["--clinical", study / "clinical.csv", "--rna", study / "rna.csv"]
    return ["--recipe", tmp_path / "recipe.toml", "--store", study / "store", *tables]


def test_train_prints_a_table_of_every_part_and_the_runs_place(mmsurv, data, tmp_path) -> None:
    code, out, err = mmsurv("train", *data, "-o", tmp_path / "run")
    assert code == 0
    assert "joint: 37 cases" in err
    lines = out.splitlines()
    assert lines[0].split() == ["part", "level", "C-index", "interval", "Uno's", "C-index", "interval", "n", "events"]
    assert [line.split()[:2] for line in lines[1:7]] == [
        [part, level] for part in ("train", "validation", "test") for level in ("WSI", "case")
    ]
    assert lines[-1] == f"Run: {tmp_path / 'run'}"
    assert "percentile bootstrap over patients, 20 draws" in out


def test_train_names_the_cases_and_slides_it_does_not_use(study, tmp_path) -> None:
    clinical = pd.read_csv(study / "clinical.csv")
    rna = pd.read_csv(study / "rna.csv").iloc[1:]  # case-02 as well, so three cases have none
    rna.to_csv(tmp_path / "rna.csv", index=False)
    shutil.copytree(study / "store", tmp_path / "store")
    store, lost = open_store(tmp_path / "store"), ["slide-20", "slide-21"]  # the only slides of two cases
    for slide_id in lost:
        store.record_path(slide_id).unlink()
    owners = clinical.loc[clinical["slide_id"].isin(lost), "case_id"].tolist()
    (tmp_path / "recipe.toml").write_text(RECIPE)
    tables = ["--clinical", study / "clinical.csv", "--rna", tmp_path / "rna.csv", "--store", tmp_path / "store"]
    arguments = ["train", "--recipe", tmp_path / "recipe.toml", *tables, "-o", tmp_path / "run"]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "  slides not in the store: 2 (slide-20, slide-21)" in result.stderr
    assert "  cases without RNA: 3 (case-00, case-01, case-02)" in result.stderr
    assert "left out  3 of 40 cases, not used for joint: no RNA (case-00, case-01, case-02)" in result.stderr
    without = f"no slide in the store ({', '.join([*owners, 'case-39'])})"
    assert f"left out  3 of 40 cases, not used for joint: {without}" in result.stderr
    assert "joint: 34 cases" in result.stderr
    left_out = runs.read_run(tmp_path / "run").provenance["left_out"]
    assert left_out["RNA"] == ["case-00", "case-01", "case-02"]


def test_train_says_when_nothing_is_left_out(mmsurv, data, study, tmp_path) -> None:
    clinical = pd.read_csv(study / "clinical.csv")
    clinical[~clinical["case_id"].isin(["case-00", "case-01", "case-39"])].to_csv(tmp_path / "whole.csv", index=False)
    code, _, err = mmsurv("train", *data, "--clinical", tmp_path / "whole.csv", "-o", tmp_path / "run")
    assert code == 0
    assert "left out" not in err


def test_train_shows_the_reading_of_the_store(mmsurv, data, tmp_path, monkeypatch) -> None:
    from mmsurv import progress

    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    code, _, err = mmsurv("train", *data, "-o", tmp_path / "run")
    assert code == 0
    reading = [line for line in err.splitlines() if line.startswith("Reading features: ")]
    assert reading[0].startswith("Reading features: 1 of 53 slides")
    assert err.index("Reading features") < err.index("joint: 37 cases") < err.index("Training: ")


def test_a_run_has_exactly_its_files_and_says_how_it_was_made(mmsurv, data, study, tmp_path) -> None:
    mmsurv("train", *data, "--epochs", 2, "--seed", 5, "--data-seed", 7, "-o", tmp_path / "run")
    run = runs.read_run(tmp_path / "run")
    assert sorted(path.name for path in run.path.iterdir()) == sorted(
        (*runs.FILES[runs.RUN], runs.FLOOR_PREDICTIONS, runs.FLOORS)
    )
    assert run.config["recipe"]["fit"] == {**run.config["recipe"]["fit"], "epochs": 2, "seed": 5, "data_seed": 7}
    assert run.config["cohort"]["clinical"] == str(study / "clinical.csv")
    command = run.provenance["command"]
    assert command.startswith("mmsurv train --recipe ")
    assert "--epochs 2" in command
    assert "--seed 5" in command
    assert "--learning-rate" not in command
    assert len(run.history) <= 2
    assert not [path for path in run.path.iterdir() if path.suffix in {".pkl", ".pt", ".pth"}]


def test_the_same_seed_gives_identical_bytes_in_another_process(mmsurv, data, tmp_path) -> None:
    mmsurv("train", *data, "-o", tmp_path / "here")
    command = [sys.executable, "-m", "mmsurv", "train", *map(str, data), "-o", str(tmp_path / "there")]
    subprocess.run(command, check=True, capture_output=True)
    for name in (runs.PREDICTIONS, runs.CASE_PREDICTIONS, runs.METRICS, runs.MODEL, runs.PREPROCESS, runs.HISTORY):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


def test_evaluate_says_identical_and_leaves_with_zero(mmsurv, data, tmp_path, monkeypatch) -> None:
    mmsurv("train", *data, "--folds", 3, "-o", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    code, out, _ = mmsurv("evaluate", "run")
    assert code == 0
    assert "mean ± sd of the folds, case:" in out
    assert out.splitlines()[-1] == "Computed again: identical to the predictions and metrics of run"
    code, out, _ = mmsurv("evaluate", "run", "--json")
    assert (code, json.loads(out)["identical"]) == (0, True)


def test_evaluate_lists_what_differs_and_leaves_with_one(mmsurv, data, tmp_path) -> None:
    mmsurv("train", *data, "-o", tmp_path / "run")
    path = tmp_path / "run" / runs.CASE_PREDICTIONS
    cases = runs.read_csv(path)
    cases.loc[0, "risk"] += 1
    runs.write_csv(path, cases)
    code, out, _ = mmsurv("evaluate", tmp_path / "run")
    assert code == 1
    assert f"case_predictions.csv: risk of {cases['case_id'][0]}: saved" in out
    assert "Computed again: DIFFERENT from" in out


def test_evaluate_refuses_what_is_no_run(mmsurv, tmp_path) -> None:
    code, _, err = mmsurv("evaluate", tmp_path / "nothing")
    assert code == 1
    assert "RunError" in err
    assert "is not a folder" in err


def test_json_holds_the_metrics_and_nothing_else(mmsurv, data, tmp_path) -> None:
    code, out, _ = mmsurv("train", *data, "--json", "-o", tmp_path / "run")
    assert code == 0
    assert json.loads(out)["metrics"] == runs.read_run(tmp_path / "run").metrics


def test_a_run_is_not_overwritten(mmsurv, data, tmp_path) -> None:
    mmsurv("train", *data, "-o", tmp_path / "run")
    code, _, err = mmsurv("train", *data, "-o", tmp_path / "run")
    assert code == 1
    assert "already holds a run" in err


@pytest.mark.parametrize("model", ["cross-attention", "joint", "rna"])
def test_a_model_that_needs_rna_without_rna_is_a_usage_error(mmsurv, study, tmp_path, model) -> None:
    arguments = ["--store", study / "store", "--clinical", study / "clinical.csv", "-o", tmp_path / "run"]
    (tmp_path / "recipe.toml").write_text(RECIPE)
    code, _, err = mmsurv("train", "--recipe", tmp_path / "recipe.toml", "--model", model, *arguments)
    assert code == 2
    assert f"the model '{model}' needs RNA" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "nowhere.csv"], "'nowhere.csv' is neither a number of folds nor a file of them"),
        (["--folds", 1], "1 is not in the range x>=2"),
        (["--fold", 1], "--fold needs --folds"),
        (["--folds", 3, "--fold", 3], "fold 3 does not exist"),
        (["--learning-rate", -1], "fit.learning_rate must be above 0"),
        (["--device", "mps"], "--device: fit.device must be auto, cpu, cuda or cuda:N, not 'mps'"),
        (["--device", "meta"], "fit.device must be auto"),
        (["--seed", 2**63], "--seed: fit.seed must be from 0 to"),
        (["--seeds", 0], "'--seeds': 0 is not in the range x>=1"),
        (["--seed", 2**63 - 1, "--seeds", 2], "is too high for 2 seeds"),
        (["--data-seed", 2**63], "--data-seed: fit.data_seed must be from 0 to"),
        (["--memory", 0], "'--memory': 0.0 is not in the range x>0"),
        (["--split-seed", 2**64], "--split-seed: split.seed must be from 0 to"),
        (["--bootstrap", 10**9], "evaluate.n_bootstrap must be from 0 to 100000"),
        (["--model", "transformer"], "'transformer' is not one of"),
        (["--recipe", "no-such"], "'no-such' is neither a file nor a shipped recipe"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(mmsurv, data, study, tmp_path, options, message) -> None:
    options = [study / "clinical.csv" if option == "clinical" else option for option in options]
    code, _, err = mmsurv("train", *data, *options, "-o", tmp_path / "run")
    assert code == 2
    assert message in err


def test_a_place_that_cannot_be_is_refused_before_the_data_are_read(mmsurv, data, tmp_path, monkeypatch) -> None:
    from mmsurv_train import inputs

    monkeypatch.setattr(inputs, "join_tables", lambda *_, **__: pytest.fail("the data were read"))
    (tmp_path / "afile").write_text("")
    code, _, err = mmsurv("train", *data, "-o", tmp_path / "afile" / "sub")
    assert code == 1
    assert err.startswith("RunError: ")
    assert "name another place with -o" in err


def test_a_disk_that_is_full_at_the_end_is_an_error_and_leaves_nothing(mmsurv, data, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = mmsurv("train", *data, "-o", tmp_path / "run")
    assert code == 1
    assert "RunError: " in err
    assert "No space left on device" in err
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".run.partial*"))


def test_folds_of_a_file_are_trained_and_pooled(mmsurv, data, study, tmp_path) -> None:
    rows = [f"case-{i:02d},{i % 3}" for i in range(40)]
    (tmp_path / "folds.csv").write_text("\n".join(["case_id,fold", *rows]) + "\n")
    code, out, _ = mmsurv("train", *data, "--folds", tmp_path / "folds.csv", "-o", tmp_path / "run")
    assert code == 0
    assert out.splitlines()[1].startswith("out-of-fold  WSI")
    run = runs.read_run(tmp_path / "run")
    assert [fold.name for fold in run.folds()] == ["fold-0", "fold-1", "fold-2"]
    assert (run.predictions.cases["fold"] == run.predictions.cases["case_id"].str[-2:].astype(int) % 3).all()


def test_seeds_and_folds_are_shown_beside_their_ensemble(mmsurv, data, tmp_path) -> None:
    code, out, _ = mmsurv("train", *data, "--folds", 3, "--seeds", 2, "--seed", 4, "-o", tmp_path / "run")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["out-of-fold", "WSI"], ["out-of-fold", "case"]]
    alone = runs.read_run(tmp_path / "run").metrics["seeds"]
    assert alone["seeds"] == [4, 5]
    case = alone["case"]
    said = f"{case['mean']:.3f} ± {case['sd']:.3f}, interval of the mean {case['low']:.3f} to {case['high']:.3f}"
    assert f"mean ± sd of the 2 seeds alone, case: {said}" in lines
    assert "The table is of their ensemble: the mean risk of seeds 4 to 5." in lines
    assert mmsurv("evaluate", tmp_path / "run")[1].splitlines()[:-1] == lines[:-1]
    page = tmp_path / "report.html"
    mmsurv("report", tmp_path / "run", "-o", page)
    assert f"{case['mean']:.3f} ± {case['sd']:.3f}" in page.read_text()


def test_groups_of_patients_are_measured_apart_and_computed_again(mmsurv, study, tmp_path) -> None:
    rows = pd.read_csv(study / "clinical.csv")
    number = rows["case_id"].str[-2:].astype(int)
    rows["oncotree_code"], rows["side"] = np.where(number % 2, "GBM", "ODG"), np.where(number % 3, "left", "right")
    rows["age"] = 30 + number
    rows.to_csv(tmp_path / "clinical.csv", index=False)
    (tmp_path / "recipe.toml").write_text(RECIPE.replace('"joint"', '"rna"'))
    data = ["--recipe", tmp_path / "recipe.toml", "--clinical", tmp_path / "clinical.csv", "--rna", study / "rna.csv"]
    code, out, _ = mmsurv("train", *data, "--folds", 2, "--stratum", "side", "-o", tmp_path / "run")
    assert code == 0
    strata = [line.split()[:2] for line in out.splitlines() if line.startswith(("oncotree_code ", "side "))]
    assert strata[:4] == [["oncotree_code", "GBM"], ["oncotree_code", "LGG"], ["side", "left"], ["side", "right"]]
    assert "identical to" in mmsurv("evaluate", tmp_path / "run")[1]
    found = runs.read_run(tmp_path / "run")
    assert [one["by"] for one in found.metrics["strata"]] == ["GBM and LGG", "values"]
    assert "side" not in found.predictions.cases
    code, _, err = mmsurv("train", *data, "--stratum", "age", "-o", tmp_path / "other")
    assert code == 1
    assert "'age' has 38 values, and strata are at most 12" in err
    code, _, err = mmsurv("train", *data, "--stratum", "sid", "-o", tmp_path / "other")
    assert "Did you mean 'side'" in err


def test_a_store_larger_than_the_memory_gives_the_same_bytes(mmsurv, data, tmp_path) -> None:
    model = ["--model", "cross-attention", "--seeds", 2]
    mmsurv("train", *data, *model, "-o", tmp_path / "whole")
    code, _, _ = mmsurv("train", *data, *model, "--memory", 2e-6, "-o", tmp_path / "streamed")  # 2000 of 5088 bytes
    assert code == 0
    whole, streamed = (runs.read_run(tmp_path / name) for name in ("whole", "streamed"))
    assert (whole.provenance["features"]["reading"], whole.provenance["features"]["memory"]) == ("mapped", None)
    assert (streamed.provenance["features"]["reading"], streamed.provenance["features"]["memory"]) == ("streamed", 2000)
    for name in (runs.PREDICTIONS, runs.CASE_PREDICTIONS, runs.METRICS, runs.MODEL, runs.HISTORY):
        assert (whole.path / name).read_bytes() == (streamed.path / name).read_bytes(), name


def test_a_memory_that_cannot_hold_one_bag_is_a_usage_error(mmsurv, data, tmp_path) -> None:
    options = ["--model", "cross-attention", "--memory", 1e-7, "-o", tmp_path / "run"]
    code, _, err = mmsurv("train", *data, *options)
    assert code == 2
    assert "slide-" in err
    assert "memory" in err
    assert not list(tmp_path.glob("*run*"))


def test_report_of_several_runs_is_one_page(mmsurv, data, tmp_path) -> None:
    for model in ("joint", "rna"):
        mmsurv("train", *data, "--model", model, "--complete-cases", "-o", tmp_path / model)
    page = tmp_path / "out" / "report.html"
    code, out, _ = mmsurv("report", tmp_path / "joint", tmp_path / "rna", "-o", page, "--note", "made up & <small>")
    assert code == 0
    assert out == f"Report: {page}\n"
    assert "made up &amp; &lt;small&gt;" in page.read_text()


def test_training_refuses_a_record_with_a_flipped_bit_and_writes_no_run(mmsurv, study, tmp_path) -> None:
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    store = open_store(tmp_path / "study" / "store")
    path = store.record_path("slide-07")
    extent = store.read_extent(path)
    assert extent is not None
    content = bytearray(path.read_bytes())
    content[extent.offset] ^= 1
    path.write_bytes(content)
    tables = ["--clinical", tmp_path / "study" / "clinical.csv", "--rna", tmp_path / "study" / "rna.csv"]
    options = ["--recipe", tmp_path / "recipe.toml", "--store", store.path, *tables, "-o", tmp_path / "run"]
    code, _, err = mmsurv("train", *options)
    assert code == 1
    assert "CorruptRecordError" in err
    assert "slide-07.h5: the features are not the bytes that were written" in err
    assert not (tmp_path / "run").exists()
