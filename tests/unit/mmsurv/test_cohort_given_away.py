"""Clinical columns that say what the outcome says, and those that only seem to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmsurv.cohort import CohortOptions, load_cohort
from mmsurv.errors import CohortError

N = 40


@pytest.fixture
def table() -> pd.DataFrame:
    """Forty patients, half of them dead."""
    rng = np.random.default_rng(0)
    months = np.round(rng.exponential(30, N) + 1, 2)
    return pd.DataFrame({"case_id": [f"c{i:02d}" for i in range(N)], "survival_months": months, "event": [1, 0] * 20})


def read(table: pd.DataFrame, folder: Path, column: str, **options) -> pd.Series:
    table.to_csv(folder / "clinical.csv", index=False)
    chosen = CohortOptions(clinical=str(folder / "clinical.csv"), clinical_columns=(column,))
    return load_cohort(chosen, **options).cases[column]


COPIES = {
    "days, rounded": lambda rows: (30.4375 * rows["survival_months"]).round(),
    "months left": lambda rows: -rows["survival_months"],
    "logarithm": lambda rows: np.log(rows["survival_months"]),
    "alive": lambda rows: 1 - rows["event"],
    "state": lambda rows: rows["event"].map({1: "lost", 0: "well"}),
    "cause, of the dead only": lambda rows: rows["event"].map({1: "glioma", 0: None}),
    "one of two causes": lambda rows: pd.Series(["glioma", None, "other", None] * 10),
    "ten known days": lambda rows: rows["survival_months"].where(rows.index < 10),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_the_outcome_is_refused_under_any_name(table, tmp_path, name) -> None:
    table["x"] = COPIES[name](table)
    with pytest.raises(CohortError, match=r"clinical\.csv: column 'x' is .* in every case, and no clinical variable"):
        read(table, tmp_path, "x")


@pytest.mark.parametrize("name", ["OS.time", "os_months", "Survival (months)", "Vital-Status", "days_to_death"])
def test_so_is_a_column_by_the_name_of_an_outcome(table, tmp_path, name) -> None:
    table[name] = range(N)
    with pytest.raises(CohortError, match="is by its name an outcome"):
        read(table, tmp_path, name)


HONEST = {
    "age": lambda rows: np.random.default_rng(1).integers(20, 90, N),
    "constant": lambda rows: 1,
    "blank": lambda rows: None,
    "all but one": lambda rows: rows["event"].where(rows.index > 0, 0),
    "few of them known": lambda rows: rows["survival_months"].where(rows.index < 9),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_differs_from_it_is_not(table, tmp_path, name) -> None:
    table["x"] = HONEST[name](table)
    assert len(read(table, tmp_path, "x")) == N


def test_one_death_and_a_mutation_of_that_patient_alone_is_chance(table, tmp_path) -> None:
    table["event"] = [1] + [0] * 39
    table["TP53"] = table["event"]
    assert read(table, tmp_path, "TP53").sum() == 1


def test_a_gene_by_a_like_name_is_none(table, tmp_path) -> None:
    table["OS9"] = np.random.default_rng(2).normal(size=N)
    assert read(table, tmp_path, "OS9").notna().all()


def test_patients_to_predict_may_be_as_they_are(table, tmp_path) -> None:
    table["sex"] = table["event"].map({1: "male", 0: "female"})
    assert set(read(table, tmp_path, "sex", outcome_optional=True)) == {"male", "female"}


def test_a_column_that_has_the_name_of_the_index_is_read_as_any(table, tmp_path) -> None:
    table = table.rename(columns={"case_id": "patient"}).assign(case_id=["a", "b"] * 20)
    table.to_csv(tmp_path / "clinical.csv", index=False)
    options = {"case_column": "patient", "clinical_columns": ("case_id",)}
    with pytest.raises(CohortError, match="column 'case_id' is the same as the event"):
        load_cohort(CohortOptions(clinical=str(tmp_path / "clinical.csv"), **options))
