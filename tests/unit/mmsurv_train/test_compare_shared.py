"""Which patients are compared: those that all report; what is refused, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.compare.items import Item, items_of, read_item
from mmsurv_train.compare.shared import find_shared
from mmsurv_train.run import Run

Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run folder with predictions only: cases c0, c1, … with a slide each, the last two of which train."""

    def run(name: str, cases: range = range(8), *, folds: list[int] | None = None, **changes: float) -> Run:
        ids = [f"c{i}" for i in cases]
        table = pd.DataFrame({"case_id": ids, "part": "test", "risk": 0.5, "time": [1.0 + i for i in cases]})
        table["event"] = True
        if folds is None:
            table.loc[table.index[-2:], "part"] = "train"
        else:
            table = table.assign(part="out-of-fold", fold=folds)
        for case, time in changes.items():
            table.loc[table["case_id"] == case, "time"] = time
        folder = tmp_path / name
        folder.mkdir()
        runs.write_csv(folder / runs.CASE_PREDICTIONS, table)
        runs.write_csv(folder / runs.PREDICTIONS, table.assign(slide_id=[f"s-{case}" for case in ids]))
        return Run(folder, {"kind": runs.RUN if folds is None else runs.CROSS_VALIDATION, "folds": [0, 1]})

    return run


def items(*found: Run) -> list[Item]:
    return items_of(found, [run.name for run in found])


def test_patients_of_all_runs_are_compared_and_the_others_are_listed(make: Make) -> None:
    shared = find_shared(items(make("a"), make("b", range(1, 9))))  # a tests c0 to c5, b c1 to c6
    assert shared.cases == ["c1", "c2", "c3", "c4", "c5"]
    assert shared.slides == [f"s-{case}" for case in shared.cases]
    assert shared.cases_elsewhere == {"c0": ["b"], "c6": ["a"]}
    assert any("1 cases that other runs report are not in the test part of a" in line for line in shared.warnings)
    assert any("left out of the comparison: c0." in line for line in shared.warnings)
    assert any(line.startswith("The training parts differ (a 2, b 2 cases)") for line in shared.warnings)


def test_the_same_patients_need_no_warning(make: Make) -> None:
    shared = find_shared(items(make("a"), make("b")))
    assert (shared.warnings, shared.cases_elsewhere, shared.folds) == ([], {}, None)


def test_no_common_patient_is_refused_with_what_to_do(make: Make) -> None:
    with pytest.raises(RunError, match=r"a: 6 cases of its test part \(c0, c1.*\n.*\nTrain them on one split"):
        find_shared(items(make("a"), make("b", range(20, 28))))


def test_other_outcomes_are_refused_with_case_and_folders(make: Make) -> None:
    with pytest.raises(
        RunError, match=r"1 of 6 shared cases .* c2 has event at 3 months in .*/a, event at 4 months in"
    ):
        find_shared(items(make("a"), make("b", c2=4.0)))


def test_folds_of_other_names_are_the_same_folds(make: Make) -> None:
    shared = find_shared(items(make("a", folds=[0, 1] * 4), make("b", folds=[5, 2] * 4)))
    assert shared.folds is not None
    assert (shared.folds.tolist(), shared.warnings) == ([0, 1] * 4, [])


def test_other_folds_are_warned_of_and_have_no_mean(make: Make) -> None:
    shared = find_shared(items(make("a", folds=[0, 1] * 4), make("b", folds=[0, 0, 1, 1] * 2)))
    assert shared.folds is None
    assert shared.warnings[0].startswith("b: other folds than a.")
    assert "one file of --folds" in shared.warnings[0]


def test_a_split_beside_folds_is_warned_of(make: Make) -> None:
    shared = find_shared(items(make("a", folds=[0, 1] * 4), make("b")))
    assert shared.cases == [f"c{i}" for i in range(6)]
    assert any(line.startswith("b: tested on one split, the others by cross-validation") for line in shared.warnings)


def test_runs_without_slides_are_compared_by_case(make: Make) -> None:
    run = make("a")
    runs.write_csv(run.path / runs.PREDICTIONS, runs.read_csv(run.path / runs.PREDICTIONS).iloc[:0])
    shared = find_shared(items(Run(run.path, run.config), make("b")))
    assert (shared.slides, len(shared.cases)) == ([], 6)
    assert shared.warnings == ["No slide is in all runs (a has none): compared at case level only."]


def test_a_slide_that_one_run_lacks_is_listed(make: Make) -> None:
    run = make("a")
    runs.write_csv(run.path / runs.PREDICTIONS, runs.read_csv(run.path / runs.PREDICTIONS).iloc[1:])
    shared = find_shared(items(Run(run.path, run.config), make("b")))
    assert shared.slides_elsewhere == {"s-c0": ["a"]}
    assert shared.warnings == ["1 slides of the shared cases are not in a and are left out at WSI level: s-c0."]


def test_a_floor_gives_a_slide_the_risk_of_its_case(make: Make) -> None:
    run = make("a")
    floors = pd.DataFrame({"case_id": [f"c{i}" for i in range(8)], "part": ["test"] * 6 + ["train"] * 2, "rna": 1.0})
    floors.loc[0, "rna"] = None
    runs.write_csv(run.path / "floor_predictions.csv", floors)
    item = read_item(run, "rna", "a:rna", "a:rna")
    assert (item.cases["risk"] == 1.0).all()
    assert list(item.slides.index) == ["s-c1", "s-c2", "s-c3", "s-c4", "s-c5"]  # c0 has no such risk
    with pytest.raises(RunError, match=r"has no floor 'age'. It has rna: name one of them"):
        read_item(run, "age", "a:age", "a:age")


def test_a_run_without_floors_says_so(make: Make) -> None:
    with pytest.raises(RunError, match=r"floor_predictions.csv is missing, so .* has no floor 'rna'"):
        read_item(make("a"), "rna", "a:rna", "a:rna")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("risk", None, "a risk is not a finite number"), ("case_id", "c0", "c0 stands in two rows")],
)
def test_a_damaged_table_is_refused(make: Make, column: str, value: object, message: str) -> None:
    run = make("a")
    table = runs.read_csv(run.path / runs.CASE_PREDICTIONS)
    table.loc[1, column] = value
    runs.write_csv(run.path / runs.CASE_PREDICTIONS, table)
    with pytest.raises(RunError, match=message):
        items(Run(run.path, run.config))
