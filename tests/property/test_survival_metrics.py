"""What holds for AUC, predicted survival, Brier scores and D-calibration whatever the cohort."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv_train import metrics
from mmsurv_train.cox import breslow_baseline

Cohort = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def cohorts(draw) -> Cohort:
    """Risks and whole-month times with ties, and events, of 2 to 20 patients of whom one at least died."""
    n = draw(st.integers(2, 20))
    risk = np.array(draw(st.lists(st.integers(-30, 30), min_size=n, max_size=n)), float)
    time = np.array(draw(st.lists(st.integers(1, 8), min_size=n, max_size=n)), float)
    event = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    event[draw(st.integers(0, n - 1))] = True
    return risk, time, event


def judged(cohort: Cohort) -> metrics.Judged:
    """The cohort judged by the baseline of its own patients."""
    risk, time, event = cohort
    table = breslow_baseline(risk, time, event)
    model = np.zeros(len(risk), dtype=int)
    steps = metrics.Baseline(table["time"].to_numpy(), table["cumulative_hazard"].to_numpy())
    nothing = metrics.Curves([metrics.kaplan_meier_baseline(time, event)], model, 0 * risk)
    reference = metrics.Reference(name="all", time=time, event=event, tau=6.0)
    names = [str(i) for i in range(len(risk))]
    return metrics.Judged(time, event, names, metrics.Curves([steps], model, risk), nothing, reference)


@settings(max_examples=50, deadline=None)
@given(cohorts())
def test_reversing_the_risks_mirrors_the_auc(cohort: Cohort) -> None:
    one = judged(cohort)
    for month in (2.0, 5.0):
        found, mirrored = (
            metrics.dynamic_auc(
                risk, one.time, one.event, [month], one.reference, patient_N=one.patient, n_resamples=5, seed=0
            ).mean
            for risk in (cohort[0], -cohort[0])
        )
        assert (found.value is None) == (mirrored.value is None)
        if found.value is not None and mirrored.value is not None:
            assert abs(found.value + mirrored.value - 1) < 1e-9


@settings(max_examples=50, deadline=None)
@given(cohorts())
def test_survival_starts_at_one_and_never_rises(cohort: Cohort) -> None:
    curves = judged(cohort).curves
    survival = curves.at(np.linspace(0, curves.end, 30))
    assert (survival[:, 0] == 1).all()
    assert (np.diff(survival, axis=1) <= 0).all()
    assert (survival >= 0).all()


@settings(max_examples=50, deadline=None)
@given(cohorts())
def test_what_is_undefined_has_a_reason_and_nothing_is_nan(cohort: Cohort) -> None:
    one = judged(cohort)
    drawing = {"n_resamples": 8, "seed": 1}
    briers = [metrics.brier_at(one, 3.0, **drawing), metrics.integrated_brier(one, **drawing)]
    calibration = metrics.calibration_at(
        3.0, one.time, one.event, one.curves, n_groups=2, patient_N=one.patient, **drawing
    )
    estimates = [calibration.observed, calibration.ratio, calibration.slope]
    for estimate in [*estimates, *(brier.score for brier in briers), *(brier.skill for brier in briers)]:
        if estimate.value is None:
            assert estimate.reason
        else:
            assert np.isfinite(estimate.value)


@settings(max_examples=50, deadline=None)
@given(cohorts())
def test_every_case_counts_once_in_the_tenths(cohort: Cohort) -> None:
    one = judged(cohort)
    found = metrics.d_calibration(one.time, one.event, one.curves)
    assert abs(sum(found.bins) - 1) < 1e-9
    assert min(found.bins) >= 0
