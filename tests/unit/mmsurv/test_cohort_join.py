"""The join: by id only, and what did not join is in the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsurv.cohort import Cohort, CohortOptions, load_cohort
from mmsurv.errors import CohortError

SLIDES = "slide_id,case_id,time,event\ns1,a,1,1\ns2,b,2,0\ns3,c,3,1\ns4,d,,\n,e,4,0\n"
CASES = "case_id,time,event\na,1,1\nb,2,0\n"
RNA = "case_id,A,B\nz,9,9\nc,3,\na,1,5\nd,4,4\ne,2,\n"


def join(
    tmp_path: Path, clinical: str, rna: str | None = None, store: Iterable[str] | None = None, **options: Any
) -> Cohort:
    (tmp_path / "clinical.csv").write_text(clinical, encoding="utf-8")
    if rna is not None:
        (tmp_path / "rna.csv").write_text(rna, encoding="utf-8")
        options["rna"] = str(tmp_path / "rna.csv")
    return load_cohort(CohortOptions(clinical=str(tmp_path / "clinical.csv"), **options), store_slides=store)


def test_rna_is_joined_by_id_not_by_row(tmp_path: Path) -> None:
    cohort = join(tmp_path, SLIDES, RNA)
    assert cohort.rna is not None
    assert cohort.rna.index.tolist() == ["a", "c", "e"]
    np.testing.assert_array_equal(cohort.rna["A"], [1.0, 3.0, 2.0])


def test_row_order_of_no_table_matters(tmp_path: Path) -> None:
    def shuffled(table: str) -> str:
        header, *rows = table.splitlines()
        return "\n".join([header, *reversed(rows)]) + "\n"

    one, other = join(tmp_path, SLIDES, RNA), join(tmp_path, shuffled(SLIDES), shuffled(RNA))
    assert one.rna is not None
    assert other.rna is not None
    assert one.cases.equals(other.cases)
    assert one.slides.equals(other.slides)
    assert one.rna.equals(other.rna)
    assert one.report == other.report


def test_the_report_lists_all_that_did_not_join(tmp_path: Path) -> None:
    report = join(tmp_path, SLIDES, RNA, store=["s1", "s3", "s4", "x"]).report
    assert (report.n_cases, report.n_events, report.n_slides) == (4, 2, 2)
    assert (report.n_cases_with_rna, report.n_cases_with_slides, report.n_cases_with_both) == (3, 2, 2)
    assert report.cases_without_outcome == ("d",)
    assert report.cases_without_slides == ("b", "e")
    assert report.cases_without_rna == ("b",)
    assert report.slides_without_outcome == ("s4",)
    assert report.slides_without_rna == ()
    assert report.rna_without_case == ("d", "z")
    assert report.rna_without_slides == ("e",)
    assert report.slides_not_in_store == ("s2",)
    assert report.store_slides_without_case == ("x",)


def test_slides_without_rna_are_listed(tmp_path: Path) -> None:
    assert join(tmp_path, SLIDES, RNA).report.slides_without_rna == ("s2",)


def test_missing_values_are_kept_and_counted(tmp_path: Path) -> None:
    cohort = join(tmp_path, SLIDES, "case_id,A,B,C\na,,1,\nc,2,2,\n")
    assert cohort.rna is not None
    assert np.isnan(cohort.rna.loc["a", "A"])
    report = cohort.report
    assert report.missing_values == 3
    assert report.genes_with_missing_values == {"A": 1, "C": 2}
    assert report.genes_without_values == ("C",)
    assert "genes without any value: C" in report.to_text()


def test_the_report_has_a_text_and_a_json_form(tmp_path: Path) -> None:
    report = join(tmp_path, SLIDES, RNA, store=["s1"]).report
    table = json.loads(json.dumps(report.to_table()))
    assert table["rna_without_case"] == ["d", "z"]
    assert table["reading"]["event_coding"] == "1=event"
    assert "RNA without case: 2 (d, z)" in report.to_text()


def test_long_lists_are_cut_short_in_the_text_only(tmp_path: Path) -> None:
    clinical = CASES + "".join(f"n{i},,\n" for i in range(9))
    report = join(tmp_path, clinical).report
    assert "cases without outcome: 9 (n0, n1, n2, n3, n4 and 4 more)" in report.to_text()
    assert len(report.to_table()["cases_without_outcome"]) == 9


def test_the_table_says_which_slides_of_the_store_belong(tmp_path: Path) -> None:
    cohort = join(tmp_path, SLIDES, store=["s2", "s1", "s9"])
    assert cohort.slides.to_numpy().tolist() == [["s1", "a"], ["s2", "b"]]
    assert cohort.cases.index.tolist() == ["a", "b", "c", "e"]


def test_a_table_of_cases_takes_its_slides_from_the_store_by_rule(tmp_path: Path) -> None:
    clinical = "case_id,time,event\nTCGA-02-0047,1,1\nTCGA-02-0048,2,0\n"
    store = ["TCGA-02-0047-01Z-00-DX2", "TCGA-02-0047-01Z-00-DX1", "TCGA-02-0099-01Z", "CMU-1"]
    cohort = join(tmp_path, clinical, store=store, id_rule="tcga")
    assert cohort.slides["slide_id"].tolist() == ["TCGA-02-0047-01Z-00-DX1", "TCGA-02-0047-01Z-00-DX2"]
    assert set(cohort.slides["case_id"]) == {"TCGA-02-0047"}
    assert cohort.report.store_slides_without_case == ("CMU-1", "TCGA-02-0099-01Z")


def test_without_a_rule_a_slide_named_as_its_case_joins(tmp_path: Path) -> None:
    assert join(tmp_path, CASES, store=["a", "x"]).slides.to_numpy().tolist() == [["a", "a"]]


def test_a_table_of_cases_without_a_store_has_no_slides(tmp_path: Path) -> None:
    cohort = join(tmp_path, CASES, RNA)
    assert cohort.slides.empty
    assert cohort.slides.columns.tolist() == ["slide_id", "case_id"]
    assert cohort.report.n_slides is None
    assert cohort.report.rna_without_slides == ()


@pytest.mark.parametrize(
    ("rna", "match"),
    [
        ("case_id,A\nx,1\n", r"no RNA profile belongs to a case .*'a', RNA rows 'x'.* --id-rule tcga"),
        ("gene,a,b\nTP53,1,2\n", r"Transpose it: one row per case"),
        ("case_id,A\na,\nb,\n", r"every profile of the table is without values"),
    ],
)
def test_rna_of_no_case_is_refused(tmp_path: Path, rna: str, match: str) -> None:
    with pytest.raises(CohortError, match=match):
        join(tmp_path, CASES, rna)


@pytest.mark.parametrize(
    ("clinical", "store", "match"),
    [
        (SLIDES, ["x9"], r"the table has slides such as 's1', the store 'x9'. .*--slide-column"),
        (CASES, ["x9"], r"the table has cases such as 'a', the store 'x9'. .*--id-rule tcga"),
        (SLIDES, ["s4"], r"no slide of the store belongs to a case with outcome"),
        (SLIDES, [], r"The store holds no slide yet"),
    ],
)
def test_a_store_of_other_slides_is_refused(tmp_path: Path, clinical: str, store: list[str], match: str) -> None:
    with pytest.raises(CohortError, match=match):
        join(tmp_path, clinical, store=store)


def test_an_rna_table_is_used_instead_of_rna_columns(tmp_path: Path) -> None:
    cohort = join(tmp_path, "case_id,time,event,rna_A\na,1,1,100\n", "case_id,A\na,1\n")
    assert cohort.rna is not None
    assert cohort.rna.loc["a", "A"] == 1.0


def test_restrict_keeps_what_was_named(tmp_path: Path) -> None:
    cohort = join(tmp_path, SLIDES, RNA)
    part = cohort.restrict(case_ids=["c", "b"])
    assert part.cases.index.tolist() == ["b", "c"]
    assert part.slides["slide_id"].tolist() == ["s2", "s3"]
    assert part.rna is not None
    assert part.rna.index.tolist() == ["c"]
    fewer = cohort.restrict(slide_ids=["s3"])
    assert fewer.slides["slide_id"].tolist() == ["s3"]
    assert fewer.cases.equals(cohort.cases)


def test_restrict_refuses_ids_of_other_cohorts(tmp_path: Path) -> None:
    cohort = join(tmp_path, CASES)
    with pytest.raises(CohortError, match=r"1 case ids are not of this cohort, the first 'q'"):
        cohort.restrict(case_ids=["a", "q"])
    with pytest.raises(CohortError, match=r"No case is left"):
        cohort.restrict(case_ids=[])


def test_real_glioma_cohort_joins_whole(shared_data: Path) -> None:
    folder = shared_data / "gbmlgg"
    options = CohortOptions(
        clinical=str(folder / "cohort.csv"),
        rna=str(folder / "rna.csv.gz"),
        id_rule="tcga",
        clinical_columns=("age", "oncotree_code"),
    )
    cohort = load_cohort(options)
    report = cohort.report
    assert (report.n_cases, report.n_events, report.n_slides, report.n_genes) == (569, 187, 1011, 1544)
    assert "nothing: every id has its partner" in report.to_text()
    assert cohort.rna is not None
    assert cohort.rna.index.equals(cohort.cases.index)
    assert cohort.cases["age"].dtype == float
    assert set(cohort.cases["oncotree_code"]) >= {"GBM"}
    assert cohort.slides["slide_id"].str.contains("DX1.4755D138", regex=False).any()
