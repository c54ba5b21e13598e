"""Splits and folds: patients, parts, events, files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmsurv.cohort import CohortOptions, load_cohort
from mmsurv.errors import SplitError
from mmsurv.split import PARTS, Split, make_folds, make_split, read_folds, read_split


def cases_of(n: int, n_events: int) -> pd.DataFrame:
    events = np.arange(n) < n_events
    index = pd.Index([f"c{i:03}" for i in range(n)], name="case_id", dtype=object)
    return pd.DataFrame({"time": np.arange(1.0, n + 1), "event": events}, index=index)


def sizes(split: Split) -> list[int]:
    return [len(split.cases(part)) for part in PARTS]


def n_events(split: Split, cases: pd.DataFrame) -> list[int]:
    return [int(cases.loc[split.cases(part), "event"].sum()) for part in PARTS]


def write_folds(path: Path, folds: dict[str, str]) -> Path:
    rows = [f"{case_id},{fold}\n" for case_id, fold in folds.items()]
    path.write_text("case_id,fold\n" + "".join(rows), encoding="utf-8")
    return path


def test_a_split_is_70_10_20_in_patients_and_in_events() -> None:
    cases = cases_of(200, 70)
    split = make_split(cases, seed=0)
    assert sizes(split) == [140, 20, 40]
    assert n_events(split, cases) == [49, 7, 14]


def test_other_seeds_give_other_splits_and_the_same_seed_the_same() -> None:
    cases = cases_of(100, 40)
    assert make_split(cases, seed=1).parts.equals(make_split(cases, seed=1).parts)
    assert not make_split(cases, seed=1).parts.equals(make_split(cases, seed=2).parts)


def test_the_draw_is_the_same_in_every_version() -> None:
    """The ids behind a published number: a changed draw is a changed result, so it must not come by accident."""
    cases = cases_of(20, 8)
    assert make_split(cases, seed=0).cases("test") == ["c002", "c005", "c013", "c018"]
    assert make_folds(cases, n_folds=4, seed=0)[0].cases("test") == ["c001", "c002", "c013", "c014", "c016"]


def test_a_small_cohort_has_an_event_in_every_part() -> None:
    cases = cases_of(30, 3)
    assert n_events(make_split(cases, seed=0), cases) == [1, 1, 1]


def test_a_part_of_fraction_zero_is_empty() -> None:
    cases = cases_of(40, 2)
    split = make_split(cases, seed=0, fractions=(0.75, 0.25, 0))
    assert sizes(split) == [30, 10, 0]
    assert n_events(split, cases) == [1, 1, 0]


def test_fewer_events_than_parts_are_refused() -> None:
    with pytest.raises(SplitError, match=r"train, validation, test needs an event in each, and there are 2"):
        make_split(cases_of(30, 2), seed=0)


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.1), (1.2, -0.2, 0), (0.5, 0.5), (0, 0.5, 0.5)])
def test_impossible_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(SplitError, match="fraction"):
        make_split(cases_of(30, 10), seed=0, fractions=fractions)


def test_folds_test_every_patient_once_and_validate_with_an_eighth_of_the_rest() -> None:
    cases = cases_of(100, 35)
    folds = make_folds(cases, n_folds=5, seed=0)
    tested = [case_id for fold in folds for case_id in fold.cases("test")]
    assert sorted(tested) == cases.index.tolist()
    for fold in folds:
        assert sizes(fold) == [70, 10, 20]
        assert n_events(fold, cases)[2] == 7


def test_folds_validate_with_different_patients() -> None:
    """Else the same few patients would choose the epoch of every fold."""
    folds = make_folds(cases_of(100, 35), n_folds=5, seed=0)
    validating = {case_id for fold in folds for case_id in fold.cases("validation")}
    assert len(validating) > 30


@pytest.mark.parametrize(
    ("n_folds", "events", "match"),
    [
        (1, 10, r"at least 2 folds, found 1"),
        (5, 4, r"5 folds need an event each, and the cohort has 4. Ask for at most 4"),
        (2, 2, r"training part of fold 0 into train, validation needs an event in each, and there is 1"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(n_folds: int, events: int, match: str) -> None:
    with pytest.raises(SplitError, match=match):
        make_folds(cases_of(30, events), n_folds=n_folds, seed=0)


def test_a_split_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    split = make_split(cases_of(50, 20), seed=3)
    split.save(tmp_path / "split.csv")
    assert read_split(tmp_path / "split.csv").parts.equals(split.parts)
    assert (tmp_path / "split.csv").read_text().startswith("case_id,part\nc000,")


def test_ids_that_look_like_numbers_or_missing_values_are_read_back(tmp_path: Path) -> None:
    split = Split(pd.Series({"007": "train", "NA": "test", 'a,"b': "validation"}))
    split.save(tmp_path / "split.csv")
    assert read_split(tmp_path / "split.csv").parts.equals(split.parts)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("a,train\nb,test\na,test\n", r"rows 2 and 4: case 'a' has two rows, with part 'train' and 'test'"),
        ("a,train\nb,valid\n", r"row 3, column 'part': expected train, validation, test, found 'valid'"),
        (",train\n", r"row 2, column 'case_id': the case id is blank"),
    ],
)
def test_a_saved_split_that_leaks_is_refused(tmp_path: Path, rows: str, match: str) -> None:
    (tmp_path / "split.csv").write_text("case_id,part\n" + rows)
    with pytest.raises(SplitError, match=match):
        read_split(tmp_path / "split.csv")


def test_a_patient_in_two_parts_is_refused() -> None:
    with pytest.raises(SplitError, match=r"Case 'a' is in the split more than once \(test, train\)"):
        Split(pd.Series(["train", "test", "test"], index=["a", "b", "a"]))
    with pytest.raises(SplitError, match=r"Case 'a': 'dev' is no part"):
        Split(pd.Series(["dev"], index=["a"]))


def test_folds_of_a_file_are_in_the_order_of_their_labels(tmp_path: Path) -> None:
    cases = cases_of(30, 30)
    labels = ("10", "9", "x")
    path = write_folds(tmp_path / "f.csv", {c: labels[i % 2] for i, c in enumerate(cases.index)})
    assert [fold.cases("test")[0] for fold in read_folds(path, cases, seed=0)] == ["c001", "c000"]
    path = write_folds(tmp_path / "f.csv", {c: labels[i % 3] for i, c in enumerate(cases.index)})
    assert [fold.cases("test")[0] for fold in read_folds(path, cases, seed=0)] == ["c000", "c001", "c002"]


def test_cases_without_fold_are_refused(tmp_path: Path) -> None:
    path = write_folds(tmp_path / "f.csv", {"c000": "0", "c001": "1"})
    with pytest.raises(SplitError, match=r"f\.csv: 28 of 30 cases of the cohort have no fold: c002, .* and 18 more"):
        read_folds(path, cases_of(30, 20), seed=0)


def test_cases_of_other_cohorts_are_reported_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = cases_of(20, 10)
    folds = {case_id: str(i % 2) for i, case_id in enumerate(cases.index)}
    path = write_folds(tmp_path / "f.csv", {**folds, "stranger": "7"})
    with caplog.at_level(logging.WARNING, logger="mmsurv"):
        assert len(read_folds(path, cases, seed=0)) == 2
    assert "1 cases are not in the cohort and are passed over: stranger" in caplog.text


@pytest.mark.parametrize(
    ("folds", "extra", "match"),
    [
        (["0"], "", r"expected at least 2 folds, found only '0'"),
        (["0", "1"], "c003,0\n", r"rows 5 and 42: case 'c003' has two rows, with fold '1' and '0'"),
        (["0", "1"], "x,\n", r"row 42, column 'fold': the fold is blank"),
    ],
)
def test_folds_files_that_cannot_be_right_are_refused(tmp_path: Path, folds: list[str], extra: str, match: str) -> None:
    cases = cases_of(40, 20)
    path = write_folds(tmp_path / "f.csv", {c: folds[i % len(folds)] for i, c in enumerate(cases.index)})
    path.write_text(path.read_text() + extra)
    with pytest.raises(SplitError, match=match):
        read_folds(path, cases, seed=0)


def test_a_fold_without_event_is_refused(tmp_path: Path) -> None:
    cases = cases_of(30, 10)
    path = write_folds(tmp_path / "f.csv", {c: "ab"[i >= 10] for i, c in enumerate(cases.index)})
    with pytest.raises(SplitError, match=r"fold 'b' has no event among its 20 cases"):
        read_folds(path, cases, seed=0)


def test_a_folds_file_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("case_id,part\na,1\n")
    with pytest.raises(SplitError, match=r"no column 'fold'. Expected case_id and fold, found 'case_id', '"):
        read_folds(tmp_path / "f.csv", cases_of(10, 5), seed=0)


def test_the_five_folds_of_the_real_glioma_cohort(shared_data: Path) -> None:
    folder = shared_data / "gbmlgg"
    cases = load_cohort(CohortOptions(clinical=str(folder / "cohort.csv"))).cases
    folds = read_folds(folder / "folds.csv", cases, seed=0)
    assert sorted(case_id for fold in folds for case_id in fold.cases("test")) == cases.index.tolist()
    for fold in folds:
        _, validation, test = sizes(fold)
        assert test in (113, 114)
        assert validation == 57
        assert all(count >= 19 for count in n_events(fold, cases))
