"""The paired bootstrap: the same patients for every model, and a p that is never 0."""

from __future__ import annotations

import numpy as np
import pytest

from mmsurv_train import metrics
from mmsurv_train.compare import paired
from mmsurv_train.compare.paired import Resampling, Rows

HOW = Resampling(n_resamples=60, seed=3)


@pytest.fixture
def rows() -> Rows:
    """60 slides of 30 patients in three folds, with ties and censoring."""
    rng = np.random.default_rng(0)
    owner = np.arange(60) % 30
    time, event = rng.integers(1, 15, 30).astype(float), rng.random(30) < 0.7
    patient = np.array([f"p{i:02d}" for i in range(30)])
    return Rows(time=time[owner], event=event[owner], patient=patient[owner], fold=(owner % 3).astype(int))


@pytest.fixture
def risks() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=60), rng.normal(size=60)


def test_a_draw_is_the_c_index_of_the_patients_drawn(rows, risks) -> None:
    draws = paired.harrell(risks[0], rows, HOW).draws
    names = np.unique(rows.patient)
    for drawn, value in zip(metrics.resample_patients(30, n_resamples=60, seed=3), draws, strict=True):
        counts = dict(zip(names, drawn.astype(int), strict=True))
        taken = np.repeat(np.arange(60), [counts[name] for name in rows.patient])
        assert value == pytest.approx(metrics.c_index(risks[0][taken], rows.time[taken], rows.event[taken]).value)


def test_both_models_meet_the_same_draws(rows, risks) -> None:
    left, right = (paired.harrell(risk, rows, HOW) for risk in risks)
    found = paired.difference(left, right, HOW)
    apart = right.draws - left.draws
    assert found.value == right.estimate.value - left.estimate.value
    assert (found.low, found.high) == tuple(np.quantile(apart, [0.025, 0.975]))
    assert found.high - found.low < np.ptp(np.quantile(left.draws, [0.025, 0.975])) * 2.2


def test_a_model_does_not_differ_from_one_of_the_same_order(rows, risks) -> None:
    found = paired.difference(paired.harrell(risks[0], rows, HOW), paired.harrell(np.exp(risks[0]) * 9, rows, HOW), HOW)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_uno_is_that_of_metrics_and_its_interval_too(rows, risks) -> None:
    reference = metrics.Reference(name="all", time=rows.time, event=rows.event, tau=12.0)
    found = paired.uno(risks[0], rows, reference, HOW)
    assert found.estimate.value == metrics.c_index_ipcw(risks[0], rows.time, rows.event, reference).value
    weights = metrics.uno_weights(rows.time, rows.event, reference)
    draws = metrics.bootstrap_c_index(
        risks[0], rows.time, rows.event, rows.patient, n_resamples=60, seed=3, weight_N=weights
    )
    assert np.array_equal(found.draws, draws)


def test_the_mean_of_folds_draws_patients_within_their_fold(rows, risks) -> None:
    found = paired.fold_mean(risks[0], rows, HOW)
    values = [
        metrics.c_index(risks[0][rows.fold == k], rows.time[rows.fold == k], rows.event[rows.fold == k]).value
        for k in range(3)
    ]
    assert found.estimate.value == pytest.approx(np.mean(values))
    shifted = risks[0] + 100 * rows.fold  # folds have no common scale: nothing compares them
    assert np.array_equal(paired.fold_mean(shifted, rows, HOW).draws, found.draws)


def test_a_fold_without_a_pair_is_left_out(rows, risks) -> None:
    event = rows.event & (rows.fold != 1)
    some = Rows(time=rows.time, event=event, patient=rows.patient, fold=rows.fold)
    kept = rows.fold != 1
    others = Rows(time=rows.time[kept], event=event[kept], patient=rows.patient[kept], fold=rows.fold[kept])
    assert paired.fold_mean(risks[0], some, HOW).estimate.value == pytest.approx(
        paired.fold_mean(risks[0][kept], others, HOW).estimate.value
    )
    none = Rows(time=rows.time, event=np.zeros(60, bool), patient=rows.patient, fold=rows.fold)
    assert paired.fold_mean(risks[0], none, HOW).estimate.reason == "no fold has a comparable pair"


@pytest.mark.parametrize(
    ("draws", "p"),
    [
        ([0.1] * 99, 2 / 100),
        ([-0.1] * 99, 2 / 100),
        ([0.0] * 9, 1.0),
        ([0.1] * 7 + [-0.1, 0.0], 2 * 3 / 10),
        ([0.1, 0.2, np.nan], 2 / 3),
        ([np.nan], None),
    ],
)
def test_p_counts_the_draws_beyond_zero_and_is_never_0(draws: list[float], p: float | None) -> None:
    assert paired.two_sided_p(np.array(draws)) == pytest.approx(p)


def test_holm_by_hand() -> None:
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert paired.holm([]) == []


def test_without_resamples_there_are_values_only(rows, risks) -> None:
    how = Resampling(n_resamples=0)
    for measure in (paired.harrell, paired.fold_mean):
        left, right = (measure(risk, rows, how) for risk in risks)
        found = paired.difference(left, right, how)
        assert left.estimate.low is None
        assert (found.value, found.low, found.p, found.reason) == (
            right.estimate.value - left.estimate.value, None, None, None,
        )  # fmt: skip


def test_what_is_not_defined_has_a_reason(rows, risks) -> None:
    none = Rows(time=rows.time, event=np.zeros(60, bool), patient=rows.patient)
    left = paired.harrell(risks[0], none, HOW)
    assert paired.difference(left, left, HOW).reason == "no comparable pair: no events"
