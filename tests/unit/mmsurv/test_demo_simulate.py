"""The simulated cohort: what is drawn, and that risk does to survival what its formula says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest

from mmsurv.demo.simulate import Simulated, SimulationSettings, paint_slide, simulate


@pytest.fixture(scope="module")
def cohort() -> Simulated:
    return simulate(SimulationSettings(patients=400, seed=5))


def test_about_a_third_is_censored_and_a_quarter_has_two_slides(cohort: Simulated) -> None:
    cases = cohort.clinical.drop_duplicates("case_id")
    assert len(cases) == 400
    assert 1 - cases["vital_status"].mean() == pytest.approx(0.35, abs=0.01)
    assert len(cohort.clinical) / len(cases) == pytest.approx(1.25, abs=0.06)
    assert (cases["survival_months"] > 0).all()


def test_both_slides_of_a_patient_have_one_outcome(cohort: Simulated) -> None:
    columns = ["survival_months", "vital_status", "age", "sex", "histology"]
    assert (cohort.clinical.groupby("case_id")[columns].nunique() == 1).all(axis=None)


def test_the_higher_risk_dies_earlier(cohort: Simulated) -> None:
    cases = cohort.clinical.drop_duplicates("case_id").set_index("case_id")
    high = cohort.truth["log_risk"] > cohort.truth["log_risk"].median()
    assert cases["survival_months"][high].median() < 0.5 * cases["survival_months"][~high].median()


def test_which_bleeding_carries_risk_depends_on_the_state(cohort: Simulated) -> None:
    hypoxic = next(patient for patient in cohort.patients.values() if patient.hypoxic)
    bled = replace(hypoxic, necrosis_bleeding=hypoxic.necrosis_bleeding + 1)
    assert bled.log_risk == pytest.approx(hypoxic.log_risk + 2.0)
    elsewhere = replace(hypoxic, vascular_bleeding=hypoxic.vascular_bleeding + 1)
    assert elsewhere.log_risk == hypoxic.log_risk
    angiogenic = replace(bled, hypoxic=False)
    assert angiogenic.log_risk == replace(hypoxic, hypoxic=False).log_risk


def test_rna_shows_the_state_and_not_the_bleeding(cohort: Simulated) -> None:
    state = cohort.rna.filter(like="SIM_STATE_")
    by_gene = state.corrwith(cohort.truth["hypoxic"].astype(float)).abs()
    assert by_gene.min() > 0.4
    assert cohort.rna.corrwith(cohort.truth["necrosis_bleeding"]).abs().max() < 0.2


def test_a_larger_cohort_begins_with_the_same_patients() -> None:
    few, many = (simulate(SimulationSettings(patients=n, seed=1)).patients for n in (12, 30))
    assert list(many.items())[:12] == list(few.items())


def test_the_seed_decides_everything() -> None:
    first, again, other = (simulate(SimulationSettings(patients=12, seed=seed)) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.clinical, again.clinical)
    pd.testing.assert_frame_equal(first.rna, again.rna)
    assert not np.allclose(first.rna, other.rna)


def test_a_slide_is_the_same_bytes_again_and_another_for_the_second_letter(tmp_path: Path) -> None:
    settings = SimulationSettings(patients=10, slide_px=700)
    patient = simulate(settings).patients["SIM-001"]
    for name, slide_id in (("a", "SIM-001-A"), ("again", "SIM-001-A"), ("b", "SIM-001-B")):
        paint_slide(tmp_path / f"{name}.tiff", settings, patient, slide_id)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tiff", "again.tiff", "b.tiff"]
    written = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert written["a"] == written["again"] != written["b"]
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patients": 9}, "patients must be within 10 and 999, not 9"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"slide_px": 50}, "slide_px must be within 700 and 10000"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**change)
