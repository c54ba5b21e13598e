"""Ridge Cox regression is scikit-survival's, also in the rotated space of more columns than patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from mmsurv_train.floors.ridge import RidgeScore, log_partial_likelihood, ridge_path


def cohort(n_patients, n_columns, *, tied):
    rng = np.random.default_rng(n_columns)
    x_BC = rng.normal(size=(n_patients, n_columns)) * rng.uniform(0.5, 2, n_columns)
    time_B = rng.exponential(np.exp(-x_BC[:, 0] / 2)) * 20
    time_B = np.ceil(time_B) if tied else time_B
    return x_BC, time_B, rng.random(n_patients) < 0.6


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("columns", [2, 9])
@pytest.mark.parametrize("penalty", [0.5, 20.0])
def test_coefficients_equal_scikit_survival(columns, tied, penalty):
    x_BC, time_B, event_B = cohort(60, columns, tied=tied)
    theirs = CoxPHSurvivalAnalysis(alpha=penalty, ties="breslow", tol=1e-12).fit(
        x_BC, Surv.from_arrays(event_B, time_B)
    )
    (ours,) = ridge_path(x_BC, time_B, event_B, [penalty])
    np.testing.assert_allclose(ours, theirs.coef_, atol=1e-6)


def test_more_columns_than_patients_are_fitted_in_the_space_of_the_patients():
    x_BC, time_B, event_B = cohort(30, 45, tied=True)
    score = RidgeScore.fit(x_BC, time_B, event_B, [f"P{i}" for i in range(30)])
    scaled = (x_BC - x_BC.mean(0)) / x_BC.std(0)
    theirs = CoxPHSurvivalAnalysis(alpha=score.model.penalty, ties="breslow", tol=1e-12)
    theirs.fit(scaled, Surv.from_arrays(event_B, time_B))
    np.testing.assert_allclose(score.model.risk(x_BC), scaled @ theirs.coef_, atol=1e-6)


def test_coefficients_equal_lifelines():
    """Their penalty is of the mean log likelihood and of columns divided by their sample standard deviation; without
    ties Efron's likelihood, which they have, is Breslow's."""
    x_BC, time_B, event_B = cohort(60, 4, tied=False)
    sd_C = x_BC.std(0, ddof=1)
    table = pd.DataFrame(x_BC).assign(time=time_B, event=event_B)
    theirs = CoxPHFitter(penalizer=0.1).fit(table, "time", "event", fit_options={"precision": 1e-12})
    (ours,) = ridge_path(x_BC / sd_C, time_B, event_B, [0.1 * len(x_BC)])
    np.testing.assert_allclose(ours / sd_C, theirs.params_.to_numpy(), atol=1e-6)


def test_the_likelihood_is_the_one_that_scikit_survival_maximises():
    """At its unpenalised optimum no small step raises ours."""
    x_BC, time_B, event_B = cohort(60, 2, tied=True)
    theirs = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(x_BC, Surv.from_arrays(event_B, time_B))
    best = log_partial_likelihood(x_BC @ theirs.coef_, time_B, event_B)
    for step in ([1e-3, 0], [-1e-3, 0], [0, 1e-3], [0, -1e-3]):
        assert log_partial_likelihood(x_BC @ (theirs.coef_ + step), time_B, event_B) < best
