"""What a recipe says about a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsurv.errors import ConfigError
from mmsurv_train.recipe import load_train_recipe
from mmsurv_train.sweep.recipe import MEASURES, load_sweep_recipe, setting_keys


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> str:
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return str(tmp_path / "mine.toml")

    return write


def test_a_training_recipe_without_more_is_a_sweep_of_one(write) -> None:
    recipe = load_sweep_recipe(write("[fit]\nepochs = 3\n"))
    assert (recipe.base, recipe.rows, recipe.grid, recipe.published) == ({"fit": {"epochs": 3}}, {}, {}, None)
    assert recipe.settings.measures == MEASURES


def test_a_grid_is_read_by_dotted_keys_or_as_tables(write) -> None:
    dotted = load_sweep_recipe(write('[grid]\n"fit.learning_rate" = [1e-3, 1e-2]\n"model.dropout" = [0]\n'))
    nested = load_sweep_recipe(write("[grid]\nfit.learning_rate = [1e-3, 1e-2]\n[grid.model]\ndropout = [0]\n"))
    assert dotted.grid == nested.grid == {"fit.learning_rate": [1e-3, 1e-2], "model.dropout": [0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[grid]\n"fit.learning_rat" = [1]', "grid: unknown key 'fit.learning_rat'. Did you mean 'fit.learning_rate'"),
        ('[grid]\n"learning_rate" = [1]', "Did you mean 'fit.learning_rate'"),
        ('[grid]\n"zzz" = [1]', "Settings: model.name, model.inputs, model.dim"),
        ('[grid]\n"fit.learning_rate" = 0.1', r"grid.fit.learning_rate must be a list of values to try, not 0.1"),
        ('[grid]\n"fit.learning_rate" = []', r"must be a list of values to try, not \[\]"),
        ('[grid]\n"fit.epochs" = [3, 4, 3]', "grid.fit.epochs names 3 twice"),
        ('[grid]\n"fit.epochs" = [3]\nfit.epochs = [4]', "grid names fit.epochs twice"),
        ("grid = 3", r"\[grid\] and \[published\] must be tables"),
        ("sweep = 3", r"\[sweep\] must be a table"),
        ("[sweep]\nmeasure = []", "unknown key 'sweep.measure'. Did you mean 'measures'"),
        ("[sweep]\nmeasures = []", "sweep.measures must name at least one of networks, ensemble, folds, counts"),
        ('[sweep]\nat_prediction = ["all", "all"]', "sweep.at_prediction names a value twice"),
        ('[sweep]\nat_prediction = ["some"]', "must be one of 'all', 'size', not 'some'"),
        ('[sweep.columns]\nlr = "fit.lr"', r"mine.toml, sweep.columns, heading 'lr': unknown key 'fit.lr'"),
        ('[sweep.columns]\nlr = "fit.lr"', "Did you mean 'fit.learning_rate'"),
        ("[published]\ntitle = 'x'", "missing key 'published.source'"),
    ],
)
def test_what_a_sweep_cannot_be_is_refused_with_the_key(write, text, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep_recipe(write(text))


def test_published_rows_have_a_cell_for_each_column(write) -> None:
    text = '[published]\ntitle = "t"\nsource = "s"\nmade_with = "m"\ncolumns = ["a", "b"]\nrows = [["1"]]'
    with pytest.raises(ConfigError, match=r"published.rows: 2 cells expected, as in columns, not \['1'\]"):
        load_sweep_recipe(write(text))


def test_settings_are_listed_dotted() -> None:
    assert {"model.name", "bags.size", "fit.n_seeds", "split.n_folds", "evaluate.seed"} <= set(setting_keys())


def test_train_refuses_a_grid_and_passes_over_the_tables_form(write) -> None:
    with pytest.raises(ConfigError, match="has a grid, so it is many settings: train them all with mmsurv sweep"):
        load_train_recipe(write('[grid]\n"fit.epochs" = [3, 4]'))
    assert load_train_recipe(write('[fit]\nepochs = 3\n[sweep]\nmeasures = ["networks"]')).fit.epochs == 3
