"""Every shipped training recipe can be planned, and trained as its form says."""

from __future__ import annotations

import pytest

from mmsurv.config import recipe_names
from mmsurv.errors import ConfigError
from mmsurv_train.recipe import RECIPES, load_train_recipe
from mmsurv_train.sweep.plan import make_plan
from mmsurv_train.sweep.recipe import load_sweep_recipe
from mmsurv_train.sweep.text import plan_text, published_text

every_recipe = pytest.mark.parametrize("name", recipe_names(RECIPES))


@every_recipe
def test_a_shipped_recipe_plans_as_many_networks_as_its_configurations_say(name):
    plan = make_plan(load_sweep_recipe(name), {"folds": 5, "seeds": None})
    assert plan.n_networks == 5 * sum(planned.recipe.fit.n_seeds for planned in plan.configurations)
    for planned in plan.configurations:
        assert planned.name in plan_text(plan)


@every_recipe
def test_a_shipped_recipe_trains_alone_row_by_row_unless_it_has_a_grid(name):
    recipe = load_sweep_recipe(name)
    plan = make_plan(recipe, {})
    if recipe.grid:
        with pytest.raises(ConfigError, match="train them all with mmsurv sweep"):
            load_train_recipe(name)
    else:
        alone = [load_train_recipe(name, row=row) for row in (recipe.rows or [None])]
        assert alone == [planned.recipe for planned in plan.configurations]


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_the_papers_tables_have_its_columns_and_its_figures_are_labelled(name):
    recipe = load_sweep_recipe(name)
    assert list(recipe.settings.columns) == ["model", "batch", "bag", "dropout", "lr"]
    assert recipe.published is not None
    assert recipe.published.columns == (*recipe.settings.columns, "C-index (WSI)", "C-index (case)")
    text = published_text(recipe.published)
    for words in ("Not computed here", "double-blind review", "cannot be compared"):
        assert words in text


def test_the_published_figures_are_the_papers():
    figures = {name: load_sweep_recipe(name).published.rows for name in ("table1", "table2")}
    assert [row[1:2] + row[-2:] for row in figures["table1"]] == [("128", "0.659", "0.621"), ("256", "0.656", "0.610")]
    assert [row[1:3] + row[-3:] for row in figures["table2"]] == [
        ("128", "32", "0.001", "0.62", "0.5806"),
        ("256", "16", "0.001", "0.61", "0.56"),
        ("128", "32", "0.01", "0.55", "0.51"),
    ]


def test_bag_size_trains_every_size_once_and_evaluates_it_twice():
    plan = make_plan(load_sweep_recipe("bag-size"), {})
    assert [planned.recipe.bags.size for planned in plan.configurations] == [16, 32, 128, 512, 0]
    assert [plan.evaluations(planned) for planned in plan.configurations] == [("size", "all")] * 4 + [("size",)]
    assert {planned.recipe.fit.n_seeds for planned in plan.configurations} == {5}
