"""What holds for the C-index and its bootstrap whatever the cohort."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv_train import metrics


@st.composite
def cohorts(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Risks (with ties), whole-month times (with ties), events and patients of 2 to 20 slides."""
    n = draw(st.integers(2, 20))
    whole = st.integers(-3, 3)
    patient = np.array(draw(st.lists(st.integers(0, 7), min_size=n, max_size=n)))
    time = np.array(draw(st.lists(st.integers(1, 6), min_size=8, max_size=8)), float)
    event = np.array(draw(st.lists(st.booleans(), min_size=8, max_size=8)))
    risk = np.array(draw(st.lists(whole, min_size=n, max_size=n)), float)
    return risk, time[patient], event[patient], patient.astype(str)


@given(cohorts())
def test_reversing_the_risks_mirrors_the_c_index(cohort) -> None:
    risk, time, event, _ = cohort
    value, mirrored = metrics.c_index(risk, time, event).value, metrics.c_index(-risk, time, event).value
    if value is None:
        assert mirrored is None
        assert metrics.comparable_pairs(time, event) == 0
    else:
        assert 0 <= value <= 1
        assert mirrored is not None
        assert abs(value + mirrored - 1) < 1e-12


@given(cohorts())
def test_a_monotone_change_of_risk_keeps_the_c_index(cohort) -> None:
    risk, time, event, _ = cohort
    assert metrics.c_index(risk, time, event) == metrics.c_index(np.exp(risk), time, event)


@settings(max_examples=50)
@given(cohorts(), st.integers(0, 2**32 - 1))
def test_every_draw_is_a_c_index_or_undefined(cohort, seed) -> None:
    draws = metrics.bootstrap_c_index(*cohort, n_resamples=20, seed=seed)
    defined = draws[np.isfinite(draws)]
    assert ((defined >= 0) & (defined <= 1)).all()
    if metrics.comparable_pairs(cohort[1], cohort[2]) == 0:
        assert len(defined) == 0


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_every_resample_draws_as_many_patients_as_there_are(n_patients, seed) -> None:
    draws = metrics.resample_patients(n_patients, n_resamples=5, seed=seed)
    assert draws.shape == (5, n_patients)
    assert (draws.sum(axis=1) == n_patients).all()


@given(cohorts())
def test_uno_with_an_uncensored_reference_is_harrell_truncated_at_tau(cohort) -> None:
    risk, time, event, _ = cohort
    reference = metrics.Reference(name="train", time=np.arange(1.0, 9.0), event=np.ones(8, bool), tau=7.0)
    uno = metrics.c_index_ipcw(risk, time, event, reference)
    harrell = metrics.c_index(risk, time, event)
    if harrell.value is None:
        assert uno.value is None
    else:
        assert uno.value is not None
        assert abs(uno.value - harrell.value) < 1e-12
