"""The clinical table: one outcome per case, one case per slide, in the coding that was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsurv.cohort import CohortOptions
from mmsurv.cohort.clinical import Clinical, read_clinical
from mmsurv.errors import CohortError


def clinical(tmp_path: Path, content: str, **options: Any) -> Clinical:
    path = tmp_path / "clinical.csv"
    path.write_text(content, encoding="utf-8")
    return read_clinical(CohortOptions(clinical=str(path), **options))


def test_one_row_per_slide_becomes_one_row_per_case(tmp_path: Path) -> None:
    found = clinical(tmp_path, "slide_id,case_id,survival_months,vital_status\ns2,b,3,1\ns3,a,5,0\ns1,b,3.0,1\n")
    assert found.cases.index.tolist() == ["a", "b"]
    assert found.cases["time"].tolist() == [5.0, 3.0]
    assert found.cases["event"].tolist() == [False, True]
    assert found.cases["event"].dtype == bool
    assert found.slides is not None
    assert found.slides.to_numpy().tolist() == [["s1", "b"], ["s2", "b"], ["s3", "a"]]


def test_a_table_of_cases_has_no_slides(tmp_path: Path) -> None:
    assert clinical(tmp_path, "case,time,event\na,1,1\n").slides is None


def test_a_case_without_slide_is_kept(tmp_path: Path) -> None:
    found = clinical(tmp_path, "slide_id,case_id,time,event\ns1,a,1,1\n,b,2,0\n")
    assert found.cases.index.tolist() == ["a", "b"]
    assert found.slides is not None
    assert found.slides["case_id"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("coding", "header", "event", "censored"),
    [
        ("1=event", "vital_status", "1", "0"),
        ("1=event", "event", "1.0", "0.0"),
        ("dead", "vital_status", "Dead", "Alive"),
        ("dead", "vital_status", "DEAD", "alive"),
        ("censorship", "censorship", "0", "1"),
    ],
)
def test_event_codings(tmp_path: Path, coding: str, header: str, event: str, censored: str) -> None:
    found = clinical(tmp_path, f"case_id,time,{header}\na,1,{event}\nb,2,{censored}\n", event_coding=coding)
    assert found.cases["event"].to_dict() == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("coding", "cell", "match"),
    [
        ("1=event", "Dead", r"expected 0 \(censored\) or 1 \(event\), found 'Dead'.* --event-coding dead"),
        ("1=event", "2", r"expected 0 .* found '2'. Correct the cell"),
        ("dead", "1", r"expected Alive or Dead, found '1'.* --event-coding 1=event"),
        ("dead", "deceased", r"expected Alive or Dead, found 'deceased'. Correct"),
    ],
)
def test_an_unknown_code_is_refused_with_its_row(tmp_path: Path, coding: str, cell: str, match: str) -> None:
    good = "1" if coding == "1=event" else "Dead"
    content = f"case_id,time,vital_status\na,1,{good}\nb,2,{cell}\n"
    with pytest.raises(CohortError, match=rf"clinical\.csv, row 3, column 'vital_status': {match}"):
        clinical(tmp_path, content, event_coding=coding)


def test_a_coding_is_not_guessed_from_a_censorship_column(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no column of the event .* found 'case_id', 'time', 'censorship'"):
        clinical(tmp_path, "case_id,time,censorship\na,1,1\n")


def test_days_become_months(tmp_path: Path) -> None:
    found = clinical(tmp_path, "case_id,survival_days,event\na,365.25,1\n", time_unit="days")
    assert found.cases["time"].tolist() == [12.0]


def test_months_are_not_read_as_days_unless_the_column_is_named(tmp_path: Path) -> None:
    content = "case_id,survival_months,event\na,365.25,1\n"
    with pytest.raises(CohortError, match=r"no column of the time in days: expected 'survival_days' or 'time'"):
        clinical(tmp_path, content, time_unit="days")
    found = clinical(tmp_path, content, time_unit="days", time_column="survival_months")
    assert found.cases["time"].tolist() == [12.0]


@pytest.mark.parametrize(
    ("time", "event", "match"),
    [
        ("0", "1", r"column 'time': expected a time greater than zero, found '0'"),
        ("-3", "1", r"column 'time': expected a time greater than zero, found '-3'"),
        ("soon", "1", r"column 'time': expected a time in months, found 'soon'"),
        ("inf", "0", r"column 'time': expected a time in months, found 'inf'"),
        ("1_0", "0", r"column 'time': expected a time in months, found '1_0'"),
        ("", "1", r"column 'time': the time is missing, but 'event' is '1'"),
        ("NA", "0", r"column 'time': the time is missing"),
        ("4", "", r"column 'event': the outcome is missing, but 'time' is '4'"),
    ],
)
def test_an_impossible_outcome_is_refused_with_its_row(tmp_path: Path, time: str, event: str, match: str) -> None:
    with pytest.raises(CohortError, match=rf"clinical\.csv, row 4, {match}"):
        clinical(tmp_path, f"case_id,time,event\na,1,1\n\nb,{time},{event}\n")


def test_cases_without_outcome_are_listed_not_refused(tmp_path: Path) -> None:
    found = clinical(tmp_path, "case_id,time,event\na,1,1\nb,,\nc,NA,[Not Available]\n")
    assert found.cases.index.tolist() == ["a"]
    assert found.without_outcome == ("b", "c")


@pytest.mark.parametrize("other", ["5,1", "3,0", ","])
def test_one_case_with_two_outcomes_is_refused(tmp_path: Path, other: str) -> None:
    content = f"slide_id,case_id,time,event\ns1,a,3,1\ns2,b,1,1\ns3,a,{other}\n"
    with pytest.raises(CohortError, match=r"rows 2 and 4, columns 'time' and 'event': case 'a' has two outcomes"):
        clinical(tmp_path, content)


def test_a_slide_in_two_rows_is_refused_whatever_its_extension(tmp_path: Path) -> None:
    content = "wsi_file_name,case,time,event\nx.svs,a,3,1\nx.tiff,a,3,1\n"
    with pytest.raises(CohortError, match=r"rows 2 and 3, column 'wsi_file_name': slide 'x' stands in two rows"):
        clinical(tmp_path, content)


@pytest.mark.parametrize("name", ["slides/x.svs", "..", "a\\b"])
def test_a_slide_id_that_could_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CohortError, match=r"row 2, column 'slide_id': .* cannot be a slide id"):
        clinical(tmp_path, f"slide_id,case_id,time,event\n{name},a,3,1\n")


def test_a_repeated_case_without_slides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"case 'a' stands in rows 2 and 4, and no column holds slides"):
        clinical(tmp_path, "case_id,time,event\na,3,1\nb,1,0\na,3,1\n")


def test_a_blank_case_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"row 3, column 'case_id': the case id is blank"):
        clinical(tmp_path, "case_id,time,event\na,3,1\n,3,1\n")


@pytest.mark.parametrize("rows", ["a,3,0\nb,1,0\n", "a,,\n"])
def test_no_events_are_refused(tmp_path: Path, rows: str) -> None:
    with pytest.raises(CohortError, match=r"column 'event': no event among \d cases .* --event-coding 1=event"):
        clinical(tmp_path, f"case_id,time,event\n{rows}")


def test_two_columns_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    content = "case_id,time,event,vital_status\na,1,1,0\nb,2,0,1\n"
    with pytest.raises(CohortError, match=r"'event' and 'vital_status' could both be .* --event-column"):
        clinical(tmp_path, content)
    assert clinical(tmp_path, content, event_column="event").cases["event"].to_dict() == {"a": True, "b": False}


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        CohortError,
        match=r"no column 'ages', which --clinical-column, --clinical-variable or --stratum names. Did you mean 'age'",
    ):
        clinical(tmp_path, "case_id,time,event,age\na,1,1,50\n", clinical_columns=("ages",))


def test_clinical_columns_are_numbers_where_all_cells_are(tmp_path: Path) -> None:
    content = "case_id,time,event,age,site\na,1,1,50,7\nb,2,0,NA,x\nc,2,0,61.5,\n"
    cases = clinical(tmp_path, content, clinical_columns=("age", "site")).cases
    np.testing.assert_array_equal(cases["age"], [50, np.nan, 61.5])
    assert cases["site"].tolist() == ["7", "x", None]


def test_two_values_of_one_case_in_a_clinical_column_are_refused(tmp_path: Path) -> None:
    content = "slide_id,case_id,time,event,age\ns1,a,1,1,50\ns2,a,1,1,51\n"
    with pytest.raises(CohortError, match=r"rows 2 and 3, column 'age': case 'a' has two values \('50'; '51'\)"):
        clinical(tmp_path, content, clinical_columns=("age",))


def test_tcga_rule_finds_the_case_of_a_slide_without_a_case_column(tmp_path: Path) -> None:
    name = "TCGA-02-0047-01Z-00-DX1.4755D138"
    found = clinical(tmp_path, f"slide_id,time,event\n{name}.svs,1,1\n", id_rule="tcga")
    assert found.slides is not None
    assert found.slides.to_numpy().tolist() == [[name, "TCGA-02-0047"]]


def test_tcga_rule_refuses_a_slide_of_another_case(tmp_path: Path) -> None:
    content = "slide_id,case_id,time,event\nTCGA-02-0047-01Z,TCGA-02-0048,1,1\n"
    with pytest.raises(CohortError, match=r"row 2, column 'slide_id': .* 'TCGA-02-0047' by --id-rule tcga, the row"):
        clinical(tmp_path, content, id_rule="tcga")


def test_tcga_rule_refuses_other_names(tmp_path: Path) -> None:
    content = "slide_id,case_id,time,event\nCMU-1,TCGA-02-0048,1,1\n"
    with pytest.raises(CohortError, match=r"row 2, column 'slide_id': expected a TCGA barcode .* found 'CMU-1'"):
        clinical(tmp_path, content, id_rule="tcga")


def test_a_parquet_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"c\.parquet: a clinical table is read from CSV or TSV"):
        read_clinical(CohortOptions(clinical=str(tmp_path / "c.parquet")))
