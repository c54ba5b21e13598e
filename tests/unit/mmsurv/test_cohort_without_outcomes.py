"""A cohort that is to be predicted: outcomes may be missing, in some rows or altogether."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsurv.cohort import CohortOptions, load_cohort
from mmsurv.errors import CohortError


def options(folder: Path, text: str, **further) -> CohortOptions:
    (folder / "clinical.csv").write_text(text)
    return CohortOptions(clinical=str(folder / "clinical.csv"), **further)


def test_a_table_without_outcome_columns_is_read_only_where_outcomes_are_optional(tmp_path: Path) -> None:
    asked = options(tmp_path, "case_id,slide_id,age\na,s1,40\na,s2,40\nb,s3,50\n", clinical_columns=("age",))
    with pytest.raises(CohortError, match="no column of the time in months"):
        load_cohort(asked)
    cohort = load_cohort(asked, outcome_optional=True)
    assert cohort.cases.index.tolist() == ["a", "b"]
    assert cohort.cases["time"].isna().all()
    assert (cohort.cases["event"].dtype, cohort.cases["age"].tolist()) == (bool, [40, 50])
    assert cohort.slides["slide_id"].tolist() == ["s1", "s2", "s3"]
    assert "cases     2, without outcomes" in cohort.report.to_text()
    json.dumps(cohort.report.to_table(), allow_nan=False)


def test_a_case_without_outcome_is_kept_among_others(tmp_path: Path) -> None:
    asked = options(tmp_path, "case_id,time,event\na,10,1\nb,,\nc,20,0\n")
    assert load_cohort(asked).cases.index.tolist() == ["a", "c"]
    cohort = load_cohort(asked, outcome_optional=True)
    assert cohort.cases["time"].isna().tolist() == [False, True, False]
    assert cohort.report.cases_without_outcome == ("b",)
    assert cohort.report.months == {"least": 10.0, "median": 15.0, "greatest": 20.0}


def test_a_cohort_without_an_event_can_be_predicted(tmp_path: Path) -> None:
    asked = options(tmp_path, "case_id,time,event\na,10,0\n")
    with pytest.raises(CohortError, match="no event among 1 cases"):
        load_cohort(asked)
    assert load_cohort(asked, outcome_optional=True).cases["time"].tolist() == [10.0]


@pytest.mark.parametrize(
    ("text", "further", "message"),
    [
        ("case_id,time\na,10\n", {}, "no column of the event"),
        ("case_id,event\na,1\n", {}, "no column of the time"),
        ("case_id,months\na,1\n", {"time_column": "months"}, "no column of the event"),
        ("case_id\na\n", {"event_column": "died"}, "no column of the time"),
        ("case_id,time,event\na,10,\n", {}, "the outcome is missing"),
        ("case_id,time,event\na,0,1\n", {}, "greater than zero"),
    ],
)
def test_half_an_outcome_is_refused_all_the_same(tmp_path: Path, text: str, further, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        load_cohort(options(tmp_path, text, **further), outcome_optional=True)
