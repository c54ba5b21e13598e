"""RNA profiles: one per case, genes once, values numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmsurv.cohort import CohortOptions
from mmsurv.cohort.clinical import read_clinical
from mmsurv.cohort.rna import Rna, read_rna, read_rna_of_clinical
from mmsurv.errors import CohortError


def rna(tmp_path: Path, content: str, **options: Any) -> Rna:
    path = tmp_path / "rna.csv"
    path.write_text(content, encoding="utf-8")
    return read_rna(CohortOptions(clinical="unread.csv", rna=str(path), **options))


def single_file(tmp_path: Path, content: str) -> Rna | None:
    path = tmp_path / "cohort.csv"
    path.write_text(content, encoding="utf-8")
    options = CohortOptions(clinical=str(path))
    return read_rna_of_clinical(read_clinical(options), options)


@pytest.mark.parametrize("key", ["case_id", "case", "", "sample"])
def test_the_key_is_known_by_name_or_is_the_first_column(tmp_path: Path, key: str) -> None:
    profiles = rna(tmp_path, f"{key},TP53,EGFR\nb,1,2\na,3,\n").profiles
    expected = pd.DataFrame([[1.0, 2.0], [3.0, np.nan]], index=["b", "a"], columns=["TP53", "EGFR"])
    pd.testing.assert_frame_equal(profiles, expected, check_names=False, check_index_type=False)


def test_a_named_key_may_stand_anywhere(tmp_path: Path) -> None:
    assert rna(tmp_path, "TP53,who\n1,a\n", rna_case_column="who").profiles.index.tolist() == ["a"]


def test_row_numbers_beside_case_ids_are_not_a_gene(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"row 1, column '': a row index beside the case ids of 'case_id'"):
        rna(tmp_path, ",case_id,TP53\n0,a,1\n")


@pytest.mark.parametrize("name", [None, "case_id"])
def test_parquet_written_by_pandas_with_case_ids_as_index(tmp_path: Path, name: str | None) -> None:
    frame = pd.DataFrame({"TP53": [1.0, 2.0], "EGFR": [0.5, np.nan]}, index=pd.Index(["b", "a"], name=name))
    frame.to_parquet(tmp_path / "rna.parquet")
    profiles = read_rna(CohortOptions(clinical="unread.csv", rna=str(tmp_path / "rna.parquet"))).profiles
    assert profiles.index.tolist() == ["b", "a"]
    assert profiles.columns.tolist() == ["TP53", "EGFR"]
    np.testing.assert_array_equal(profiles, frame)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("case_id,TP53\na,1\nb,high\n", r"row 3, column 'TP53': expected a number, found 'high'"),
        ("case_id,TP53\na,-inf\n", r"row 2, column 'TP53': the value is infinite"),
        ("case_id,TP53,TP53\na,1,2\n", r"row 1: 'TP53' names both column 2 and column 3"),
        ("case_id,TP53\na,1\nb,2\na,1\n", r"rows 2 and 4, column 'case_id': case 'a' has two RNA profiles"),
        ("case_id,TP53\n,1\n", r"row 2, column 'case_id': the case id is blank"),
        ("case_id\na\n", r"no gene, only 'case_id'"),
    ],
)
def test_refusals_name_the_place(tmp_path: Path, content: str, match: str) -> None:
    with pytest.raises(CohortError, match=rf"rna\.csv.*{match}"):
        rna(tmp_path, content)


def test_tcga_barcodes_become_case_ids(tmp_path: Path) -> None:
    content = "case_id,TP53\nTCGA-02-0047-01A-01R,1\nTCGA-02-0048,2\n"
    assert rna(tmp_path, content, id_rule="tcga").profiles.index.tolist() == ["TCGA-02-0047", "TCGA-02-0048"]


def test_two_aliquots_of_one_tcga_case_are_refused(tmp_path: Path) -> None:
    content = "case_id,TP53\nTCGA-02-0047-01A,1\nTCGA-02-0047-02A,2\n"
    with pytest.raises(CohortError, match=r"rows 2 and 3.*'TCGA-02-0047' has two RNA profiles \('TCGA-02-0047-01A'"):
        rna(tmp_path, content, id_rule="tcga")


def test_tcga_rule_refuses_other_names(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"row 2, column 'case_id': expected a TCGA barcode .* found 'patient 1'"):
        rna(tmp_path, "case_id,TP53\npatient 1,1\n", id_rule="tcga")


def test_log2_by_option(tmp_path: Path) -> None:
    profiles = rna(tmp_path, "case_id,A,B,C\na,0,7,\n", rna_log2=True).profiles
    np.testing.assert_array_equal(profiles, [[0.0, 3.0, np.nan]])


def test_log2_of_negative_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"row 3, column 'B': -0.5 is negative, so --rna-log2 does not apply"):
        rna(tmp_path, "case_id,A,B\na,0,7\nb,1,-0.5\n", rna_log2=True)


def test_ensembl_versions_stay_unless_asked_to_go(tmp_path: Path) -> None:
    content = "case_id,ENSG00000141510.18,ENSG00000182378.13_PAR_Y,GENE.1\na,1,2,3\n"
    assert rna(tmp_path, content).profiles.columns[0] == "ENSG00000141510.18"
    stripped = rna(tmp_path, content, strip_ensembl_versions=True).profiles.columns.tolist()
    assert stripped == ["ENSG00000141510", "ENSG00000182378_PAR_Y", "GENE.1"]


def test_two_versions_of_one_gene_are_refused_once_stripped(tmp_path: Path) -> None:
    content = "case_id,ENSG00000141510.17,ENSG00000141510.18\na,1,2\n"
    with pytest.raises(CohortError, match=r"'ENSG00000141510\.17' and 'ENSG00000141510\.18' are both gene"):
        rna(tmp_path, content, strip_ensembl_versions=True)


def test_a_profile_without_any_value_is_no_rna(tmp_path: Path) -> None:
    found = rna(tmp_path, "case_id,A,B\na,1,\nb,,NA\n")
    assert found.profiles.index.tolist() == ["a"]
    assert found.without_values == ("b",)


def test_single_file_form_takes_one_profile_per_case(tmp_path: Path) -> None:
    content = (
        "\ufeffcase,survival_months,vital_status,wsi_file_name,rna_TP53,rna_1\n"
        "b,3,1,b1.svs,0.5,\nb,3,1,b2.svs,0.50,\na,4,0,a1.svs,2,1\n"
    )
    found = single_file(tmp_path, content)
    assert found is not None
    assert found.profiles.columns.tolist() == ["TP53", "1"]
    np.testing.assert_array_equal(found.profiles.loc[["a", "b"]], [[2, 1], [0.5, np.nan]])


def test_single_file_form_refuses_two_profiles_of_one_case(tmp_path: Path) -> None:
    content = "case,time,event,slide_id,rna_0,rna_1\na,3,1,s1,0.5,1\na,3,1,s2,0.5,\n"
    with pytest.raises(CohortError, match=r"rows 2 and 3, column 'rna_1': case 'a' has two RNA profiles"):
        single_file(tmp_path, content)


def test_a_clinical_table_without_rna_columns_has_no_rna(tmp_path: Path) -> None:
    assert single_file(tmp_path, "case,time,event\na,3,1\n") is None
