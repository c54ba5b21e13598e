"""The table of a sweep, at full precision and for people."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mmsurv_train.recipe import ModelSettings, TrainRecipe
from mmsurv_train.report.content import _warnings
from mmsurv_train.sweep.plan import Plan, make_plan
from mmsurv_train.sweep.possible import Facts, needs_of
from mmsurv_train.sweep.recipe import Published, load_sweep_recipe
from mmsurv_train.sweep.same import same_trainings
from mmsurv_train.sweep.table import NUMBERS, Result, table
from mmsurv_train.sweep.text import (
    RANDOM_WEIGHTS,
    counts_text,
    markdown,
    plan_text,
    published_text,
    remarks,
    table_text,
)  # fmt: skip

RECIPE = """
[fit]
n_seeds = 2
[split]
n_folds = 3
[grid]
"fit.learning_rate" = [0.001, 0.01]
"""


def level(c_index: float) -> dict[str, object]:
    return {"n": 20, "events": 9, "c_index": {"value": c_index, "low": c_index - 0.1, "high": c_index + 0.1}}


def metrics(c_index: float, *, part: str = "out-of-fold", n_cases: int = 16) -> dict[str, object]:
    networks = {"values": [c_index, c_index], "mean": c_index, "sd": 0.0123, "low": c_index - 0.2, "high": c_index}
    case = level(c_index + 0.01) | {"n": n_cases, "events": 7}
    return {
        "method": {"interval": "percentile bootstrap over patients", "confidence": 0.95, "n_bootstrap": 100},
        "parts": {part: {"wsi": level(c_index), "case": case}},
        "seeds": {"seeds": [0, 1], "wsi": networks, "case": networks},
        "fold_mean": {"wsi": {"mean": 0.5, "sd": 0.25}, "case": {"mean": 0.6, "sd": None}},
    }


@pytest.fixture
def plan(tmp_path: Path):
    def plan(text: str = RECIPE, **overrides: object) -> Plan:
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return make_plan(load_sweep_recipe(str(tmp_path / "mine.toml")), overrides)

    return plan


def results(plan: Plan, *found: object) -> list[Result]:
    pairs = zip(plan.configurations, found, strict=True)
    return [
        Result(planned=planned, evaluated_with="all", metrics=None, reason=one)
        if isinstance(one, str)
        else Result(planned=planned, evaluated_with="all", metrics=one)
        for planned, one in pairs
    ]


def test_a_row_has_the_settings_that_vary_and_every_number_of_both_levels(plan) -> None:
    made = plan()
    rows = table(made, results(made, metrics(0.7), metrics(0.6)))
    assert rows["configuration"].tolist() == ["learning_rate=0.001", "learning_rate=0.01"]
    assert rows["fit.learning_rate"].tolist() == [0.001, 0.01]
    first = rows.iloc[0]
    assert first[["part", "patients", "slides", "events", "seeds", "folds"]].tolist() == [
        "out-of-fold",
        16,
        20,
        7,
        2,
        3,
    ]
    assert first[["wsi_mean", "wsi_sd", "wsi_low", "wsi_high"]].tolist() == [0.7, 0.0123, 0.7 - 0.2, 0.7]
    assert first[["case_ensemble", "wsi_folds_mean", "wsi_folds_sd"]].tolist() == [0.7 + 0.01, 0.5, 0.25]
    assert rows["case_folds_sd"].isna().all()


def test_a_failed_configuration_is_a_row_without_numbers_and_with_its_reason(plan) -> None:
    made = plan()
    found = results(made, metrics(0.7), "the risks are not finite in epoch 3")
    rows = table(made, found)
    assert rows["status"].tolist() == ["complete", "failed"]
    assert rows.loc[1, list(NUMBERS)].isna().all()
    assert rows.loc[1, "reason"] == "the risks are not finite in epoch 3"
    text = table_text(made, found, rows)
    assert "| 0.01          | failed" in text
    assert "- learning_rate=0.01: the risks are not finite in epoch 3" in text


def test_a_table_in_which_all_failed_claims_nothing(plan) -> None:
    made = plan()
    found = results(made, "no", "no")
    assert "Out-of-fold" not in table_text(made, found, table(made, found))


def test_the_table_for_people_says_what_its_numbers_are(plan) -> None:
    made = plan()
    found = results(made, metrics(0.7), metrics(0.6))
    text = table_text(made, found, table(made, found))
    head = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    assert head == [
        "learning_rate", "C-index (WSI)", "C-index (case)", "ensemble (WSI)", "ensemble (case)", "folds (WSI)",
        "folds (case)", "patients", "events", "seeds", "folds",
    ]  # fmt: skip
    assert "0.700 ± 0.012 (0.500 to 0.700)" in text
    assert "| 0.500 ± 0.250 | 0.600 " in text
    assert "of the one of 3 folds that never saw them" in text
    assert "16 patients, 7 deaths" in text
    assert "95 % interval, percentile bootstrap over patients, 100 draws" in text
    assert "Choosing the best row of this table and quoting its number is optimistic" in text
    assert "not measured on the same patients" not in text


def test_rows_on_other_patients_are_pointed_out(plan) -> None:
    made = plan()
    found = results(made, metrics(0.7), metrics(0.6, n_cases=15))
    text = table_text(made, found, table(made, found))
    assert "The rows are not measured on the same patients" in text
    assert "15 or 16 patients" in text


def test_one_network_on_one_split_has_no_columns_that_repeat_another(plan) -> None:
    made = plan("[fit]\nepochs = 3")
    alone = metrics(0.7, part="test")
    del alone["fold_mean"]
    found = results(made, alone)
    text = table_text(made, found, table(made, found))
    assert "ensemble" not in text
    assert "(WSI)" in text.splitlines()[0]
    assert "The test part of one split. 16 patients" in text
    assert "how much another seed would change it is not known" in text
    assert "optimistic" not in text


def test_a_recipe_may_choose_columns_and_measures(plan) -> None:
    made = plan(
        RECIPE + '[sweep]\nmeasures = ["networks"]\n[sweep.columns]\nbag = "bags.size"\nlr = "fit.learning_rate"'
    )
    found = results(made, metrics(0.7), metrics(0.6))
    first = table_text(made, found, table(made, found)).splitlines()[0]
    assert [cell.strip() for cell in first.strip("|").split("|")] == ["bag", "lr", "C-index (WSI)", "C-index (case)"]


def test_a_row_is_called_by_its_name_unless_the_columns_are_given(plan) -> None:
    rows = "[rows.narrow.model]\ndim = 64\n[rows.wide.model]\ndim = 128\n"
    for text, heads, cells in (
        (rows, ["row", "dim"], ["wide", "128"]),
        (rows + '[sweep.columns]\nwidth = "model.dim"', ["width", "C-index (WSI)"], ["128", "0.600 ± 0.012 (0.400"]),
        ("[rows.only.model]\ndim = 64", ["row", "C-index (WSI)"], ["only", "0.700"]),
    ):
        made = plan(text)
        found = results(made, *[metrics(c, part="test") for c in (0.7, 0.6)][: len(made.configurations)])
        lines = table_text(made, found, table(made, found)).splitlines()
        last = lines[1 + len(made.configurations)]
        assert [cell.strip() for cell in lines[0].split("|")[1:3]] == heads
        assert [cell.strip().startswith(start) for cell, start in zip(last.split("|")[1:3], cells, strict=True)] == [
            True,
            True,
        ]


def test_settings_that_a_model_does_not_have_are_dashes(plan) -> None:
    made = plan('[bags]\nsize = 16\n[rows.rna.model]\nname = "rna"\n[rows.both.bags]\nsize = 8')
    found = results(made, metrics(0.7, part="test"), metrics(0.6, part="test"))
    lines = table_text(made, found, table(made, found)).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:4]] == ["row", "model", "bag_size"]
    assert [[cell.strip() for cell in line.split("|")[1:4]] for line in lines[2:4]] == [
        ["rna", "rna", "–"],
        ["both", "cross-attention", "8"],
    ]


CROSS, RNA = (needs_of(TrainRecipe(model=ModelSettings(name=name))) for name in ("cross-attention", "rna"))
FACTS = Facts(training={CROSS: 20, RNA: 20}, whole={(CROSS, "case"): 12}, random_weights=True)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('[grid]\n"fit.batch_size" = [19, 20, 21, 0]', [["batch_size=20", "batch_size=21", "batch_size=all"]]),
        ('[grid]\n"bags.size" = [11, 12, 0]', [["bag_size=12", "bag_size=all"]]),
        ('[model]\nname = "rna"\n[grid]\n"bags.size" = [1, 2]\n"model.dropout" = [0, 0.5]',
         [["bag_size=1,dropout=0", "bag_size=2,dropout=0"], ["bag_size=1,dropout=0.5", "bag_size=2,dropout=0.5"]]),
        ('[model]\nquery = "linear"\n[grid]\n"model.query_hidden" = [1, 2]', [["query_hidden=1", "query_hidden=2"]]),
        ('[bags]\nsize = 11\n[grid]\n"bags.redraw" = [true, false]', []),
        ('[grid]\n"fit.n_seeds" = [1, 2]\n"model.query_hidden" = [1, 2]', []),
    ],
)  # fmt: skip
def test_rows_that_are_the_same_training_are_named(plan, text, same) -> None:
    made = plan(text)
    assert same_trainings(made, FACTS) == same
    said = remarks(made, FACTS, [])[1:]
    assert [line.split(". ")[0] for line in said] == [
        f"These rows are the same training: {'; '.join(names)}" for names in same
    ]


def test_the_report_and_the_table_say_the_same_of_random_weights(plan) -> None:
    provenance = {"store_recipe": {"encoder": {"weights": "random"}}, "cases": [], "digests": {}}
    run = SimpleNamespace(provenance=provenance, kind="run", reported_part="test")
    run.predictions = SimpleNamespace(part=lambda _: SimpleNamespace(cases={"case_id": []}))
    assert _warnings([run]) == [RANDOM_WEIGHTS]
    assert remarks(plan(), FACTS, ["one", "two"]) == [f"**{RANDOM_WEIGHTS}**", "Note: one", "Note: two"]


def test_a_network_evaluated_twice_has_two_rows_that_say_with_what(plan) -> None:
    made = plan('[bags]\nsize = 16\nat_prediction = "size"\n[sweep]\nat_prediction = ["size", "all"]')
    (planned,) = made.configurations
    found = [
        Result(planned=planned, evaluated_with=at, metrics=metrics(0.7, part="test"))
        for at in made.evaluations(planned)
    ]
    text = table_text(made, found, table(made, found))
    assert [line.split("|")[2].strip() for line in text.splitlines()[:4]] == ["evaluated with", "-" * 16, "16", "all"]
    assert "the same trained networks" in text


def test_the_plan_counts_configurations_folds_and_seeds(plan) -> None:
    assert counts_text(plan()) == "2 configurations × 3 folds × 2 seeds: 12 networks"
    assert counts_text(plan("[fit]\nepochs = 3")) == "1 configuration × one split × 1 seed: 1 network"
    assert (
        counts_text(plan('[grid]\n"fit.n_seeds" = [1, 4]')) == "2 configurations × one split × 1 to 4 seeds: 5 networks"
    )
    assert "| learning_rate=0.001 | 0.001 " in plan_text(plan())


def test_published_figures_are_labelled_as_anothers() -> None:
    figures = Published(title="t", source="Someone", made_with="other data", columns=("a", "b"), rows=(("1", "0.50"),))
    text = published_text(figures)
    assert "**Not computed here.** Whose: Someone. Made with: other data." in text
    assert "| 1   | 0.50 |" in text


def test_a_bar_or_a_line_break_in_a_cell_breaks_no_table() -> None:
    assert markdown(["a"], [["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"
