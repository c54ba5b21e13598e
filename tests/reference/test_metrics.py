"""The C-indices and their bootstrap against scikit-survival and lifelines on explicitly duplicated samples."""

from __future__ import annotations

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw
from sksurv.util import Surv

from mmsurv_train import metrics


@pytest.fixture
def slides() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """60 slides of 35 patients: risks with ties, whole months (tied times), outcomes per patient."""
    rng = np.random.default_rng(11)
    patient = rng.integers(0, 35, 60)
    time, event = rng.integers(1, 25, 35).astype(float), rng.random(35) < 0.6
    risk = np.round(rng.normal(size=60), 1)
    return risk, time[patient], event[patient], np.array([f"p{i:02d}" for i in patient])


def test_point_estimates_are_those_of_lifelines(slides) -> None:
    risk, time, event, _ = slides
    assert metrics.c_index(risk, time, event).value == pytest.approx(concordance_index(time, -risk, event))


def test_every_draw_is_scikit_survivals_c_index_of_the_duplicated_slides(slides) -> None:
    risk, time, event, patient = slides
    draws = metrics.bootstrap_c_index(risk, time, event, patient, n_resamples=25, seed=9)
    _, index = np.unique(patient, return_inverse=True)
    times_drawn = metrics.resample_patients(index.max() + 1, n_resamples=25, seed=9).astype(int)
    for draw, multiplicity in zip(draws, times_drawn, strict=True):
        rows = np.repeat(np.arange(len(risk)), multiplicity[index])
        expected = concordance_index_censored(event[rows], time[rows], risk[rows])[0]
        assert draw == pytest.approx(expected, abs=1e-12)


def test_every_weighted_draw_is_scikit_survivals_ipcw_c_index_of_the_duplicated_slides(slides) -> None:
    risk, time, event, patient = slides
    rng = np.random.default_rng(12)
    follow_up = rng.exponential(20, 80) + 1
    tau = metrics.quantile_tau(follow_up, 0.8)
    train = metrics.Reference(name="train", time=follow_up, event=rng.random(80) < 0.5, tau=tau)
    weights = metrics.uno_weights(time, event, train)
    draws = metrics.bootstrap_c_index(risk, time, event, patient, n_resamples=25, seed=9, weight_N=weights)
    _, index = np.unique(patient, return_inverse=True)
    times_drawn = metrics.resample_patients(index.max() + 1, n_resamples=25, seed=9).astype(int)
    reference = Surv.from_arrays(train.event, train.time)
    for draw, multiplicity in zip(draws, times_drawn, strict=True):
        rows = np.repeat(np.arange(len(risk)), multiplicity[index])
        test = Surv.from_arrays(event[rows], time[rows])
        expected = concordance_index_ipcw(reference, test, risk[rows], tau=tau)[0]
        assert draw == pytest.approx(expected, abs=1e-12)


def test_the_curve_is_lifelines_kaplan_meier(slides) -> None:
    _, time, event, _ = slides
    curve = metrics.kaplan_meier(time, event)
    fitter = KaplanMeierFitter().fit(time, event)
    expected = fitter.survival_function_at_times(curve["time"]).to_numpy()
    np.testing.assert_allclose(curve["survival"], expected, atol=1e-12)


def test_the_log_rank_p_is_that_of_lifelines(slides) -> None:
    risk, time, event, _ = slides
    high = risk > 0
    ours = metrics.log_rank(time, event, high)
    theirs = logrank_test(time[high], time[~high], event[high], event[~high])
    assert ours.p == pytest.approx(theirs.p_value)
    assert ours.chi2 == pytest.approx(theirs.test_statistic)
