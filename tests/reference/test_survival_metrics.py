"""AUC, Brier scores, their bootstrap and calibration against scikit-survival, lifelines and torchsurv.

The cohorts have heavy ties (whole months, risks of one decimal) and much censoring. torchsurv's numbers are in
torchsurv_cox.json: it imports torchvision, which the trainer and its tests do without.
"""

from __future__ import annotations

import json
from pathlib import Path

import lifelines
import numpy as np
import pandas as pd
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import brier_score, cumulative_dynamic_auc, integrated_brier_score
from sksurv.nonparametric import SurvivalFunctionEstimator
from sksurv.util import Surv

from mmsurv_train import metrics
from mmsurv_train.cox import breslow_baseline
from mmsurv_train.metrics.brier import GRID_STEPS
from mmsurv_train.metrics.resampled import survival_of_draws

TORCHSURV = json.loads(Path(__file__).with_name("torchsurv_cox.json").read_text(encoding="utf-8"))
MONTHS = [4.0, 9.0, 14.0]
SEED = 5


def patients(n: int, seed: int, *, censoring: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risk, time and event of ``n`` patients at whole months; censored at ``censoring`` months in the mean."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=n), 1)
    died = np.ceil(rng.exponential(12 * np.exp(-risk)))
    left = np.minimum(np.ceil(rng.exponential(censoring, n)), 30)
    return risk, np.minimum(died, left), died <= left


@pytest.fixture(params=[40.0, 10.0], ids=["some censored", "most censored"])
def judged(request) -> metrics.Judged:
    """120 test patients with the curves of a model of 200 others, whose follow-up is longer."""
    risk, time, event = patients(200, 1, censoring=request.param)
    baseline = breslow_baseline(risk, time, event)
    reference = metrics.Reference(name="train", time=time, event=event, tau=15.0)
    nothing = metrics.kaplan_meier_baseline(time, event)
    risk, time, event = patients(120, 2, censoring=request.param)
    model = np.zeros(120, dtype=int)
    breslow = metrics.Baseline(baseline["time"].to_numpy(), baseline["cumulative_hazard"].to_numpy())
    curves, without = (metrics.Curves([one], model, on) for one, on in ((breslow, risk), (nothing, 0 * risk)))
    return metrics.Judged(time, event, [f"p{i:03d}" for i in range(120)], curves, without, reference)


def outcomes(judged: metrics.Judged, rows: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Structured outcomes of the reference and of (some of) the judged."""
    train = Surv.from_arrays(judged.reference.event, judged.reference.time)
    return train, Surv.from_arrays(judged.event[rows], judged.time[rows])


def resamples(judged: metrics.Judged, n_resamples: int) -> list[np.ndarray]:
    """The rows of each resample, a patient drawn k times k times."""
    drawn = metrics.resample_patients(len(judged.time), n_resamples=n_resamples, seed=SEED).astype(int)
    return [np.repeat(np.arange(len(judged.time)), times) for times in drawn]


def interval(values: list[float]) -> list[float]:
    return [float(np.quantile(values, share)) for share in (0.025, 0.975)]


def test_curves_are_those_of_scikit_survivals_cox_model() -> None:
    risk, time, event = patients(200, 1, censoring=20.0)
    fitted = CoxPHSurvivalAnalysis(ties="breslow").fit(risk[:, None], Surv.from_arrays(event, time))
    log_hazard = fitted.predict(risk[:, None])
    baseline = breslow_baseline(log_hazard, time, event)
    steps = metrics.Baseline(baseline["time"].to_numpy(), baseline["cumulative_hazard"].to_numpy())
    ours = metrics.Curves([steps], np.zeros(200, dtype=int), log_hazard)
    theirs = fitted.predict_survival_function(risk[:, None])
    np.testing.assert_allclose(ours.at(MONTHS), [one(MONTHS) for one in theirs], atol=1e-9)


def test_auc_and_its_draws_are_scikit_survivals(judged) -> None:
    risk, n_resamples = judged.curves.risk, 20
    found = metrics.dynamic_auc(
        risk, judged.time, judged.event, MONTHS, judged.reference,
        patient_N=judged.patient, n_resamples=n_resamples, seed=SEED,
    )  # fmt: skip
    at, mean = cumulative_dynamic_auc(*outcomes(judged), risk, MONTHS)
    np.testing.assert_allclose([one.value for one in found.at], at, atol=1e-12)
    assert found.mean.value == pytest.approx(mean, abs=1e-12)
    drawn = [cumulative_dynamic_auc(*outcomes(judged, rows), risk[rows], MONTHS) for rows in resamples(judged, 20)]
    assert [found.mean.low, found.mean.high] == pytest.approx(interval([mean for _, mean in drawn]), abs=1e-12)
    for t, one in enumerate(found.at):
        assert [one.low, one.high] == pytest.approx(interval([at[t] for at, _ in drawn]), abs=1e-12)


def test_brier_scores_and_their_draws_are_scikit_survivals(judged) -> None:
    for month in MONTHS:
        found = metrics.brier_at(judged, month, n_resamples=20, seed=SEED)
        for value, curves in ((found.score.value, judged.curves), (found.kaplan_meier, judged.nothing)):
            _, expected = brier_score(*outcomes(judged), curves.at([month]), [month])
            assert value == pytest.approx(expected[0], abs=1e-12)
        drawn = [
            brier_score(*outcomes(judged, rows), judged.curves.at([month])[rows], [month])[1][0]
            for rows in resamples(judged, 20)
        ]
        assert [found.score.low, found.score.high] == pytest.approx(interval(drawn), abs=1e-12)


def test_the_integrated_brier_score_is_scikit_survivals(judged) -> None:
    found = metrics.integrated_brier(judged, n_resamples=0, seed=SEED)
    tau = judged.reference.tau
    grid = np.arange(1, GRID_STEPS + 1) * tau / GRID_STEPS
    grid = grid[grid >= judged.time.min()]
    assert found.span == (grid[0], tau)
    for value, curves in ((found.score.value, judged.curves), (found.kaplan_meier, judged.nothing)):
        assert value == pytest.approx(integrated_brier_score(*outcomes(judged), curves.at(grid), grid), abs=1e-12)
    assert found.skill.value == pytest.approx(1 - found.score.value / found.kaplan_meier)


@pytest.mark.parametrize("case", TORCHSURV["cohorts"], ids=lambda case: f"{sum(case['event'])} events")
def test_measures_equal_torchsurv(case) -> None:
    risk, time, event = np.array(case["risk"]), np.array(case["time"], float), np.array(case["event"])
    months, theirs = [float(month) for month in TORCHSURV["months"]], case["metrics"]
    names = [str(i) for i in range(len(risk))]
    reference = metrics.Reference(name="all", time=time, event=event, tau=6.0)
    assert metrics.c_index(risk, time, event).value == pytest.approx(theirs["c_index"], abs=1e-6)
    assert metrics.c_index_ipcw(risk, time, event, reference).value == pytest.approx(theirs["uno"], abs=1e-6)
    auc = metrics.dynamic_auc(risk, time, event, months, reference, patient_N=names, n_resamples=0, seed=0)
    assert [one.value for one in auc.at] == pytest.approx(theirs["auc"], abs=1e-6)
    assert auc.mean.value == pytest.approx(theirs["mean_auc"], abs=1e-6)
    baseline = metrics.Baseline(np.array(months), 0.08 * np.array(months))
    curves = metrics.Curves([baseline], np.zeros(len(risk), dtype=int), risk)
    judged = metrics.Judged(time, event, names, curves, curves, reference)
    brier = [metrics.brier_at(judged, month, n_resamples=0, seed=0).score.value for month in months]
    assert brier == pytest.approx(theirs["brier"], abs=1e-6)
    assert np.trapezoid(brier, months) / (months[-1] - months[0]) == pytest.approx(theirs["integrated_brier"], abs=1e-6)


def test_kaplan_meier_of_draws_is_scikit_survivals_of_repeated_patients(judged) -> None:
    drawn = metrics.resample_patients(len(judged.time), n_resamples=20, seed=SEED)
    found = survival_of_draws(drawn, judged.time, judged.event, MONTHS)
    for row, rows in zip(found, resamples(judged, 20), strict=True):
        expected = SurvivalFunctionEstimator().fit(outcomes(judged, rows)[1]).predict_proba(np.array(MONTHS))
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_observed_deaths_are_lifelines_kaplan_meier(judged) -> None:
    fitted = lifelines.KaplanMeierFitter().fit(judged.time, judged.event)
    for month in MONTHS:
        found = metrics.calibration_at(
            month, judged.time, judged.event, judged.curves, n_groups=4, patient_N=judged.patient, n_resamples=0, seed=0
        )
        assert found.observed.value == pytest.approx(1 - fitted.predict(month), abs=1e-9)
        assert found.expected == pytest.approx(1 - judged.curves.at([month]).mean(), abs=1e-12)
        assert found.ratio.value == pytest.approx(found.observed.value / found.expected)
        assert sum(group.n for group in found.groups) == 120


def test_the_slope_is_lifelines_cox_coefficient_of_the_risk(judged) -> None:
    month = 9.0
    table = pd.DataFrame(
        {
            "risk": judged.curves.risk,
            "time": np.minimum(judged.time, month),
            "event": judged.event & (judged.time <= month),
        }
    )
    fitted = lifelines.CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12})
    found = metrics.slope(judged.curves.at([month])[:, 0], judged.time, judged.event, month)
    assert found.value == pytest.approx(fitted.params_["risk"], abs=1e-6)
