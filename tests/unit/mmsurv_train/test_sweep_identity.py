"""Only the same sweep goes on in a folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mmsurv.cohort.options import CohortOptions
from mmsurv.errors import RunError
from mmsurv_train.inputs import Sources
from mmsurv_train.sweep.identity import PLAN, check_folder, describe, read_plan, settle
from mmsurv_train.sweep.plan import make_plan
from mmsurv_train.sweep.recipe import load_sweep_recipe

RECIPE = '[fit]\ndevice = "cpu"\nepochs = 3\n[grid]\n"fit.learning_rate" = [0.001, 0.01]\n'


@pytest.fixture
def sources(study: Path) -> Sources:
    options = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    return Sources(cohort=options, store=str(study / "store"))


@pytest.fixture
def plan(tmp_path: Path):
    def plan(text: str = RECIPE, **overrides: object):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return make_plan(load_sweep_recipe(str(tmp_path / "mine.toml")), overrides)

    return plan


def begin(folder: Path, wanted: dict[str, object]) -> None:
    """Settle the plan and leave the state of a pass, as a sweep does that was stopped."""
    settle(folder, wanted)
    (folder / ".checkpoint" / "tiles-cpu").mkdir(parents=True)


def test_the_first_command_writes_the_plan_and_the_same_again_keeps_it(plan, sources, tmp_path) -> None:
    first = settle(tmp_path / "sweep", describe(plan(), sources, command="mmsurv sweep one"))
    again = settle(tmp_path / "sweep", describe(plan(), replace(sources, memory=10**9), command="mmsurv sweep two"))
    assert again == first == read_plan(tmp_path / "sweep")
    assert first["command"] == "mmsurv sweep one"
    assert first["networks"] == {"configurations": 2, "folds": 1, "in_all": 2}
    assert len(first["data"]["records"]) == 57
    assert set(first["asked"]["configurations"]) == {"learning_rate=0.001", "learning_rate=0.01"}


def test_lists_of_the_grid_are_the_same_lists_again(plan, sources, tmp_path) -> None:
    text = '[fit]\ndevice = "cpu"\n[grid]\n"model.rna_widths" = [[64], [64, 32], []]'
    first = settle(tmp_path / "sweep", describe(plan(text), sources, command="c"))
    assert settle(tmp_path / "sweep", describe(plan(text), sources, command="d"))["command"] == first["command"]


def test_moved_data_are_the_same_data(plan, sources, study, tmp_path) -> None:
    settle(tmp_path / "sweep", describe(plan(), sources, command="c"))
    for name in ("clinical.csv", "rna.csv"):
        shutil.copy(study / name, tmp_path / name)
    shutil.copytree(study / "store", tmp_path / "store")
    options = CohortOptions(clinical=str(tmp_path / "clinical.csv"), rna=str(tmp_path / "rna.csv"))
    moved = Sources(cohort=options, store=str(tmp_path / "store"))
    assert settle(tmp_path / "sweep", describe(plan(), moved, command="c"))["command"] == "c"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (RECIPE, {"epochs": 4}, r"asked.settings.fit.epochs +3 → 4"),
        (RECIPE, {"seeds": 2}, r"fit.n_seeds +1 → 2"),
        (RECIPE.replace("0.01]", "0.1]"), {}, r"learning_rate=0.1.fit.learning_rate +– +→ 0.1"),
        (RECIPE + "[sweep]\nat_prediction = ['size']", {}, r"asked.at_prediction +\[\] → \['size'\]"),
    ],
)
def test_another_plan_is_refused_field_by_field(plan, sources, tmp_path, text, overrides, message) -> None:
    begin(tmp_path / "sweep", describe(plan(), sources, command="c"))
    with pytest.raises(RunError, match=message):
        settle(tmp_path / "sweep", describe(plan(text, **overrides), sources, command="c"))


def test_other_data_are_refused_with_their_digests(plan, sources, study, tmp_path) -> None:
    begin(tmp_path / "sweep", describe(plan(), sources, command="c"))
    pd.read_csv(study / "clinical.csv").iloc[1:].to_csv(tmp_path / "clinical.csv", index=False)
    other = replace(sources, cohort=replace(sources.cohort, clinical=str(tmp_path / "clinical.csv")))
    with pytest.raises(RunError, match=r"data.clinical +[0-9a-f]{12}… → [0-9a-f]{12}…") as refused:
        settle(tmp_path / "sweep", describe(plan(), other, command="c"))
    assert "data.records.slide-00" in str(refused.value)
    assert "Ask for the same to go on with it, or name another folder with -o" in str(refused.value)


def test_other_folds_under_the_same_name_are_other_data(plan, sources, study, tmp_path) -> None:
    cases = pd.read_csv(study / "clinical.csv")["case_id"].drop_duplicates()
    folds, path = pd.DataFrame({"case_id": cases, "fold": range(len(cases))}), tmp_path / "folds.csv"
    folds.assign(fold=folds["fold"] % 2).to_csv(path, index=False)
    begin(tmp_path / "sweep", describe(plan(folds_file=str(path)), sources, command="c"))
    (tmp_path / "elsewhere").mkdir()
    elsewhere = tmp_path / "elsewhere" / "f.csv"
    shutil.copy(path, elsewhere)
    settle(tmp_path / "sweep", describe(plan(folds_file=str(elsewhere)), sources, command="c"))
    folds.assign(fold=folds["fold"] // 20).to_csv(path, index=False)
    with pytest.raises(RunError, match=r"data.folds +[0-9a-f]{12}… →"):
        settle(tmp_path / "sweep", describe(plan(folds_file=str(path)), sources, command="c"))


def test_other_versions_are_refused(plan, sources, tmp_path) -> None:
    folder = tmp_path / "sweep"
    begin(folder, describe(plan(), sources, command="c"))
    there = json.loads((folder / PLAN).read_text())
    there["versions"]["torch"] = "1.0"
    (folder / PLAN).write_text(json.dumps(there))
    with pytest.raises(RunError, match=r"versions.torch +1.0 → "):
        settle(folder, describe(plan(), sources, command="c"))


def test_many_differences_are_counted(plan, sources, tmp_path) -> None:
    begin(tmp_path / "sweep", describe(plan(), sources, command="c"))
    with pytest.raises(RunError, match=r"… and \d+ more"):
        settle(tmp_path / "sweep", describe(plan(), replace(sources, store=None), command="c"))


def test_a_folder_of_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"notes.txt is a file; a sweep is a folder"):
        check_folder(tmp_path / "notes.txt")
    with pytest.raises(RunError, match=r"holds notes.txt and is no sweep"):
        check_folder(tmp_path)
    with pytest.raises(RunError, match=r"is not a sweep: it has no plan.json"):
        read_plan(tmp_path)


def test_a_plan_of_another_format_is_refused(plan, sources, tmp_path) -> None:
    (tmp_path / PLAN).write_text('{"format": 99}')
    with pytest.raises(RunError, match="says format 99; this version reads format 1"):
        settle(tmp_path, describe(plan(), sources, command="c"))


def test_a_plan_of_which_nothing_was_trained_gives_way_even_if_it_is_damaged(plan, sources, tmp_path) -> None:
    folder = tmp_path / "sweep"
    settle(folder, describe(plan(), sources, command="c"))
    assert settle(folder, describe(plan(epochs=4), sources, command="d"))["command"] == "d"
    (folder / PLAN).write_text("{")
    assert settle(folder, describe(plan(), sources, command="e"))["command"] == read_plan(folder)["command"] == "e"


def test_a_damaged_plan_of_a_sweep_that_was_begun_is_refused_with_a_remedy(plan, sources, tmp_path) -> None:
    folder = tmp_path / "sweep"
    wanted = describe(plan(), sources, command="c")
    begin(folder, wanted)
    for text, said in (("{", "not JSON"), ('{"format": 1}', "threads is missing")):
        (folder / PLAN).write_text(text)
        with pytest.raises(RunError, match=f"{said}.*put a copy of it back, or name another folder with -o"):
            settle(folder, wanted)
