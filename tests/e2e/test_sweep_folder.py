"""What ``mmsurv sweep`` makes of a folder that is not as it left it, or where it could not begin."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from mmsurv_train.sweep.cli import sweep

RECIPE = """
[model]
name = "joint"
rna_widths = [4]
[bags]
size = 2
at_prediction = "size"
[fit]
epochs = 2
device = "cpu"
[evaluate]
n_bootstrap = 5
[grid]
"fit.learning_rate" = [0.001, 0.01]
[sweep]
at_prediction = ["size", "all"]
"""
SLOW, FAST = NAMES = ["learning_rate=0.001", "learning_rate=0.01"]
OTHER = f"evaluations/{SLOW},at_prediction=all"


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(sweep, [str(argument) for argument in arguments], catch_exceptions=True)
    found = getattr(result.exception, "exit_code", result.exit_code)
    assert (found if isinstance(found, int) else result.exit_code) == code, f"{result.output}\n{result.exception!r}"
    return result


def refused(*arguments: object, code: int = 1) -> str:
    return str(call(*arguments, code=code).exception)


@pytest.fixture(scope="module")
def tables(study: Path) -> list[str]:
    return ["--clinical", str(study / "clinical.csv"), "--rna", str(study / "rna.csv")]


@pytest.fixture(scope="module")
def data(study: Path, tables: list[str]) -> list[str]:
    return [*tables, "--store", str(study / "store")]


@pytest.fixture(scope="module")
def place(study: Path, data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``mine.toml``, ``folds.csv`` and ``sweep``, finished."""
    place = tmp_path_factory.mktemp("place")
    (place / "mine.toml").write_text(RECIPE, encoding="utf-8")
    clinical = pd.read_csv(study / "clinical.csv").drop_duplicates("case_id").sort_values("vital_status")
    clinical.assign(fold=[i % 2 for i in range(len(clinical))])[["case_id", "fold"]].to_csv(
        place / "folds.csv", index=False
    )
    call(place / "mine.toml", *data, "--folds", place / "folds.csv", "-o", place / "sweep")
    return place


@pytest.fixture
def again(place: Path, data: list[str], tmp_path: Path) -> Callable[..., list[object]]:
    """The arguments of the same command on a copy of the finished sweep."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    return [tmp_path / "mine.toml", *data, "--folds", tmp_path / "folds.csv", "-o", tmp_path / "sweep"]


def test_a_first_command_that_forgot_the_store_leaves_the_folder_to_the_right_one(place, tables, data, tmp_path):
    out = tmp_path / "sweep"
    assert "name their store with --store" in refused(place / "mine.toml", *tables, "-o", out, code=2)
    assert not out.exists()
    call(place / "mine.toml", *data, "-o", out)
    assert (out / "table.md").is_file()


def test_a_first_command_that_forgot_the_rna_of_one_of_its_models_trains_nothing(place, data, study, tmp_path):
    both = RECIPE.replace('"fit.learning_rate" = [0.001, 0.01]', '"model.name" = ["wsi-mean", "joint"]')
    (tmp_path / "both.toml").write_text(both, encoding="utf-8")
    only = ["--clinical", study / "clinical.csv", "--store", study / "store"]
    message = refused(tmp_path / "both.toml", *only, "-o", tmp_path / "sweep", code=2)
    assert "name the table with --rna" in message
    call(tmp_path / "both.toml", *data, "-o", tmp_path / "sweep")


def test_folds_that_cannot_be_leave_the_folder_to_those_that_can(place, data, study, tmp_path):
    out, folds = tmp_path / "sweep", tmp_path / "folds.csv"
    clinical = pd.read_csv(study / "clinical.csv").drop_duplicates("case_id")
    clinical.assign(fold=clinical["vital_status"])[["case_id", "fold"]].to_csv(folds, index=False)
    assert "has no event" in refused(place / "mine.toml", *data, "--folds", folds, "-o", out)
    call(place / "mine.toml", *data, "--folds", 2, "-o", out)


def test_a_plan_of_which_nothing_was_trained_is_replaced(place, data, tmp_path):
    out = tmp_path / "sweep"
    shutil.copytree(place / "sweep", out, ignore=shutil.ignore_patterns("runs", "evaluations"))
    call(place / "mine.toml", *data, "--epochs", 1, "-o", out)
    assert '"epochs": 1' in (out / "plan.json").read_text()


def test_folds_that_moved_are_the_same_folds(place, again, tmp_path):
    shutil.move(tmp_path / "folds.csv", tmp_path / "elsewhere.csv")
    moved = [tmp_path / "elsewhere.csv" if one == tmp_path / "folds.csv" else one for one in again]
    assert "2 of 2 complete" in call(*moved, "--dry-run").output
    call(*moved)
    for name in ("table.csv", "table.md"):
        assert (tmp_path / "sweep" / name).read_bytes() == (place / "sweep" / name).read_bytes()
    kept = (tmp_path / "sweep" / "runs" / SLOW / "provenance.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "sweep" / "runs" / FAST)
    call(*moved)
    assert (tmp_path / "sweep" / "runs" / SLOW / "provenance.json").stat().st_mtime_ns == kept
    assert (tmp_path / "sweep" / "runs" / FAST).is_dir()


def test_a_dry_run_of_another_plan_is_refused_field_by_field_and_no_run_is_given_up(again):
    message = refused(*again, "--epochs", 3, "--dry-run")
    assert "asked.settings.fit.epochs" in message
    assert "elete" not in message


@pytest.mark.parametrize(
    ("file", "text", "said", "remedy"),
    [
        (f"{OTHER}/metrics.json", "{}", "metrics.json: the key model is missing.", OTHER),
        (f"{OTHER}/metrics.json", None, "metrics.json missing.", OTHER),
        (f"{OTHER}/predictions.csv", None, "predictions.csv missing.", OTHER),
        (f"{OTHER}/predictions.csv", "slide_id\n", "the column case_id, part", OTHER),
        (f"runs/{SLOW}/metrics.json", '{"parts": ', "metrics.json: not JSON", f"runs/{SLOW}"),
        (f"runs/{SLOW}/config.toml", None, "config.toml", f"runs/{SLOW}"),
        (f"runs/{SLOW}/fold-1/split.csv", None, "split.csv missing.", f"runs/{SLOW}"),
        (f"runs/{SLOW}/fold-1", None, "fold-1 missing.", f"runs/{SLOW}"),
    ],
)
def test_what_is_damaged_is_named_and_made_again_once_its_folder_is_deleted(again, tmp_path, file, text, said, remedy):
    out = tmp_path / "sweep"
    path = out / file
    if text is not None:
        path.write_text(text)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    message = refused(*again)
    assert said in message
    does = "computes" if file.startswith("evaluations") else "trains"
    assert message.endswith(f"Delete {out / remedy}; the same command {does} it again.")
    assert "rain the run again" not in message
    shutil.rmtree(out / remedy)
    call(*again)
    assert path.exists()


def test_weights_that_were_cut_are_named_when_an_evaluation_asks_for_them(again, tmp_path):
    out = tmp_path / "sweep"
    shutil.rmtree(out / OTHER)
    weights = out / "runs" / SLOW / "fold-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    message = refused(*again)
    assert f"{weights}: not a safetensors file" in message
    assert message.endswith(f"Delete {out / 'runs' / SLOW}; the same command trains it again.")


def test_a_plan_that_was_cut_has_a_remedy(again, tmp_path):
    (tmp_path / "sweep" / "plan.json").write_text("{")
    message = refused(*again)
    assert "plan.json: not JSON" in message
    assert "put a copy of it back, or name another folder with -o" in message


def test_an_evaluation_of_networks_that_are_gone_is_computed_again(again, tmp_path):
    out = tmp_path / "sweep"
    before = (out / OTHER / "metrics.json").stat().st_ino
    shutil.rmtree(out / "runs" / SLOW)
    (out / "held").hardlink_to(out / OTHER / "metrics.json")  # so that the file's number is not given out again
    call(*again)
    assert (out / OTHER / "metrics.json").stat().st_ino != before


def test_notes_stand_in_the_table_until_others_are_given(again, tmp_path):
    page = tmp_path / "sweep" / "table.md"
    assert "Note: planted features" in call(*again, "--note", "planted features", "--note", "real survival").output
    call(*again)
    assert "Note: planted features\n\nNote: real survival" in page.read_text()
    call(*again, "--note", "real features")
    assert "planted" not in page.read_text()


def test_rows_that_are_one_training_are_told(place, data, tmp_path):
    recipe = RECIPE.replace('"fit.learning_rate" = [0.001, 0.01]', '"bags.size" = [3, 12, 512, 0]')
    (tmp_path / "sizes.toml").write_text(recipe, encoding="utf-8")
    result = call(tmp_path / "sizes.toml", *data, "--epochs", 1, "-o", tmp_path / "sweep")
    assert "These rows are the same training: bag_size=12; bag_size=512; bag_size=all." in result.output
