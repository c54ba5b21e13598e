"""The partial likelihood against scikit-survival, lifelines, torchsurv and finite differences; the baseline likewise.

torchsurv's numbers are in torchsurv_cox.json: it imports torchvision, which the trainer and its tests do without.
"""

from __future__ import annotations

import json
from pathlib import Path

import lifelines
import numpy as np
import pandas as pd
import pytest
import torch
from sksurv.linear_model.coxph import BreslowEstimator, CoxPHOptimizer

from mmsurv_train.cox import breslow_baseline, neg_log_partial_likelihood

TORCHSURV = json.loads(Path(__file__).with_name("torchsurv_cox.json").read_text(encoding="utf-8"))
CENSORED = (0.1, 0.6, 0.9)


def cohort(censored: float, *, n: int = 300, times: int = 12, seed: int = 0):
    """Heavy ties: ``n`` patients at ``times`` different times."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(0, 1.5, n)
    time = np.ceil(np.minimum(rng.exponential(np.exp(-risk)) * 6, times))
    return risk, time, rng.random(n) > censored


@pytest.mark.parametrize("case", TORCHSURV["cohorts"], ids=lambda case: f"{sum(case['event'])} events")
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_value_and_gradient_equal_torchsurv(case, ties):
    risk = torch.tensor(case["risk"], dtype=torch.float64, requires_grad=True)
    value = neg_log_partial_likelihood(risk, torch.tensor(case["time"]), torch.tensor(case["event"]), ties=ties)
    value.backward()
    events = sum(case["event"])  # torchsurv sums where we average; it computes in float32
    assert value.item() == pytest.approx(case[ties]["loss"] / events, abs=1e-6)
    expected = torch.tensor(case[ties]["gradient"], dtype=torch.float64) / events
    torch.testing.assert_close(risk.grad, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("censored", CENSORED)
def test_value_and_gradient_equal_scikit_survival(censored, ties):
    risk, time, event = cohort(censored, n=80)
    theirs = CoxPHOptimizer(np.eye(80), event, time, np.zeros(80), ties)  # a covariate for each patient
    theirs.update(risk)
    ours = torch.tensor(risk, requires_grad=True)
    value = neg_log_partial_likelihood(ours, torch.as_tensor(time), torch.as_tensor(event), ties=ties)
    value.backward()
    per_event = 80 / event.sum()  # scikit-survival averages over patients
    assert value.item() == pytest.approx(theirs.nlog_likelihood(risk) * per_event, abs=1e-9)
    np.testing.assert_allclose(ours.grad, theirs.gradient * per_event, atol=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("censored", CENSORED)
def test_the_gradient_is_that_of_finite_differences(censored, ties):
    risk, time, event = (torch.as_tensor(part) for part in cohort(censored, n=60, times=6))
    step = 1e-5 * torch.eye(60, dtype=torch.float64)
    ahead, behind = (
        torch.stack([neg_log_partial_likelihood(risk + sign * one, time, event, ties=ties) for one in step])
        for sign in (1, -1)
    )
    moved = risk.clone().requires_grad_()
    neg_log_partial_likelihood(moved, time, event, ties=ties).backward()
    torch.testing.assert_close(moved.grad, (ahead - behind) / 2e-5, atol=1e-8, rtol=0)


@pytest.mark.parametrize("censored", CENSORED)
def test_value_equals_the_likelihood_lifelines_reports(censored):
    risk, time, event = cohort(censored)
    frame = pd.DataFrame({"risk": risk, "time": time, "event": event})
    fitted = lifelines.CoxPHFitter().fit(frame, "time", "event")  # Efron ties
    at_optimum = torch.as_tensor(risk * fitted.params_["risk"])
    value = neg_log_partial_likelihood(at_optimum, torch.as_tensor(time), torch.as_tensor(event), ties="efron")
    assert value.item() * event.sum() == pytest.approx(-fitted.log_likelihood_, abs=1e-6)


def test_float32_agrees_with_float64():
    risk, time, event = (torch.as_tensor(part) for part in cohort(0.5, n=3000, times=30))
    for ties in ("efron", "breslow"):
        exact = neg_log_partial_likelihood(risk, time, event, ties=ties)
        single = neg_log_partial_likelihood(risk.float(), time, event, ties=ties)
        assert single.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("censored", CENSORED)
def test_baseline_equals_scikit_survival(censored):
    risk, time, event = cohort(censored)
    baseline = breslow_baseline(risk, time, event)
    theirs = BreslowEstimator().fit(risk, event, time).cum_baseline_hazard_
    np.testing.assert_allclose(baseline["cumulative_hazard"], theirs(baseline["time"].to_numpy()), rtol=1e-9)


def test_baseline_equals_lifelines():
    risk, time, event = cohort(0.6)
    frame = pd.DataFrame({"risk": risk, "time": time, "event": event})
    fitted = lifelines.CoxPHFitter(baseline_estimation_method="breslow").fit(frame, "time", "event")
    slope = fitted.params_["risk"]
    baseline = breslow_baseline((risk - risk.mean()) * slope, time, event)  # lifelines centres its covariates
    theirs = fitted.baseline_cumulative_hazard_["baseline cumulative hazard"].loc[baseline["time"]]
    np.testing.assert_allclose(baseline["cumulative_hazard"], theirs, rtol=1e-6)
