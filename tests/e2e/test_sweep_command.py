"""``mmsurv sweep`` as typed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from mmsurv_train.run import read_run
from mmsurv_train.sweep.cli import sweep

RECIPE = """
[model]
name = "joint"
rna_widths = [4]
[bags]
size = 2
at_prediction = "size"
[fit]
epochs = 3
n_seeds = 2
device = "cpu"
[evaluate]
n_bootstrap = 20
[grid]
"fit.learning_rate" = [0.001, 0.01]
[sweep]
at_prediction = ["size", "all"]
"""
NAMES = ["learning_rate=0.001", "learning_rate=0.01"]
WRITTEN = ("table.csv", "table.md")

KILLED = """
import os, pkgutil, signal, sys
from functools import partial
from mmsurv_train import unfinished
from mmsurv_train.sweep.cli import sweep

place, name, calls, *arguments = sys.argv[1:]
unfinished.Checkpoint = partial(unfinished.Checkpoint, every_seconds=0.0)
owner = pkgutil.resolve_name(place)
kept, left = getattr(owner, name), int(calls)

def deadly(*args, **kwargs):
    global left
    result, left = kept(*args, **kwargs), left - 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, deadly)
sweep(arguments)
"""
"""A process that kills itself after some calls of a function."""


@pytest.fixture(scope="module")
def data(study: Path) -> list[str]:
    """The options that name the data."""
    tables = ["--clinical", study / "clinical.csv", "--rna", study / "rna.csv", "--store", study / "store"]
    return [str(option) for option in tables]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "mine.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(sweep, [str(argument) for argument in arguments], catch_exceptions=True)
    found = getattr(result.exception, "exit_code", result.exit_code)
    assert (found if isinstance(found, int) else result.exit_code) == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def finished(recipe: str, data: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A sweep over two folds that was never interrupted, and what it printed."""
    out = tmp_path_factory.mktemp("finished") / "sweep"
    return out, call(recipe, *data, "--folds", 2, "-o", out)


def test_the_table_has_a_row_for_each_configuration_and_evaluation(finished) -> None:
    out, result = finished
    table = pd.read_csv(out / "table.csv")
    assert list(zip(table["configuration"], table["evaluated_with"], strict=True)) == [
        (name, at) for name in NAMES for at in ("size", "all")
    ]
    assert table["status"].eq("complete").all()
    numbers = ["wsi_mean", "wsi_sd", "case_mean", "case_sd", "case_low", "case_high", "case_ensemble", "case_folds_sd"]
    assert table[numbers].notna().all(axis=None)
    assert table[["seeds", "folds"]].drop_duplicates().to_numpy().tolist() == [[2, 2]]
    assert (out / "table.md").read_text() in result.output
    assert "2 configurations × 2 folds × 2 seeds: 8 networks" in result.output
    assert f"Sweep: {out}" in result.output


def test_every_configuration_is_a_run_whose_numbers_are_the_tables(finished) -> None:
    out, _ = finished
    table = pd.read_csv(out / "table.csv", float_precision="round_trip").query("evaluated_with == 'size'")
    for name, row in table.set_index("configuration").iterrows():
        metrics = read_run(out / "runs" / str(name)).metrics
        assert row["case_mean"] == metrics["seeds"]["case"]["mean"]
        assert row["wsi_ensemble"] == metrics["parts"]["out-of-fold"]["wsi"]["c_index"]["value"]


def test_the_second_evaluation_is_of_the_same_networks_with_other_bags(finished) -> None:
    out, _ = finished
    table = pd.read_csv(out / "table.csv", float_precision="round_trip")
    for name in NAMES:
        other = json.loads((out / "evaluations" / f"{name},at_prediction=all" / "metrics.json").read_text())
        rows = table[table["configuration"] == name].set_index("evaluated_with")
        assert rows.loc["all", "case_mean"] == other["seeds"]["case"]["mean"]
    alone = pd.read_csv(out / "runs" / NAMES[0] / "case_predictions.csv")
    again = pd.read_csv(out / "evaluations" / f"{NAMES[0]},at_prediction=all" / "case_predictions.csv")
    assert alone["case_id"].tolist() == again["case_id"].tolist()
    assert (alone["risk"] != again["risk"]).any()


def test_the_same_command_again_trains_nothing_and_leaves_the_bytes(finished, recipe, data, monkeypatch) -> None:
    from mmsurv_train import fit

    out, _ = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(fit, "fit_many", None)
    call(recipe, *data, "--folds", 2, "-o", out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("place", "name", "calls"),
    [
        ("mmsurv_train.sweep.identity", "settle", 1),
        ("mmsurv_train.watching:Watch", "on_epoch", 7),
        ("mmsurv_train.writing", "write_run", 1),
        ("mmsurv_train.sweep.rescore", "_write", 1),
        ("mmsurv_train.sweep.execute", "publish_bytes", 1),
    ],
)
def test_a_killed_sweep_goes_on_to_the_same_bytes(finished, recipe, data, tmp_path, place, name, calls) -> None:
    arguments = [recipe, *data, "--folds", "2", "-o", str(tmp_path / "sweep")]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, place, name, str(calls), *arguments], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "sweep" / "table.md").exists()
    call(*arguments)
    for written in WRITTEN:
        assert (tmp_path / "sweep" / written).read_bytes() == (finished[0] / written).read_bytes()
    assert not list((tmp_path / "sweep").rglob("*.checkpoint*"))


def test_a_missing_run_is_trained_again_and_complete_ones_are_kept(finished, recipe, data, tmp_path) -> None:
    out = tmp_path / "sweep"
    shutil.copytree(finished[0], out)
    before = read_run(out / "runs" / NAMES[1]).metrics
    shutil.rmtree(out / "runs" / NAMES[1])
    kept = (out / "runs" / NAMES[0] / "provenance.json").stat().st_mtime_ns
    call(recipe, *data, "--folds", 2, "-o", out)
    assert (out / "runs" / NAMES[0] / "provenance.json").stat().st_mtime_ns == kept
    again = read_run(out / "runs" / NAMES[1]).metrics
    for level in ("wsi", "case"):
        assert again["seeds"][level]["values"] == pytest.approx(before["seeds"][level]["values"], abs=0.02)
        parts = [metrics["parts"]["out-of-fold"][level]["c_index"]["value"] for metrics in (again, before)]
        assert parts[0] == pytest.approx(parts[1], abs=0.02)


def test_another_plan_in_the_folder_is_refused_field_by_field(finished, recipe, data) -> None:
    result = call(recipe, *data, "--folds", 3, "--epochs", 4, "-o", finished[0], code=1)
    assert "asked.settings.fit.epochs" in str(result.exception)
    assert "asked.settings.split.n_folds" in str(result.exception)


def test_a_configuration_that_fails_is_a_row_and_the_others_stay(data, tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace("[0.001, 0.01]", "[0.001, 1e30]"), encoding="utf-8")
    for _ in range(2):
        result = call(path, *data, "-o", tmp_path / "sweep", code=1)
        table = pd.read_csv(tmp_path / "sweep" / "table.csv")
        assert table["status"].tolist() == ["complete", "complete", "failed", "failed"]
        assert table["case_mean"].notna().tolist() == [True, True, False, False]
        assert "finite" in table["reason"].iloc[-1]
        assert "Failed:\n- learning_rate=1e+30: " in result.output


def test_json_has_the_whole_table(finished, recipe, data) -> None:
    result = call(recipe, *data, "--folds", 2, "--json", "-o", finished[0])
    found = json.loads(result.stdout)
    assert [row["configuration"] for row in found["table"]] == [name for name in NAMES for _ in range(2)]
    assert found["table"][0]["case_mean"] == pd.read_csv(finished[0] / "table.csv")["case_mean"][0]
    assert (found["failed"], found["table"][0]["reason"]) == ({}, None)


def test_a_dry_run_prints_the_plan_and_writes_nothing(finished, recipe, data, tmp_path) -> None:
    result = call("table1", *data, "--folds", 5, "--seeds", 4, "--dry-run", "-o", tmp_path / "sweep")
    assert "4 configurations × 5 folds × 4 seeds: 80 networks" in result.output
    assert "0 of 4 complete" in result.output
    assert not (tmp_path / "sweep").exists()
    there = call(recipe, *data, "--folds", 2, "--dry-run", "--json", "-o", finished[0])
    assert json.loads(there.stdout) == {"configurations": NAMES, "folds": 2, "networks": 8, "missing": []}


@pytest.mark.parametrize(
    ("name", "head"), [("table1", "joint"), ("table2", "cross-attention")]
)  # fmt: skip
def test_the_papers_tables_are_of_its_form_and_its_figures_stand_apart(name, head, data, tmp_path) -> None:
    quick = ["--epochs", 1, "--seeds", 2, "--bootstrap", 10, "--device", "cpu"]
    result = call(name, *data, *quick, "-o", tmp_path / "sweep")
    lines = (tmp_path / "sweep" / "table.md").read_text().splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "model", "batch", "bag", "dropout", "lr", "C-index (WSI)", "C-index (case)",
    ]  # fmt: skip
    assert lines[2].split("|")[1].strip() == head
    assert "±" in lines[2]
    published = (tmp_path / "sweep" / "published.md").read_text()
    figure = {"table1": "0.659", "table2": "0.5806"}[name]
    assert figure in published
    assert "Not computed here" in published
    assert figure not in result.output
    assert figure not in (tmp_path / "sweep" / "table.csv").read_text()


def test_bags_of_many_sizes_are_evaluated_on_all_tiles_in_one_read_and_drawn(data, tmp_path, monkeypatch) -> None:
    from mmsurv_train import predict

    asked: list[int] = []
    many = predict.predict_many

    def counted(members, *arguments):
        asked.append(len(members))
        return many(members, *arguments)

    monkeypatch.setattr(predict, "predict_many", counted)
    path = tmp_path / "sizes.toml"
    path.write_text(RECIPE.replace('"fit.learning_rate" = [0.001, 0.01]', '"bags.size" = [2, 3, 0]'), encoding="utf-8")
    call(path, *data, "-o", tmp_path / "sweep")
    assert asked == [1, 1, 1, 2]  # each size as it was trained, then both small ones with all tiles
    script = Path(__file__).parents[2] / "docs" / "make_bag_size_figure.py"
    drawn = subprocess.run(
        [sys.executable, script, tmp_path / "sweep", "-o", tmp_path / "f.png", "--note", "planted"],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    rows = [line.split("|")[1].strip() for line in drawn.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["bag", "2", "3", "all"]
    assert "nan" not in drawn.stdout
    assert "–: needs at least 5 epochs, and there are 3" in drawn.stdout
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_other_gene_sets_under_the_same_name_are_another_sweep(data, tmp_path) -> None:
    sets = tmp_path / "sets.gmt"
    sets.write_text("one\t-\tA\tB\n")
    model = '[model]\nname = "co-attention"\ndim = 4\nleast_genes = 1\n'
    rest = '[fit]\nepochs = 1\ndevice = "cpu"\n[evaluate]\nn_bootstrap = 0\n[grid]\n"fit.learning_rate" = [0.001, 0.01]'
    (tmp_path / "mine.toml").write_text(model + rest)
    asked = [tmp_path / "mine.toml", *data, "--gene-sets", sets, "-o", tmp_path / "sweep"]
    call(*asked)
    call(*asked)
    sets.write_text("one\t-\tA\tC\n")
    assert "data.gene_sets" in str(call(*asked, code=1).exception)


def test_gene_sets_for_models_without_are_refused(recipe, data, tmp_path) -> None:
    (tmp_path / "sets.gmt").write_text("one\t-\tA\tB\n")
    found = call(recipe, *data, "--gene-sets", tmp_path / "sets.gmt", "-o", tmp_path / "sweep", code=2)
    assert "--gene-sets: the model joint takes no gene sets" in found.output
