"""Clinical variables as numbers: coding, imputation and scales are the training part's."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest

from mmsurv.errors import CohortError, RunError
from mmsurv_train.clinical import ClinicalCoding


def table(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.Index([f"case-{i}" for i in range(n)], name="case_id"))


AGES = [30.0, 40.0, 50.0, 60.0]


def test_numbers_become_z_scores_of_the_training_part():
    coding = ClinicalCoding.fit(table(age=AGES))
    assert coding.names == ("age",)
    np.testing.assert_allclose(coding.matrix(table(age=[45.0, 45.0 + np.std(AGES)]))[:, 0], [0, 1], atol=1e-6)
    assert coding.matrix(table(age=AGES)).dtype == np.float32


def test_a_missing_number_is_the_training_median_and_is_flagged():
    coding = ClinicalCoding.fit(table(age=[30.0, np.nan, 50.0, 100.0]))
    assert coding.names == ("age", "age=missing")
    found = coding.matrix(table(age=[np.nan, 50.0]))
    assert found[0, 0] == found[1, 0]
    assert found[:, 1].tolist() == [1, 0]


def test_text_becomes_a_column_for_each_level():
    coding = ClinicalCoding.fit(table(code=["GBM", "ODG", "GBM", "ODG"]), rare=1)
    assert coding.names == ("code=GBM", "code=ODG")
    assert coding.matrix(table(code=["ODG", "GBM"])).tolist() == [[0, 1], [1, 0]]


def test_rare_levels_are_one_and_unknown_ones_count_as_it(caplog):
    coding = ClinicalCoding.fit(table(code=["A"] * 5 + ["B", "C"]), rare=3)
    assert coding.names == ("code=A", "code=other")
    with caplog.at_level(logging.WARNING, logger="mmsurv"):
        found = coding.matrix(table(code=["B", "Z", "A"]))
    assert found.tolist() == [[0, 1], [0, 1], [1, 0]]
    assert (
        "Column 'code': 1 patients have levels that no training patient had (Z); they count as 'other'" in caplog.text
    )


def test_an_unknown_level_without_rare_ones_is_none_of_the_known(caplog):
    coding = ClinicalCoding.fit(table(code=["A", "B", "A", "B"]), rare=1)
    assert coding.matrix(table(code=["Z"])).tolist() == [[0, 0]]
    assert "they count as none of the known ones" in caplog.text


def test_missing_text_is_a_level_of_its_own():
    coding = ClinicalCoding.fit(table(code=["A", None, "A", "B"]), rare=1)
    assert coding.names == ("code=A", "code=B", "code=missing")
    assert coding.matrix(table(code=[None])).tolist() == [[0, 0, 1]]


def test_what_does_not_vary_is_dropped_by_name(caplog):
    coding = ClinicalCoding.fit(table(age=AGES, site=["x"] * 4))
    assert (coding.names, coding.dropped) == (("age",), ("site",))
    assert "do not vary in the training part are dropped: site" in caplog.text
    with pytest.raises(CohortError, match="None of the clinical variables 'site' varies among the 4 training patients"):
        ClinicalCoding.fit(table(site=["x"] * 4))


def test_a_column_that_is_gone_or_changed_its_kind_is_named():
    coding = ClinicalCoding.fit(table(age=AGES))
    with pytest.raises(CohortError, match="has no column 'age', which the model was trained with"):
        coding.matrix(table(sex=["m"]))
    with pytest.raises(CohortError, match=r"'age' held numbers in the training part, now 'old' \(case 'case-0'\)"):
        coding.matrix(table(age=["old"]))


def test_it_is_the_same_after_json():
    coding = ClinicalCoding.fit(table(age=[30.1, np.nan, 50.0, 60.0], code=["A", "B", None, "A"]), rare=2)
    again = ClinicalCoding.from_table(json.loads(json.dumps(coding.to_table())))
    assert again == coding
    with pytest.raises(RunError, match="its clinical variables are not as this version writes them"):
        ClinicalCoding.from_table({"variables": [{"kind": "else"}], "dropped": []})
