"""Genes of another cohort: found by name, counted, and refused when too few are there."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from mmsurv.errors import CohortError
from mmsurv_train.external.genes import align
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import RnaSettings

GENES = [f"ENSG{i:011d}" for i in range(20)]


def profiles(n: int = 40, *, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(n, len(GENES))) * scale + shift
    return pd.DataFrame(values, index=[f"p{i}" for i in range(n)], columns=GENES)


@pytest.fixture
def scale() -> Preprocess:
    return Preprocess.fit(profiles(), RnaSettings())


def test_order_and_further_genes_do_not_matter(scale: Preprocess) -> None:
    table = profiles(seed=1)
    shuffled = table[GENES[::-1]].assign(another=1.0, third=2.0)
    found = align(shuffled, [scale], least=1.0, source="rna.csv")
    assert np.array_equal(scale.rna(found.profiles), scale.rna(table))
    assert (found.missing, found.extra, found.coverage, found.warnings()) == ((), 2, 1.0, [])
    assert found.to_frame()["status"].tolist() == ["present"] * 20


def test_a_missing_gene_takes_the_training_median_as_a_missing_value_does(scale: Preprocess) -> None:
    table = profiles(seed=1)
    found = align(table.drop(columns=GENES[3]), [scale], least=0.9, source="rna.csv")
    blank = table.copy()
    blank[GENES[3]] = np.nan
    assert np.array_equal(scale.rna(found.profiles), scale.rna(blank))
    assert found.coverage == 0.95
    assert found.warnings() == [f"1 of the model's 20 genes are missing and take their training median: {GENES[3]}."]
    assert found.to_frame().set_index("gene")["status"][GENES[3]] == "missing"


def test_a_gene_without_any_value_is_missing(scale: Preprocess) -> None:
    table = profiles(seed=1)
    table[GENES[0]] = np.nan
    assert align(table, [scale], least=0.9, source="rna.csv").missing == (GENES[0],)


def test_of_several_models_the_least_covered_counts(scale: Preprocess) -> None:
    half = Preprocess.fit(profiles()[GENES[:10]], RnaSettings())
    table = profiles(seed=1).drop(columns=GENES[:2])
    found = align(table, [scale, half], least=0.8, source="rna.csv")
    assert (found.coverage, found.genes) == (0.8, tuple(GENES))


def test_too_few_genes_are_refused_with_numbers_names_and_what_to_do(scale: Preprocess) -> None:
    table = profiles(seed=1)[GENES[:15]]
    with pytest.raises(CohortError) as caught:
        align(table, [scale], least=0.9, source="new/rna.csv")
    said = str(caught.value)
    assert said.startswith("new/rna.csv: 75.0% of the model's genes are there, and at least 90.0% are asked for")
    assert f"5 of 20 are missing: {', '.join(GENES[15:])}." in said
    assert "With a lower --min-gene-coverage" in said


@pytest.mark.parametrize(
    ("rename", "remedy"),
    [
        (lambda name: f"{name}.7", "20 of them are there with a version in their name: say --strip-ensembl-versions."),
        (str.lower, "20 of them are there in other letters"),
        (lambda name: f"gene {name}", "Its genes are named like 'gene ENSG00000000000', the model's like"),
    ],
)
def test_another_spelling_is_pointed_out(scale: Preprocess, rename, remedy: str) -> None:
    with pytest.raises(CohortError, match=remedy):
        align(profiles(seed=1).rename(columns=rename), [scale], least=0.9, source="rna.csv")


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"shift": 100.0}, "100.0% of its values lie outside the clip borders"),
        ({"scale": 0.1}, r"mean \|z\| on the training scale is 0\.\d\d, where about 0.8 is usual"),
        ({"scale": 3.0}, "Another normalisation"),
    ],
)
def test_another_normalisation_is_warned_of(scale: Preprocess, changes: dict[str, float], sign: str) -> None:
    (line,) = align(profiles(seed=1, **changes), [scale], least=0.9, source="rna.csv").warnings()
    assert re.search(sign, line)


def test_genes_that_are_not_standardised_have_no_deviation() -> None:
    plain = Preprocess.fit(profiles(), RnaSettings(standardise=False, clip=0.0))
    found = align(profiles(seed=1, shift=100.0), [plain], least=0.9, source="rna.csv")
    assert (found.outside, found.deviation, found.warnings()) == (None, None, [])
