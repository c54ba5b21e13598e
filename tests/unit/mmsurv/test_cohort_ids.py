"""Slide names become slide ids, and slide names or barcodes case ids."""

from __future__ import annotations

import pytest

from mmsurv.cohort.ids import case_id_of, slide_id_of


@pytest.mark.parametrize(
    ("name", "slide_id"),
    [
        ("a.svs", "a"),
        ("a.SVS", "a"),
        ("a.ome.tiff", "a.ome"),
        ("a.b.ndpi", "a.b"),
        ("TCGA-02-0047-01Z-00-DX1.4755D138-5842", "TCGA-02-0047-01Z-00-DX1.4755D138-5842"),
        ("TCGA-02-0047-01Z-00-DX1.4755D138-5842.svs", "TCGA-02-0047-01Z-00-DX1.4755D138-5842"),
        ("slide.v2", "slide.v2"),
        (".svs", ".svs"),
    ],
)
def test_one_known_extension_is_dropped_and_other_dots_survive(name: str, slide_id: str) -> None:
    assert slide_id_of(name) == slide_id


@pytest.mark.parametrize(
    ("name", "case_id"),
    [
        ("TCGA-02-0047-01Z-00-DX1.4755D138", "TCGA-02-0047"),
        ("TCGA-02-0047", "TCGA-02-0047"),
        ("TCGA-02-0047.x", "TCGA-02-0047"),
        ("TCGA-02-00471", None),
        ("tcga-02-0047", None),
        ("CMU-1", None),
        ("X-TCGA-02-0047", None),
    ],
)
def test_tcga_rule_takes_the_first_twelve_characters_of_barcodes_only(name: str, case_id: str | None) -> None:
    assert case_id_of(name, "tcga") == case_id


def test_without_a_rule_a_name_is_its_own_case() -> None:
    assert case_id_of("TCGA-02-0047-01Z", "none") == "TCGA-02-0047-01Z"
