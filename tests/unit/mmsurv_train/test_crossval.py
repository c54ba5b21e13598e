"""Out-of-fold risks: one scale from training parts only, every patient once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmsurv.errors import SplitError
from mmsurv_train import crossval, metrics, scores
from mmsurv_train.recipe import EvaluateSettings
from mmsurv_train.scores import Predictions

SETTINGS = EvaluateSettings(n_bootstrap=50)
SEEDS = (4, 5)


def fold(k: int, n_folds: int = 3, *, shift: float = 0.0, scale: float = 1.0, n: int = 30) -> crossval.Fold:
    """A fold over n patients with two slides each, whose model's risks are −time on a scale of its own."""
    rng = np.random.default_rng(0)
    time, event = np.round(rng.exponential(20, n) + 1, 2), rng.random(n) < 0.7
    noise = rng.normal(0, 15, n)
    case = np.array([f"c{i:02d}" for i in range(n)])
    part = np.where(np.arange(n) % n_folds == k, "test", "train")
    part[np.flatnonzero(part == "train")[:3]] = "validation"
    risk = (noise - time) * scale + shift
    cases = pd.DataFrame({"case_id": case, "part": part, "risk": risk, "time": time, "event": event})
    slides = cases.loc[np.repeat(np.arange(n), 2)].reset_index(drop=True)
    slides.insert(0, "slide_id", [f"s{i:03d}" for i in range(2 * n)])
    slides["risk"] += np.tile([-0.5, 0.5], n) * scale
    for table in (cases, slides):  # two networks of unlike scales, whose mean is the risk
        offset = rng.normal(0, 10, len(table)) * scale
        table["risk_0"], table["risk_1"] = table["risk"] - offset, table["risk"] + offset
    predictions = Predictions(slides=slides, cases=cases)
    return crossval.Fold(
        k=k, predictions=predictions, metrics=scores.measure(predictions, SETTINGS, model="rna", network_seeds=SEEDS)
    )


def test_every_patient_is_pooled_once_and_keeps_the_mean_of_its_slides() -> None:
    pooled = crossval.pool([fold(k) for k in range(3)])
    assert pooled.cases["case_id"].tolist() == [f"c{i:02d}" for i in range(30)]
    assert len(pooled.slides) == 60
    assert set(pooled.slides["part"]) == {"out-of-fold"}
    means = pooled.slides.groupby("case_id")["risk"].mean()
    np.testing.assert_allclose(means, pooled.cases.set_index("case_id")["risk"], atol=1e-12)


def test_shift_and_scale_of_a_folds_model_do_not_change_the_pooled_risks() -> None:
    plain = crossval.pool([fold(k) for k in range(3)])
    moved = crossval.pool([fold(k, shift=100.0 * k, scale=10.0**k) for k in range(3)])
    np.testing.assert_allclose(plain.cases["risk"], moved.cases["risk"], rtol=1e-9)
    assert plain.cases["high_risk"].tolist() == moved.cases["high_risk"].tolist()


def test_the_scale_comes_from_the_training_part_only() -> None:
    first = fold(0)
    test = first.predictions.cases["part"] == "test"
    changed = first.predictions.cases.assign(risk=lambda rows: rows["risk"] + 1000 * test)
    other = crossval.Fold(
        k=0, predictions=Predictions(slides=first.predictions.slides, cases=changed), metrics=first.metrics
    )
    assert other.scale() == first.scale()


def test_each_network_is_standardised_by_its_own_training_risks() -> None:
    folds = [fold(k, shift=100.0 * k) for k in range(3)]
    pooled = crossval.pool(folds)
    for column in ("risk_0", "risk_1"):
        for one in folds:
            rows = one.predictions.cases
            train, test = (rows.loc[rows["part"] == part, column].to_numpy() for part in ("train", "test"))
            found = pooled.cases.loc[pooled.cases["fold"] == one.k, column]
            np.testing.assert_allclose(found, (test - train.mean()) / train.std(), rtol=1e-9)
    assert pooled.slides["risk_1"].notna().all()


def test_the_networks_are_measured_on_the_pooled_risks() -> None:
    folds = [fold(k, shift=100.0 * k) for k in range(3)]
    pooled = crossval.pool(folds)
    found = crossval.measure_pooled(folds, pooled, SETTINGS, network_seeds=SEEDS)["seeds"]
    cases = pooled.cases
    alone = [metrics.c_index(cases[name], cases["time"], cases["event"]).value for name in ("risk_0", "risk_1")]
    assert found["seeds"] == [4, 5]
    assert found["case"]["values"] == alone


def test_a_fold_whose_training_risks_are_all_alike_is_shifted_and_not_divided() -> None:
    assert fold(0, scale=0.0, shift=3.0).scale() == (3.0, 1.0)


def test_risk_groups_are_cut_at_each_folds_training_median() -> None:
    folds = [fold(k, shift=1000.0 * k) for k in range(3)]
    cases = crossval.pool(folds).cases
    for one in folds:
        rows = cases[cases["fold"] == one.k]
        assert (rows["high_risk"] == (rows["raw_risk"] > one.metrics["risk_cut"])).all()
        assert 0 < rows["high_risk"].sum() < len(rows)


def test_a_patient_tested_twice_is_an_error() -> None:
    with pytest.raises(SplitError, match="case c00 is in the test part of two folds"):
        crossval.pool([fold(0), fold(0)])


def test_the_mean_of_folds_stands_beside_the_pooled_c_index() -> None:
    folds = [fold(k) for k in range(3)]
    measured = crossval.measure_pooled(folds, crossval.pool(folds), SETTINGS, network_seeds=SEEDS)
    own = [one.metrics["parts"]["test"]["case"]["c_index"]["value"] for one in folds]
    assert measured["fold_mean"]["case"]["mean"] == pytest.approx(np.mean(own))
    assert measured["fold_mean"]["case"]["sd"] == pytest.approx(np.std(own, ddof=1))
    pooled = measured["parts"]["out-of-fold"]["case"]
    assert pooled["n"] == 30
    assert pooled["c_index"]["low"] < pooled["c_index"]["value"] < pooled["c_index"]["high"]
    assert measured["method"]["censoring_reference"] == "all patients of the cross-validation"


def test_a_fold_without_comparable_pairs_is_counted_and_left_out_of_the_mean() -> None:
    folds = [fold(k) for k in range(3)]
    folds[1].metrics["parts"]["test"]["case"]["c_index"] = {"value": None, "reason": "no events"}
    mean = crossval.measure_pooled(folds, crossval.pool(folds), SETTINGS, network_seeds=SEEDS)["fold_mean"]["case"]
    assert (mean["n_folds"], mean["n_undefined"]) == (2, 1)
