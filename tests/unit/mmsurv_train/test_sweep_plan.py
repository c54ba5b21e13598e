"""Which configurations a sweep trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsurv.errors import ConfigError
from mmsurv_train.sweep.plan import make_plan
from mmsurv_train.sweep.recipe import load_sweep_recipe

GRID = """
[fit]
epochs = 3
[rows.small.bags]
size = 16
[rows.large.bags]
size = 64
[grid]
"fit.learning_rate" = [0.001, 0.01]
"model.dropout" = [0, 0.5]
"""


@pytest.fixture
def plan(tmp_path: Path):
    def plan(text: str, **overrides: object):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return make_plan(load_sweep_recipe(str(tmp_path / "mine.toml")), overrides)

    return plan


def test_rows_and_grid_multiply_in_the_recipes_order(plan) -> None:
    made = plan(GRID)
    assert [planned.name for planned in made.configurations] == [
        f"{row},learning_rate={rate},dropout={dropout}"
        for row in ("small", "large") for rate in ("0.001", "0.01") for dropout in ("0", "0.5")
    ]  # fmt: skip
    last = made.configurations[-1].recipe
    assert (last.bags.size, last.fit.learning_rate, last.model.dropout, last.fit.epochs) == (64, 0.01, 0.5, 3)
    assert made.varying == ("fit.learning_rate", "model.dropout", "bags.size")


def test_networks_are_configurations_times_folds_times_seeds(plan, tmp_path) -> None:
    (tmp_path / "folds.csv").write_text("case_id,fold\na,0\nb,1\nc,2\nd,1\n")
    assert plan(GRID).n_networks == 8
    assert plan(GRID, folds=5, seeds=4).n_networks == 8 * 5 * 4
    assert plan(GRID, folds_file=str(tmp_path / "folds.csv"), seeds=2).n_networks == 8 * 3 * 2
    assert plan(GRID, folds=5, fold=1).n_networks == 8
    assert plan('[grid]\n"fit.n_seeds" = [1, 3]').n_networks == 4


def test_options_lie_over_every_configuration(plan) -> None:
    made = plan(GRID, epochs=7, seeds=None)
    assert {planned.recipe.fit.epochs for planned in made.configurations} == {7}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"learning_rate": 0.1}, r"--learning-rate: the grid of .*mine.toml sets fit.learning_rate"),
        ({"bag_size": 8}, r"--bag-size: .*mine.toml sets bags.size in its row small"),
    ],
)
def test_an_option_for_what_varies_is_refused(plan, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(GRID, **overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[grid]\n"model.heads" = [1, 3]', "configuration heads=3: model.dim .256. must be a multiple of model.heads"),
        ('[grid]\n"fit.epochs" = ["many"]', "configuration epochs=many: fit.epochs must be int, not 'many'"),
        ("[rows.a.fit]\nepoch = 2", "configuration a: unknown key 'fit.epoch'. Did you mean 'epochs'"),
        ('[grid]\n"split.seed" = [0, 1]', "split.seed differs between configurations"),
        ("[rows.a.evaluate]\nseed = 1\n[rows.b]\n", "evaluate.seed differs between configurations"),
        ('[grid]\n"fit.device" = ["cpu", "auto"]', "fit.device differs"),
        ("[rows.a.fit]\nepochs = 2\n[rows.b.fit]\nepochs = 2\n", "a and b have the same settings. Keep one"),
    ],
)
def test_what_cannot_be_names_the_configuration(plan, text, message) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(text)


def test_a_setting_with_one_value_in_the_grid_is_still_shown(plan) -> None:
    assert plan('[grid]\n"model.dropout" = [0.5]').varying == ("model.dropout",)
    assert plan("[fit]\nepochs = 2").varying == ()


def test_bags_of_all_tiles_are_evaluated_once(plan) -> None:
    made = plan(
        '[bags]\nat_prediction = "size"\n[grid]\n"bags.size" = [16, 0]\n[sweep]\nat_prediction = ["size", "all"]'
    )
    assert [made.evaluations(planned) for planned in made.configurations] == [("size", "all"), ("size",)]
    assert [plan(GRID).evaluations(planned) for planned in plan(GRID).configurations[:1]] == [("all",)]
