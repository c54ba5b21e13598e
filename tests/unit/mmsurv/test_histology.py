"""Which histologies are glioblastoma, which lower-grade glioma, and which neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsurv.cohort import CohortOptions, load_cohort
from mmsurv.cohort.histology import glioma_group, histology_column


@pytest.mark.parametrize("value", ["GBM", "gbm ", "TCGA-GBM", "Glioblastoma Multiforme", "Glioblastoma, IDH-wildtype"])
def test_glioblastomas(value: str) -> None:
    assert glioma_group(value) == "GBM"


@pytest.mark.parametrize(
    "value",
    ["AASTR", "AOAST", "ASTR", "OAST", "ODG", "LGG", "TCGA-LGG", "Anaplastic astrocytoma", "Oligodendroglioma, NOS",
     "lower grade glioma", "Oligoastrocytoma"],
)  # fmt: skip
def test_lower_grade_gliomas(value: str) -> None:
    assert glioma_group(value) == "LGG"


@pytest.mark.parametrize("value", ["", "LUAD", "NA", "Astrocytoma, IDH-mutant, grade 4", "meningioma", "GBMLGG"])
def test_what_is_neither(value: str) -> None:
    assert glioma_group(value) is None


def test_the_first_known_column_counts() -> None:
    assert histology_column(["case_id", "histology", "oncotree_code"]) == "oncotree_code"
    assert histology_column(["case_id", "age"]) is None


def read(folder: Path, text: str):
    (folder / "clinical.csv").write_text(text)
    return load_cohort(CohortOptions(clinical=str(folder / "clinical.csv")))


def test_a_cohort_knows_the_group_of_each_case_and_keeps_it_when_restricted(tmp_path: Path) -> None:
    cohort = read(
        tmp_path,
        "slide_id,case_id,time,event,histology\ns1,b,5,1,GBM\ns2,a,6,0,ODG\ns3,a,6,0,ASTR\ns4,c,7,1,other\n"
        "s5,d,8,1,GBM\ns6,d,8,1,ODG\n",
    )
    assert cohort.histology is not None
    assert cohort.histology.name == "histology"
    assert cohort.histology.to_dict() == {"a": "LGG", "b": "GBM", "c": None, "d": None}  # d's rows say both
    assert "histology" not in cohort.cases
    only = cohort.restrict(case_ids=["b"]).histology
    assert only is not None
    assert only.to_dict() == {"b": "GBM"}


def test_a_table_without_such_a_column_has_no_groups(tmp_path: Path) -> None:
    assert read(tmp_path, "case_id,time,event\na,5,1\n").histology is None
