"""Training recipes: shipped ones, rows, and settings that cannot be."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mmsurv.config import dump_toml, from_table, load_toml, recipe_names, to_table
from mmsurv.errors import ConfigError
from mmsurv_train.cli import train
from mmsurv_train.modalities import MODELS
from mmsurv_train.options import recipe_of, train_recipe_names
from mmsurv_train.recipe import (
    RECIPES,
    BagSettings,
    ClinicalSettings,
    EvaluateSettings,
    FitSettings,
    ModelSettings,
    RnaSettings,
    SplitSettings,
    TrainRecipe,
    load_train_recipe,
)

TABLE2 = {
    "batch128-bag32-lr0.001": (128, 32, 1e-3),
    "batch256-bag16-lr0.001": (256, 16, 1e-3),
    "batch128-bag32-lr0.01": (128, 32, 1e-2),
}


def test_the_shipped_recipes():
    assert {*MODELS, "bag-size", "default", "table1", "table2"} - {"cross-attention"} == set(recipe_names(RECIPES))


def test_the_help_of_train_names_the_shipped_recipes_it_takes():
    names = train_recipe_names()
    assert {"default", "table1", "table2"} < set(names)
    said = "".join(CliRunner().invoke(train, ["--help"]).output.split())  # names are broken at their hyphens
    assert f"({','.join(names)})" in said
    for name in set(recipe_names(RECIPES)) - set(names):
        with pytest.raises(ConfigError, match="has a grid, so it is many settings: train them all with mmsurv sweep"):
            load_train_recipe(name)


@pytest.mark.parametrize(
    ("table", "message"),
    [("grids", r"unknown key 'grids'\. Did you mean 'grid'"), ("publish", "Did you mean 'published'"),
     ("zzz", "Valid here: bags, clinical, evaluate, fit, grid, model, published, rna, rows, split, sweep")],
)  # fmt: skip
def test_an_unknown_table_is_compared_with_all_a_recipe_may_hold(tmp_path, table, message):
    path = tmp_path / "mine.toml"
    path.write_text(f"[{table}]\nx = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_train_recipe(str(path))


def test_every_model_has_a_recipe_of_its_name_and_the_default_is_cross_attention():
    for name in MODELS:
        assert load_train_recipe(recipe_of(None, name)).model.name == name
    assert recipe_of(None, None) == recipe_of(None, "cross-attention") == "default"
    assert recipe_of("table1", "joint") == "table1"


@pytest.mark.parametrize(("name", "message"), [("clinical", "--clinical-variable"), ("co-attention", "--gene-sets")])
def test_what_a_recipe_cannot_know_is_asked_for(name, message):
    with pytest.raises(ConfigError, match=message):
        load_train_recipe(name).require_complete()


@pytest.mark.parametrize(("row", "batch"), [("batch128", 128), ("batch256", 256)])
def test_table1_is_joint_fusion_as_published(row, batch):
    recipe = load_train_recipe("table1", row=row)
    assert (recipe.model.name, recipe.fit.batch_size, recipe.fit.epochs) == ("joint", batch, 20)
    assert (recipe.model.rna_widths, recipe.model.rna_dropout, recipe.model.dropout) == ((4096, 2048), 0.5, 0.8)
    assert (recipe.bags.unit, recipe.rna.clip) == ("slide", 0)


@pytest.mark.parametrize("row", TABLE2)
def test_table2_is_cross_attention_as_published(row):
    recipe = load_train_recipe("table2", row=row)
    model, bags, fit = recipe.model, recipe.bags, recipe.fit
    assert (fit.batch_size, bags.size, fit.learning_rate) == TABLE2[row]
    assert (model.name, model.heads, model.query, model.head) == ("cross-attention", 1, "linear", "image")
    assert (model.dropout, model.attention_dropout, fit.epochs, fit.patience) == (0, 0, 20, 0)
    assert (bags.unit, bags.at_prediction) == ("slide", "size")


def test_a_recipe_with_rows_asks_for_one():
    with pytest.raises(ConfigError, match=r"has rows: choose one with --row. Rows: batch128, batch256"):
        load_train_recipe("table1")


def test_an_unknown_row_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no row 'batch12'. Did you mean 'batch128'"):
        load_train_recipe("table1", row="batch12")
    with pytest.raises(ConfigError, match="leave --row out"):
        load_train_recipe("default", row="batch128")


def test_a_row_lies_over_the_recipe_key_by_key(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[fit]\nepochs = 7\nseed = 3\n[rows.short.fit]\nepochs = 2\n", encoding="utf-8")
    recipe = load_train_recipe(str(path), row="short")
    assert (recipe.fit.epochs, recipe.fit.seed) == (2, 3)


@pytest.mark.parametrize("rows", ["rows = 3", "[rows]\nshort = 3"])
def test_rows_that_are_no_tables_are_refused(tmp_path, rows):
    path = tmp_path / "mine.toml"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(ConfigError, match="rows must hold one table per row"):
        load_train_recipe(str(path), row="short")


def test_an_unknown_key_of_a_row_is_named_with_its_row(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[rows.short.fit]\nepoch = 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"row short: unknown key 'fit.epoch'. Did you mean 'epochs'"):
        load_train_recipe(str(path), row="short")


def test_a_resolved_recipe_survives_its_config_file(tmp_path):
    recipe = replace(
        load_train_recipe("table2", row="batch128-bag32-lr0.001"),
        split=SplitSettings(folds_file="folds.csv", fold=0),
        evaluate=EvaluateSettings(tau_months=60.0),
    )
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(to_table(recipe)), encoding="utf-8")
    assert from_table(TrainRecipe, load_toml(path), source="config.toml") == recipe


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (ModelSettings, {"dim": 10, "heads": 3}, "must be a multiple of model.heads"),
        (ModelSettings, {"heads": 0}, "model.heads must be at least 1"),
        (ModelSettings, {"name": "rna", "inputs": ("wsi", "rna")}, "the model rna cannot look at tiles"),
        (
            TrainRecipe,
            {"model": ModelSettings(inputs=("wsi", "rna")), "clinical": ClinicalSettings(columns=("age",))},
            "model.inputs lacks clinical",
        ),
        (ModelSettings, {"rna_widths": (0,)}, "model.rna_widths must be positive"),
        (ModelSettings, {"dropout": 1.0}, "model.dropout must be at least 0 and below 1"),
        (BagSettings, {"size": -1}, "bags.size must be 0"),
        (RnaSettings, {"clip": -1.0}, "rna.clip must be 0"),
        (RnaSettings, {"min_variance": -1.0}, "rna.min_variance must be 0"),
        (FitSettings, {"epochs": 0}, "fit.epochs must be at least 1"),
        (FitSettings, {"batch_size": 1}, "a risk set of one patient says nothing"),
        (FitSettings, {"learning_rate": 0.0}, "fit.learning_rate must be above 0"),
        (FitSettings, {"weight_decay": -1.0}, "fit.weight_decay must be 0"),
        (FitSettings, {"patience": -1}, "fit.patience must be 0"),
        (FitSettings, {"seed": -1}, "fit.seed must be from 0"),
        (FitSettings, {"seed": 2**63}, r"fit.seed must be from 0 to 9223372036854775807"),
        (FitSettings, {"n_seeds": 0}, "fit.n_seeds must be at least 1, not 0"),
        (
            FitSettings,
            {"seed": 2**63 - 2, "n_seeds": 3},
            "is too high for 3 seeds: the last may be 9223372036",
        ),
        (FitSettings, {"data_seed": -1}, "fit.data_seed must be from 0"),
        (FitSettings, {"device": "mps"}, "fit.device must be auto, cpu, cuda or cuda:N, not 'mps'"),
        (FitSettings, {"device": "cuda:x"}, "fit.device must be auto"),
        (SplitSettings, {"seed": 2**63}, "split.seed must be from 0"),
        (SplitSettings, {"fractions": (0.7, 0.2, 0.2)}, "add up to 1"),
        (SplitSettings, {"n_folds": 1}, "split.n_folds must be 0 or at least 2"),
        (SplitSettings, {"fold": -1}, "split.fold must be 0"),
        (EvaluateSettings, {"n_bootstrap": -1}, "evaluate.n_bootstrap must be from 0"),
        (EvaluateSettings, {"n_bootstrap": 10**9}, "evaluate.n_bootstrap must be from 0 to 100000, not 1000000000"),
        (EvaluateSettings, {"seed": -1}, "evaluate.seed must be from 0"),
        (EvaluateSettings, {"confidence": 1.0}, "evaluate.confidence must be between 0 and 1"),
        (EvaluateSettings, {"tau_months": 0.0}, "evaluate.tau_months must be above 0"),
        (EvaluateSettings, {"tau_quantile": 0.0}, "evaluate.tau_quantile must be in"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, values, message):
    with pytest.raises(ValueError, match=message):
        settings(**values)


def test_an_ensemble_counts_its_seeds_from_the_first():
    assert FitSettings(seed=7, n_seeds=3).seeds == (7, 8, 9)
    assert FitSettings(seed=2**63 - 1).seeds == (2**63 - 1,)


def test_reading_a_recipe_loads_no_torch():
    code = "import sys, mmsurv_train.recipe; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
