"""What the metrics say on cohorts small enough to count by hand, and where they are not defined."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mmsurv_train import metrics
from mmsurv_train.metrics import concordance
from mmsurv_train.metrics import estimate as estimates

TIME = np.array([2.0, 4.0, 6.0, 8.0])
EVENT = np.array([True, True, False, True])


def reference(time, event, tau: float) -> metrics.Reference:
    return metrics.Reference(name="train", time=np.asarray(time), event=np.asarray(event), tau=tau)


def test_perfect_risks_have_c_index_one_and_reversed_risks_zero() -> None:
    assert metrics.c_index([4.0, 3.0, 2.0, 1.0], TIME, EVENT).value == 1.0
    assert metrics.c_index([1.0, 2.0, 3.0, 4.0], TIME, EVENT).value == 0.0


def test_a_pair_is_comparable_only_when_the_earlier_one_had_an_event() -> None:
    # 2 months: against three; 4 months: against two; 6 months is censored; 8 months has nobody after it.
    assert metrics.comparable_pairs(TIME, EVENT) == 5


def test_an_event_is_comparable_with_a_censoring_at_the_same_time_but_not_with_an_event() -> None:
    assert metrics.comparable_pairs([5.0, 5.0], np.array([True, False])) == 1
    assert metrics.comparable_pairs([5.0, 5.0], np.array([True, True])) == 0


@pytest.mark.parametrize(
    ("time", "event", "reason"),
    [
        ([], [], "0 samples"),
        ([3.0], [True], "1 sample"),
        ([3.0, 4.0], [False, False], "no events"),
        ([3.0, 4.0], [False, True], "no event before another's time"),
    ],
)
def test_a_c_index_without_comparable_pairs_has_a_reason_and_no_value(time, event, reason) -> None:
    event = np.array(event, bool)
    harrell = metrics.c_index(np.zeros(len(time)), time, event)
    uno = metrics.c_index_ipcw(np.zeros(len(time)), time, event, reference(TIME, EVENT, 7.0))
    for estimate in (harrell, uno):
        assert estimate.value is None
        assert reason in str(estimate.reason)


def test_a_risk_that_is_not_a_number_is_refused_with_its_row() -> None:
    with pytest.raises(ValueError, match="risk of row 2 is nan"):
        metrics.c_index([1.0, 2.0, np.nan, 0.0], TIME, EVENT)


def test_an_outcome_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(ValueError, match="event must be boolean, not int64"):
        metrics.c_index([1.0, 2.0, 3.0, 0.0], TIME, EVENT.astype(int))


def test_uno_without_an_event_before_tau_says_so() -> None:
    estimate = metrics.c_index_ipcw([1.0, 2.0, 3.0, 0.0], TIME, EVENT, reference(TIME, EVENT, 1.5))
    assert estimate.value is None
    assert "before τ = 1.5" in str(estimate.reason)


def test_uno_with_events_after_the_training_follow_up_says_so() -> None:
    train = reference([1.0, 1.5, 3.0], [True, True, False], 7.0)
    estimate = metrics.c_index_ipcw([1.0, 2.0, 3.0, 0.0], TIME, EVENT, train)
    assert estimate.value is None
    assert "censoring cannot be estimated from the reference" in str(estimate.reason)


def test_tau_is_a_quantile_of_the_training_follow_up() -> None:
    assert metrics.quantile_tau([1.0, 2.0, 3.0, 4.0, 5.0], 0.75) == 4.0


def test_the_bootstrap_resamples_patients_and_not_slides() -> None:
    """Four slides of one patient add nothing: the draws are those of one slide each."""
    rng = np.random.default_rng(0)
    risk, time, event = rng.normal(size=40), rng.exponential(20, 40) + 0.1, rng.random(40) < 0.6
    patients = np.array([f"p{i:02d}" for i in range(40)])
    single = metrics.bootstrap_c_index(risk, time, event, patients, n_resamples=200, seed=1)
    fourfold = metrics.bootstrap_c_index(
        np.repeat(risk, 4), np.repeat(time, 4), np.repeat(event, 4), np.repeat(patients, 4), n_resamples=200, seed=1
    )
    np.testing.assert_array_equal(single, fourfold)


def test_the_same_seed_gives_the_same_draws_in_any_order_of_rows() -> None:
    rng = np.random.default_rng(2)
    risk, time, event = rng.normal(size=30), rng.exponential(20, 30) + 0.1, rng.random(30) < 0.6
    patients = np.array([f"p{i % 20:02d}" for i in range(30)])
    order = rng.permutation(30)
    draws = metrics.bootstrap_c_index(risk, time, event, patients, n_resamples=50, seed=3)
    shuffled = metrics.bootstrap_c_index(
        risk[order], time[order], event[order], patients[order], n_resamples=50, seed=3
    )
    other = metrics.bootstrap_c_index(risk, time, event, patients, n_resamples=50, seed=4)
    np.testing.assert_array_equal(draws, shuffled)
    assert not np.array_equal(draws, other)


def test_a_large_cohort_takes_blocks_and_gives_the_same_draws(monkeypatch) -> None:
    rng = np.random.default_rng(5)
    risk, time, event = rng.normal(size=90), rng.exponential(20, 90) + 0.1, rng.random(90) < 0.6
    patients = [f"p{i}" for i in range(90)]
    whole = metrics.bootstrap_c_index(risk, time, event, patients, n_resamples=50, seed=0)
    monkeypatch.setattr(concordance, "_BLOCK_ROWS", 7)
    np.testing.assert_array_equal(whole, metrics.bootstrap_c_index(risk, time, event, patients, n_resamples=50, seed=0))


def test_the_draws_are_the_same_however_many_are_held_at_once(monkeypatch) -> None:
    whole = metrics.resample_patients(30, n_resamples=20, seed=3)
    generator = np.random.default_rng(3)
    parts = [metrics.resample_patients(30, n_resamples=n, seed=generator) for n in (7, 13)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    rng = np.random.default_rng(5)
    cohort = rng.normal(size=90), rng.exponential(20, 90) + 0.1, rng.random(90) < 0.6, [f"p{i}" for i in range(90)]
    at_once = metrics.bootstrap_c_index(*cohort, n_resamples=1000, seed=0)
    monkeypatch.setattr(estimates, "_BLOCK_DRAWS", 7)
    np.testing.assert_array_equal(metrics.bootstrap_c_index(*cohort, n_resamples=1000, seed=0), at_once)


def test_the_c_index_of_many_draws_takes_the_memory_of_a_block(monkeypatch) -> None:
    monkeypatch.setattr(estimates, "_BLOCK_DRAWS", 50)
    rng = np.random.default_rng(6)
    risk, time, event = rng.normal(size=90), rng.exponential(20, 90) + 0.1, rng.random(90) < 0.6
    patients = [f"p{i}" for i in range(90)]
    peaks, draws = [], []
    for n_resamples in (50, 2000):
        tracemalloc.start()
        draws.append(metrics.bootstrap_c_index(risk, time, event, patients, n_resamples=n_resamples, seed=0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
    assert draws[1].shape == (2000,)
    np.testing.assert_array_equal(draws[1][:50], draws[0])


def test_an_interval_holds_its_estimate_and_is_wider_for_fewer_patients() -> None:
    rng = np.random.default_rng(7)
    widths = []
    for n in (40, 400):
        time = rng.exponential(20, n) + 0.1
        risk, event = -time + rng.normal(0, 20, n), rng.random(n) < 0.6
        draws = metrics.bootstrap_c_index(risk, time, event, [str(i) for i in range(n)], n_resamples=500, seed=0)
        estimate = metrics.with_interval(metrics.c_index(risk, time, event), draws)
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low < estimate.value < estimate.high
        widths.append(estimate.high - estimate.low)
    assert widths[1] < widths[0] / 2


def test_an_interval_needs_resamples_with_comparable_pairs() -> None:
    draws = np.array([0.5, np.nan, np.nan, np.nan])
    estimate = metrics.with_interval(metrics.Estimate(0.5), draws)
    assert (estimate.value, estimate.low, estimate.high) == (0.5, None, None)
    assert "only 1 of 4 resamples" in str(estimate.reason)


def test_high_risk_is_strictly_above_the_cut() -> None:
    assert metrics.high_risk([0.9, 1.0, 1.1], 1.0).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("event", "high", "reason"),
    [
        ([True, True, False, True], [True] * 4, "all 4 patients are in one risk group"),
        ([False] * 4, [True, False, True, False], "no events"),
        ([True, False, False, False], [False, False, False, True], None),
        ([False, False, False, True], [True, True, True, False], "no event while both groups"),
    ],
)
def test_a_log_rank_test_that_is_not_defined_says_why(event, high, reason) -> None:
    result = metrics.log_rank(TIME, np.array(event), np.array(high))
    if reason is None:
        assert result.p is not None
        assert 0 <= result.p <= 1
    else:
        assert result.p is None
        assert reason in str(result.reason)


def test_a_kaplan_meier_curve_starts_at_one_and_marks_censoring() -> None:
    curve = metrics.kaplan_meier(TIME, EVENT)
    assert curve["time"].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    np.testing.assert_allclose(curve["survival"], [1, 0.75, 0.5, 0.5, 0.0])
    assert curve["censored"].tolist() == [False, False, False, True, False]
    assert (curve["low"] <= curve["survival"]).all()
    assert (curve["high"] >= curve["survival"]).all()


def test_numbers_at_risk_count_those_whose_time_is_not_yet_over() -> None:
    assert metrics.at_risk(TIME, [0.0, 2.0, 5.0, 9.0]).tolist() == [4, 4, 2, 0]
