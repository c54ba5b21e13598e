"""Real glioma patients (survival, RNA), made-up tile features: import, train all four models, evaluate, report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsurv.cli import main
from mmsurv.store import open_store
from mmsurv_train import metrics
from mmsurv_train import run as runs

MODELS = ("cross-attention", "joint", "wsi-mean", "rna")
RECIPE = '[fit]\nepochs = 8\ndevice = "cpu"\n[evaluate]\nn_bootstrap = 200\n'


def mmsurv(*arguments: object) -> int:
    with pytest.raises(SystemExit, match=r"\d") as stop:
        main([str(argument) for argument in arguments])
    return int(str(stop.value.code))


@pytest.fixture(scope="module")
def glioma(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables, the store of semisynthetic features and the runs of all models on fold 0."""
    folder = tmp_path_factory.mktemp("glioma")
    for name in ("cohort.csv", "rna.csv.gz", "folds.csv"):
        shutil.copy(shared_data / "gbmlgg" / name, folder / name)
    script = [sys.executable, str(shared_data / "semisynthetic.py"), str(folder / "features")]
    subprocess.run([*script, "--tiles", "32", "--dim", "32"], check=True, capture_output=True)
    (folder / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert mmsurv("store", "import", folder / "features", "-o", folder / "store", "--encoder", "semisynthetic") == 0
        tables = ["--clinical", folder / "cohort.csv", "--rna", folder / "rna.csv.gz"]
        folds = ["--folds", folder / "folds.csv", "--fold", 0]
        for model in MODELS:
            options = ["--recipe", folder / "recipe.toml", "--model", model, "--store", folder / "store"]
            assert mmsurv("train", *options, *tables, *folds, "-o", folder / "runs" / model) == 0
        shutil.rmtree(folder / "features")
        yield folder


@pytest.fixture(params=MODELS)
def run(glioma: Path, request: pytest.FixtureRequest) -> runs.Run:
    return runs.read_run(glioma / "runs" / request.param)


def test_every_patient_and_slide_is_scored_in_the_part_of_the_published_fold(run: runs.Run) -> None:
    parts = run.metrics["parts"]
    counts = {part: (parts[part]["wsi"]["n"], parts[part]["case"]["n"]) for part in parts}
    assert sum(slides for slides, _ in counts.values()) == 1011
    assert sum(cases for _, cases in counts.values()) == 569
    assert sum(parts[part]["case"]["events"] for part in parts) == 187
    assert counts["test"] == (178, 114)
    assert counts["validation"][1] == 57  # an eighth of the others


def test_evaluate_gives_identical_numbers_without_the_feature_files(run: runs.Run, capsys) -> None:
    assert mmsurv("evaluate", run.path) == 0
    assert "Computed again: identical" in capsys.readouterr().out


def test_intervals_at_wsi_level_are_wider_than_those_of_independent_slides(glioma: Path) -> None:
    run = runs.read_run(glioma / "runs" / "rna")
    slides = run.predictions.part("train").slides
    columns = (slides["risk"], slides["time"], slides["event"])
    found = run.metrics["parts"]["train"]["wsi"]["c_index"]
    naive = metrics.bootstrap_c_index(*columns, slides["slide_id"], n_resamples=200, seed=0)
    low, high = np.quantile(naive, [0.025, 0.975])
    assert found["high"] - found["low"] > 1.3 * (high - low)


def test_models_with_rna_learn_and_separate_risk_groups(glioma: Path) -> None:
    for model in ("cross-attention", "joint", "rna"):
        case = runs.read_run(glioma / "runs" / model).metrics["parts"]["test"]["case"]
        assert case["c_index"]["value"] > 0.75, model
        assert case["c_index_ipcw"]["value"] > 0.7, model
        assert case["risk_groups"]["log_rank"]["p"] < 1e-4, model
        assert case["risk_groups"]["events_high"] > 2 * case["risk_groups"]["events_low"], model


def test_evaluate_detects_a_flipped_byte_of_the_store(glioma: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(glioma / "store", tmp_path / "store")
    store = open_store(tmp_path / "store")
    slide_id = store.slide_ids()[500]
    path = store.record_path(slide_id)
    extent = store.read_extent(path)
    assert extent is not None
    data = bytearray(path.read_bytes())
    data[extent.offset + 11] ^= 0x10
    path.write_bytes(data)
    assert mmsurv("evaluate", glioma / "runs" / "joint", "--store", tmp_path / "store") == 1
    assert f"{slide_id}.h5: the features are not the bytes that were written" in capsys.readouterr().err


def test_evaluate_detects_a_changed_clinical_table(glioma: Path, tmp_path: Path, capsys) -> None:
    text = (glioma / "cohort.csv").read_text()
    assert text.count(",14.72,1,") > 0
    (tmp_path / "cohort.csv").write_text(text.replace(",14.72,1,", ",14.73,1,"))
    assert mmsurv("evaluate", glioma / "runs" / "rna", "--clinical", tmp_path / "cohort.csv") == 1
    assert "the clinical table is not the one the run was made from" in capsys.readouterr().err


def test_evaluate_detects_a_flipped_bit_of_the_weights(glioma: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(glioma / "runs" / "joint", tmp_path / "run")
    path = tmp_path / "run" / runs.MODEL
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x40  # an exponent bit of the last weight
    path.write_bytes(data)
    assert mmsurv("evaluate", tmp_path / "run", "--json") == 1
    assert json.loads(capsys.readouterr().out)["identical"] is False


def test_the_report_shows_all_four(glioma: Path, tmp_path: Path) -> None:
    note = "The tile features are made up; survival and RNA are real."
    page = tmp_path / "report.html"
    assert mmsurv("report", *(glioma / "runs" / model for model in MODELS), "-o", page, "--note", note) == 0
    html = page.read_text()
    assert note in html
    assert all(f"Kaplan–Meier curves, {model}" in html for model in MODELS)
