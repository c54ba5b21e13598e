"""Gene sets: GMT files and the genes of a model that are in them."""

from __future__ import annotations

import pytest

from mmsurv.errors import CohortError, RunError
from mmsurv_train.gene_sets import GeneSets, read_gene_sets


@pytest.fixture
def write(tmp_path):
    def made(text, name="sets.gmt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return made


def test_sets_are_places_among_the_models_genes_and_the_rest_is_one_more(write):
    sets = read_gene_sets(write("S1\thttp\tA\tB\tZ\nS2\t-\tB\tC\tC\n")).matched(["C", "B", "A", "Q"], least=2)
    assert sets.names == ("S1", "S2", "genes in no set")
    assert sets.places == ((1, 2), (0, 1), (3,))
    assert GeneSets.from_table(sets.to_table()) == sets


def test_small_sets_are_left_out_by_name(write, caplog):
    sets = read_gene_sets(write("S1\t-\tA\tB\nS2\t-\tA\tX\n")).matched(["A", "B"], least=2)
    assert sets.names == ("S1",)
    assert "1 of 2 gene sets have fewer than 2 of the model's genes and are left out: S2" in caplog.text


def test_sets_of_other_names_are_refused_with_both(write):
    with pytest.raises(
        CohortError, match=r"no gene set has 1 of the model's 1 genes.*such as 'A', the model's 'ENSG1'"
    ):
        read_gene_sets(write("S1\t-\tA\n")).matched(["ENSG1"], least=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S1\t-\tA\nS1\t-\tB\n", "line 2: the set 'S1' stands there twice"),
        ("S1 A B\n", "line 1: expected a set's name, a description and its genes, separated by tabs, found 'S1 A B'"),
        ("S1\t-\t\n", "line 1: expected a set's name"),
        ("\n\n", "holds no gene set"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_what_is_no_gmt_file_is_said_with_its_line(write, text, message):
    with pytest.raises(CohortError, match=message):
        read_gene_sets(write(text))


def test_a_missing_file_and_a_damaged_table_are_named(tmp_path):
    with pytest.raises(CohortError, match=r"nothing\.gmt: cannot be read"):
        read_gene_sets(tmp_path / "nothing.gmt")
    with pytest.raises(RunError, match="its gene sets are not as this version writes them"):
        GeneSets.from_table({"names": ["S1"]})


def test_the_hallmark_sets_are_read(shared_data):
    assert len(read_gene_sets(shared_data / "gbmlgg" / "hallmark.gmt").sets) == 50
