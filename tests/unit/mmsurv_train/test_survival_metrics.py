"""Predicted survival and what is measured of it, on cohorts small enough to count by hand; where it is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from mmsurv_train import metrics
from mmsurv_train.metrics import estimate as estimates

TIME = np.array([2.0, 4.0, 6.0, 8.0])
EVENT = np.array([True, True, False, True])
NAMES = ["a", "b", "c", "d"]
UNCENSORED = metrics.Reference(name="train", time=np.arange(1.0, 13.0), event=np.ones(12, bool), tau=7.0)
BASELINE = metrics.Baseline(np.array([2.0, 5.0]), np.log([2.0, 4.0]))


def curves(risk: list[float], baseline: metrics.Baseline = BASELINE) -> metrics.Curves:
    return metrics.Curves([baseline], np.zeros(len(risk), dtype=int), np.array(risk))


def judged(risk: list[float], reference: metrics.Reference = UNCENSORED, end: float = 12.0) -> metrics.Judged:
    baseline = metrics.Baseline(np.array([2.0, 5.0, end]), np.log([2.0, 4.0, 8.0]))
    nothing = metrics.Baseline(np.array([0.5, np.inf]), np.log([2.0, 2.0]))
    return metrics.Judged(TIME, EVENT, NAMES, curves(risk, baseline), curves([0.0] * 4, nothing), reference)


def auc(risk, time, event, months, reference=UNCENSORED, n_resamples: int = 0) -> metrics.DynamicAuc:
    names = [str(i) for i in range(len(time))]
    return metrics.dynamic_auc(risk, time, event, months, reference, patient_N=names, n_resamples=n_resamples, seed=0)


def test_survival_is_a_step_function_that_starts_at_one() -> None:
    found = curves([0.0, np.log(2.0)]).at([0.5, 2.0, 4.9, 5.0])
    np.testing.assert_allclose(found, [[1, 1 / 2, 1 / 2, 1 / 4], [1, 1 / 4, 1 / 4, 1 / 16]])


def test_survival_is_undefined_beyond_the_last_death_of_the_training_part() -> None:
    one = curves([0.0])
    assert one.end == 5.0
    assert np.isnan(one.at([5.1])).all()
    assert np.isnan(one.at_own([7.0])).all()


def test_each_patient_is_of_its_own_model() -> None:
    other = metrics.Baseline(np.array([1.0]), np.log([10.0]))
    both = metrics.Curves([BASELINE, other], np.array([1, 0]), np.zeros(2))
    np.testing.assert_allclose(both.at([1.0]), [[0.1], [1.0]])
    np.testing.assert_allclose(both.at_own([0.5, 2.0]), [1.0, 0.5])
    assert both.end == 1.0
    assert both.take(np.array([False, True])).end == 5.0


def test_a_risk_too_great_for_a_hazard_is_certain_death_and_never_nan() -> None:
    np.testing.assert_array_equal(curves([1e6, -1e6]).at([1.0, 3.0]), [[1.0, 0.0], [1.0, 1.0]])


def test_the_curve_of_no_model_is_kaplan_meier_carried_on() -> None:
    nothing = metrics.kaplan_meier_baseline(TIME, EVENT)
    np.testing.assert_allclose(curves([0.0], nothing).at([1.0, 2.0, 4.0, 7.0, 8.0, 99.0]), [[1, 0.75, 0.5, 0.5, 0, 0]])
    alive = metrics.kaplan_meier_baseline([3.0, 4.0], [False, False])
    np.testing.assert_array_equal(curves([0.0], alive).at([1.0, 99.0]), [[1.0, 1.0]])


def test_the_auc_counts_pairs_of_a_dead_and_a_living_patient() -> None:
    # At 5 months two are dead and two live: (2, 1), (2, 0), (0, 1), (0, 0) are right, right, wrong, tied.
    found = auc([2.0, 0.0, 1.0, 0.0], TIME, EVENT, [5.0])
    assert found.at[0].value == pytest.approx(2.5 / 4)
    assert found.mean.value == found.at[0].value


def test_the_mean_auc_weighs_times_by_the_deaths_between_them() -> None:
    # At 3 months 1 of 3 pairs (the dead one ranks second), at 5 months 2 of 4; survival 1, ¾, ½: equal weights.
    found = auc([1.0, 3.0, 2.0, 0.0], TIME, EVENT, [3.0, 5.0])
    assert [one.value for one in found.at] == pytest.approx([1 / 3, 3 / 4])
    assert found.mean.value == pytest.approx((1 / 3 + 3 / 4) / 2)


def test_an_auc_without_dead_or_living_patients_has_a_reason_and_is_left_out_of_the_mean() -> None:
    found = auc([1.0, 3.0, 2.0, 0.0], TIME, EVENT, [1.0, 3.0, 9.0], n_resamples=50)
    assert [one.value is None for one in found.at] == [True, False, True]
    assert "nobody lives longer than 9 months" in str(found.at[2].reason)
    assert "nobody died within 1 months" in str(found.at[0].reason)
    assert found.used == [3.0]
    assert found.mean.value == found.at[1].value
    nowhere = auc([1.0, 2.0], [5.0, 6.0], np.array([False, False]), [3.0])
    assert (nowhere.mean.value, nowhere.used) == (None, [])


def test_deaths_after_the_references_follow_up_count_as_living_before() -> None:
    short = metrics.Reference(name="train", time=np.array([3.0, 5.0]), event=np.array([True, False]), tau=4.0)
    found = auc([3.0, 2.0, 1.0, 0.0], TIME, EVENT, [3.0, 7.0], short)
    assert found.at[0].value == 1.0
    assert found.at[1].value == 1.0  # the death at 4 months has its weight; those at 6 and 8 are not asked for one
    gone = metrics.Reference(name="train", time=np.array([1.0, 3.0]), event=np.array([True, False]), tau=4.0)
    assert "censoring" in str(auc([3.0, 2.0, 1.0, 0.0], TIME, EVENT, [5.0], gone).at[0].reason)


def test_the_brier_score_is_the_mean_squared_error_of_survival() -> None:
    # At 3 months everyone is given ½: one is dead (½²), three live (½²).
    assert metrics.brier_at(judged([0.0] * 4), 3.0, n_resamples=0, seed=0).score.value == pytest.approx(1 / 4)
    # Risk log 2 of the one who dies: survival ¼, error (¼)².
    found = metrics.brier_at(judged([np.log(2.0), 0.0, 0.0, 0.0]), 3.0, n_resamples=0, seed=0)
    assert found.score.value == pytest.approx((1 / 16 + 3 / 4) / 4)
    assert found.kaplan_meier == pytest.approx(1 / 4)
    assert found.skill.value == pytest.approx(1 - (1 / 16 + 3 / 4))


def test_the_brier_score_weighs_by_the_inverse_probability_of_censoring() -> None:
    # Half of the reference is censored at 3 months: whoever is seen after it counts twice.
    half = metrics.Reference(name="t", time=np.array([3.0, 9.0]), event=np.array([False, True]), tau=7.0)
    found = metrics.brier_at(judged([0.0] * 4, half), 4.5, n_resamples=0, seed=0)
    assert found.score.value == pytest.approx((1 + 2 + 2 + 2) / 4 / 4)


def test_the_integrated_brier_score_is_taken_as_far_as_cases_and_curves_reach() -> None:
    whole = metrics.integrated_brier(judged([0.0] * 4), n_resamples=30, seed=0)
    assert whole.span == (pytest.approx(2.03), pytest.approx(7.0))  # the first grid point from 2 months on, to τ
    assert whole.score.low <= whole.score.value <= whole.score.high
    short = metrics.integrated_brier(judged([0.0] * 4, end=5.5), n_resamples=0, seed=0)
    assert short.span == (pytest.approx(2.03), pytest.approx(5.46))


@pytest.mark.parametrize(("months", "reason"), [(1.0, "followed for 1 months or died"), (8.0, "more than 8 months")])
def test_a_brier_score_outside_the_follow_up_has_a_reason(months: float, reason: str) -> None:
    found = metrics.brier_at(judged([0.0] * 4), months, n_resamples=9, seed=0)
    assert (found.score.value, found.kaplan_meier) == (None, None)
    assert reason in str(found.score.reason)


def test_a_brier_score_beyond_the_baseline_says_where_that_ends() -> None:
    found = metrics.brier_at(judged([0.0] * 4, end=5.5), 7.0, n_resamples=0, seed=0)
    assert "the training part's last death is at 5.5" in str(found.score.reason)


def test_observed_over_expected_deaths() -> None:
    # At 5 months survival ¼ each: 3 of 4 are expected dead, and 2 are.
    found = metrics.calibration_at(
        5.0, TIME, EVENT, curves([0.0] * 4), n_groups=3, patient_N=NAMES, n_resamples=40, seed=0
    )
    assert (found.expected, found.observed.value) == (0.75, 0.5)
    assert found.ratio.value == pytest.approx(2 / 3)
    assert found.ratio.low < 2 / 3 < found.ratio.high
    assert [(group.n, group.predicted, group.observed.value) for group in found.groups] == [(4, 0.25, 0.5)]
    assert "2 deaths by 5 months" in str(found.slope.reason)


def test_groups_are_even_never_part_equal_risks_and_hold_ten() -> None:
    sizes = [len(rows) for rows in metrics.quantile_groups(np.arange(40.0), 4)]
    assert sizes == [10, 10, 10, 10]
    assert len(metrics.quantile_groups(np.arange(25.0), 5)) == 2
    tied = metrics.quantile_groups(np.repeat([0.0, 1.0], [35, 5]), 4)
    assert [len(rows) for rows in tied] == [35, 5]


def test_a_slope_without_bound_has_a_reason() -> None:
    time = np.arange(1.0, 13.0)
    survival = np.linspace(0.05, 0.95, 12)
    found = metrics.slope(survival, time, np.ones(12, bool), 12.0)
    assert found.value is None
    assert "does not converge" in str(found.reason)
    assert "alike" in str(metrics.slope(np.full(12, 0.5), time, np.ones(12, bool), 12.0).reason)


def d_curves(survival: list[float]) -> tuple[np.ndarray, metrics.Curves]:
    """Curves that have the given values at month 1."""
    baseline = metrics.Baseline(np.array([1.0]), np.array([1.0]))
    return np.ones(len(survival)), curves(list(np.log(-np.log(survival))), baseline)


def test_d_calibration_counts_deaths_in_their_tenth_and_spreads_the_censored_below() -> None:
    time, found = d_curves([0.05, 0.95, 0.25])
    bins = metrics.d_calibration(time, np.array([True, True, False]), found).bins
    # 0.25 censored: 0.1/0.25 in each of the two lowest tenths, 0.05/0.25 in the third.
    np.testing.assert_allclose(np.array(bins) * 3, [1.4, 0.4, 0.2, 0, 0, 0, 0, 0, 0, 1], atol=1e-12)


def test_d_calibration_by_hand() -> None:
    # 60 deaths, 15 of them in the lowest tenth and 5 in each other: (15 − 6)²/6 + 9 · 1/6 = 15.
    survival = [0.05] * 15 + [0.15 + 0.1 * k for k in range(9) for _ in range(5)]
    time, found = d_curves(survival)
    result = metrics.d_calibration(time, np.ones(60, bool), found)
    assert result.chi2 == pytest.approx(15.0)
    assert result.p == pytest.approx(0.0909, abs=1e-4)  # chi-squared, nine degrees of freedom


def test_whoever_outlives_the_curve_is_spread_below_its_end() -> None:
    time, found = d_curves([0.2] * 2)
    result = metrics.d_calibration(time + 5, np.array([True, False]), found)
    assert result.n_beyond == 2
    np.testing.assert_allclose(result.bins[:3], [0.5, 0.5, 0.0], atol=1e-12)
    assert "2 cases: fewer than 5 expected" in str(result.reason)


@pytest.mark.parametrize("censoring", [np.inf, 12.0])
def test_d_calibration_of_the_true_model_is_uniform_and_of_another_is_not(censoring: float) -> None:
    rng = np.random.default_rng(3)
    risk = rng.normal(size=(200, 250))
    died, left = (
        rng.exponential(10 * np.exp(-risk)),
        rng.exponential(censoring, (200, 250)) if np.isfinite(censoring) else np.full((200, 250), np.inf),
    )
    time, event = np.minimum(died, left), died <= left
    steps = np.linspace(0.01, 400, 40_000)
    true, wrong = (metrics.Baseline(steps, steps / scale) for scale in (10.0, 25.0))
    p = np.array(
        [metrics.d_calibration(*one, curves(list(r), true)).p for *one, r in zip(time, event, risk, strict=True)]
    )
    if np.isinf(censoring):
        assert np.histogram(p, bins=4, range=(0, 1))[0].tolist() == pytest.approx([50] * 4, abs=20)
    assert (p < 0.05).mean() < 0.09  # spread cases only make it rarer
    assert metrics.d_calibration(time[0], event[0], curves(list(risk[0]), wrong)).p < 1e-4


def test_the_draws_kept_for_the_next_measure_are_those_drawn_anew(monkeypatch) -> None:
    kept = metrics.brier_at(judged([0.0] * 4), 3.0, n_resamples=50, seed=7)
    monkeypatch.setattr(estimates, "_MOST_KEPT", 0)
    assert metrics.brier_at(judged([0.0] * 4), 3.0, n_resamples=50, seed=7) == kept
