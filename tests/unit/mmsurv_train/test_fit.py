"""Training and prediction on a small simulated cohort."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.errors import CohortError, ConfigError, SplitError, StoreError
from mmsurv.split import Split
from mmsurv_train.bags import Bags, Draw
from mmsurv_train.batches import patient_batches, training_slides
from mmsurv_train.fit import fit
from mmsurv_train.metrics import c_index
from mmsurv_train.predict import find_device, predict
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import BagSettings, FitSettings, ModelSettings, TrainRecipe

N, DIM, GENES = 120, 6, 8


def make_cohort(*, n=N, seed=0):
    """Hazard from one gene and from one feature's mean; every third case has a second slide."""
    rng = np.random.default_rng(seed)
    ids = [f"P{i:03d}" for i in range(n)]
    rna = pd.DataFrame(rng.normal(size=(n, GENES)), index=ids, columns=[f"g{i}" for i in range(GENES)])
    tissue = rng.normal(size=n)
    hazard = np.exp(1.5 * rna["g0"] + 1.5 * tissue)
    death, leave = rng.exponential(20 / hazard), rng.exponential(30, n)
    time = np.minimum(death, leave) + 0.1
    cases = pd.DataFrame({"time": time, "event": death <= leave}, index=pd.Index(ids, name="case_id"))
    features, rows = {}, []
    for i, case in enumerate(ids):
        for slide in range(1 + (i % 3 == 0)):
            slide_id = f"{case}-{slide}"
            tiles = rng.normal(size=(int(rng.integers(5, 30)), DIM))
            tiles[:, 0] += tissue[i]
            features[slide_id] = (tiles * 3 + 10).astype(np.float16)
            rows.append((slide_id, case))
    slides = pd.DataFrame(rows, columns=["slide_id", "case_id"])
    return SimpleNamespace(cases=cases, slides=slides, rna=rna, report=None), Bags.from_arrays(features)


def make_split(cohort):
    parts = ["train", "train", "train", "validation", "test", "test"]
    index = cohort.cases.index
    return Split(pd.Series([parts[i % 6] for i in range(len(index))], index=index))


def recipe(name="cross-attention", *, bags=None, **options):
    model = ModelSettings(name=name, dim=16, query_hidden=8, rna_widths=(8,), rna_dropout=0.1, dropout=0.1)
    options = {"epochs": 12, "learning_rate": 0.01, "device": "cpu", **options}
    return TrainRecipe(model=model, bags=bags or BagSettings(), fit=FitSettings(**options))


@pytest.fixture(scope="module")
def data():
    cohort, bags = make_cohort()
    return cohort, bags, make_split(cohort)


def concordance(risks, cohort, cases):
    outcome = cohort.cases.loc[cases]
    return c_index(risks.set_index("case_id")["risk"][cases], outcome["time"], outcome["event"]).value


@pytest.mark.parametrize(("name", "least"), [("cross-attention", 0.7), ("joint", 0.7), ("wsi-mean", 0.6), ("rna", 0.6)])
def test_each_model_learns_what_was_planted(data, name, least):
    cohort, bags, split = data
    this = recipe(name, epochs=40)
    fitted = fit(this, cohort, bags, split)
    risks = predict(fitted, this, cohort, bags)
    assert concordance(risks.cases, cohort, split.cases("test")) > least
    assert list(risks.cases["case_id"]) == list(cohort.cases.index)
    assert list(risks.slides["slide_id"]) == list(cohort.slides["slide_id"])
    assert list(risks.slides.columns) == ["slide_id", "case_id", "risk"]


@pytest.mark.parametrize("name", ["cross-attention", "abmil", "joint", "wsi-mean", "rna"])
@pytest.mark.parametrize("unit", ["case", "slide"])
def test_the_same_seed_gives_identical_bits_and_leaves_the_global_state_alone(data, name, unit):
    cohort, bags, split = data
    this = recipe(name, bags=BagSettings(unit=unit, size=8), epochs=3, batch_size=16)
    results = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        state = torch.get_rng_state()
        fitted = fit(this, cohort, bags, split)
        assert torch.equal(torch.get_rng_state(), state)
        results.append((predict(fitted, this, cohort, bags), fitted.history))
    pd.testing.assert_frame_equal(results[0][0].slides, results[1][0].slides, check_exact=True)
    pd.testing.assert_frame_equal(results[0][0].cases, results[1][0].cases, check_exact=True)
    pd.testing.assert_frame_equal(results[0][1], results[1][1], check_exact=True)
    other = fit(replace(this, fit=replace(this.fit, seed=1)), cohort, bags, split)
    assert not other.history.equals(results[0][1])


def test_the_test_part_is_never_looked_at(data):
    cohort, bags, split = data
    scrambled = SimpleNamespace(**vars(cohort))
    test = split.cases("test")
    scrambled.cases = cohort.cases.copy()
    scrambled.cases.loc[test, "time"] = 1.0
    scrambled.cases.loc[test, "event"] = False
    scrambled.rna = cohort.rna.copy()
    scrambled.rna.loc[test] = 1e6
    owners = cohort.slides.set_index("slide_id")["case_id"]
    strange = {
        name: np.full_like(bags.slide(name).numpy(), 500) if owners[name] in test else bags.slide(name).numpy()
        for name in bags.slide_ids
    }
    this = recipe(epochs=3)
    first, second = fit(this, cohort, bags, split), fit(this, scrambled, Bags.from_arrays(strange), split)
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)
    assert first.preprocess.to_table() == second.preprocess.to_table()


def test_scales_are_those_of_the_training_part(data):
    cohort, bags, split = data
    fitted = fit(recipe(epochs=1), cohort, bags, split)
    train = cohort.slides[cohort.slides["case_id"].isin(split.cases("train"))]["slide_id"]
    tiles = torch.cat([bags.slide(name) for name in train]).double()
    np.testing.assert_allclose(fitted.preprocess.feature_mean, tiles.mean(0), rtol=1e-7)
    buffer = fitted.model.get_buffer("cross_attention.feature_sd")
    np.testing.assert_allclose(buffer[0], tiles.std(0, correction=0), rtol=1e-6)


def test_the_best_epochs_weights_are_the_ones_that_stay(data):
    cohort, bags, split = data
    this = recipe(epochs=30, learning_rate=0.05)
    fitted = fit(this, cohort, bags, split)
    assert fitted.best_epoch == (1 + fitted.history["validation_loss"].argmin(),)
    assert fitted.best_epoch[0] < 30
    stopped_there = fit(replace(this, fit=replace(this.fit, epochs=fitted.best_epoch[0])), cohort, bags, split)
    for ours, theirs in zip(fitted.model.parameters(), stopped_there.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_epoch_can_be_chosen_by_c_index_with_the_loss_breaking_ties(data):
    cohort, bags, split = data
    fitted = fit(recipe(epochs=30, learning_rate=0.05, select="c-index"), cohort, bags, split)
    history = fitted.history
    best = history[history["validation_c_index"] == history["validation_c_index"].max()]
    assert fitted.best_epoch[0] == best.loc[best["validation_loss"].idxmin(), "epoch"]


def test_training_stops_when_nothing_gets_better(data):
    cohort, bags, split = data
    fitted = fit(recipe(epochs=500, learning_rate=0.05, patience=4), cohort, bags, split)
    assert len(fitted.history) == fitted.best_epoch[0] + 4


def test_each_epoch_is_reported(data):
    cohort, bags, split = data
    rows = []
    fitted = fit(recipe(epochs=3), cohort, bags, split, on_epoch=rows.append)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), fitted.history)
    assert list(fitted.history["epoch"]) == [1, 2, 3]
    assert set(fitted.history) == {
        "seed", "epoch", "loss", "validation_loss", "validation_c_index", "skipped_batches"
    }  # fmt: skip


def test_a_cases_risk_is_the_mean_of_its_slides_where_bags_are_slides(data):
    cohort, bags, split = data
    this = recipe(bags=BagSettings(unit="slide"), epochs=2)
    risks = predict(fit(this, cohort, bags, split), this, cohort, bags)
    means = risks.slides.groupby("case_id")["risk"].mean()
    np.testing.assert_allclose(risks.cases.set_index("case_id")["risk"], means, rtol=1e-12)


def test_a_cases_risk_is_that_of_all_its_tiles_where_bags_are_cases(data):
    cohort, bags, split = data
    this = recipe(epochs=2)
    fitted = fit(this, cohort, bags, split)
    risks = predict(fitted, this, cohort, bags)
    scaled = torch.from_numpy(fitted.preprocess.rna(cohort.rna.loc[["P000"]]))
    own = fitted.model([torch.cat([bags.slide("P000-0"), bags.slide("P000-1")])], scaled).item()
    assert risks.cases["risk"][0] == pytest.approx(own, rel=1e-5)
    single = risks.slides[risks.slides["case_id"] == "P001"]["risk"].item()
    assert single == pytest.approx(risks.cases["risk"][1], rel=1e-5)


def test_the_papers_recipes_keep_their_bag_at_prediction(data):
    cohort, bags, split = data
    settings = BagSettings(unit="slide", size=4, at_prediction="size")
    fitted = fit(recipe(bags=settings, epochs=2), cohort, bags, split)
    first_rows = Bags.from_arrays({name: bags.slide(name)[:4].numpy() for name in bags.slide_ids})
    kept = predict(fitted, recipe(bags=settings), cohort, bags)
    expected = predict(fitted, recipe(bags=replace(settings, at_prediction="all")), cohort, first_rows)
    np.testing.assert_allclose(kept.slides["risk"], expected.slides["risk"], rtol=1e-6)


@pytest.mark.parametrize("name", ["cross-attention", "abmil", "joint", "wsi-mean", "rna"])
def test_a_model_and_its_preprocessing_predict_like_the_fitted(data, name):
    cohort, bags, split = data
    this = recipe(name, epochs=1)
    fitted = fit(this, cohort, bags, split)
    again = predict((fitted.model, Preprocess.from_table(fitted.preprocess.to_table())), this, cohort, bags)
    pd.testing.assert_frame_equal(again.cases, predict(fitted, this, cohort, bags).cases, check_exact=True)


def test_prediction_joins_rna_by_id_not_by_row(data):
    cohort, bags, split = data
    fitted = fit(recipe("rna", epochs=2), cohort, bags, split)
    shuffled = SimpleNamespace(**vars(cohort))
    shuffled.rna = cohort.rna.iloc[::-1]
    first = predict(fitted, recipe("rna"), cohort, None).cases
    pd.testing.assert_frame_equal(first, predict(fitted, recipe("rna"), shuffled, None).cases, check_exact=True)


def test_one_slide_per_patient_and_step_and_each_gets_its_turn():
    settings, slides = BagSettings(unit="slide"), ["P000-0", "P000-1"]
    drawn = {tuple(training_slides("P000", slides, settings, Draw(0, epoch))) for epoch in range(30)}
    assert drawn == {("P000-0",), ("P000-1",)}
    assert training_slides("P000", slides, BagSettings(), Draw(0, 1)) == slides


def test_batches_hold_every_patient_once_and_an_event_each():
    event = np.array([True] * 7 + [False] * 43)
    batches = patient_batches(event, 8, seed=0, epoch=1)
    assert sorted(row for batch in batches for row in batch) == list(range(50))
    assert all(1 <= len(batch) <= 8 for batch in batches)
    assert all(event[batch].any() for batch in batches)
    assert batches != patient_batches(event, 8, seed=0, epoch=2)
    assert batches == patient_batches(event, 8, seed=0, epoch=1)


@pytest.mark.parametrize("size", [0, 50, 99])
def test_a_full_batch_is_all_patients_in_order(size):
    assert patient_batches(np.ones(50, bool), size, seed=0, epoch=1) == [list(range(50))]


def test_a_batch_without_a_death_is_skipped_and_counted(data, caplog):
    cohort, bags, split = data
    rare = SimpleNamespace(**vars(cohort))
    rare.cases = cohort.cases.copy()
    train = split.cases("train")
    rare.cases.loc[train, "event"] = [i == 0 for i in range(len(train))]
    with caplog.at_level(logging.WARNING, logger="mmsurv"):
        history = fit(recipe(epochs=2, batch_size=10), rare, bags, split).history
    assert (history["skipped_batches"] == int(np.ceil(len(train) / 10)) - 1).all()
    assert "5 batches without a death are skipped in every epoch" in caplog.text


def test_cases_without_rna_or_slides_are_left_out_and_counted(data, caplog):
    cohort, bags, split = data
    holed = SimpleNamespace(**vars(cohort))
    holed.rna = cohort.rna.drop(index=["P000", "P004"])
    holed.slides = cohort.slides[cohort.slides["case_id"] != "P010"]
    this = recipe(epochs=1)
    with caplog.at_level(logging.WARNING, logger="mmsurv"):
        fitted = fit(this, holed, bags, split)
    assert "2 of 119 cases have no RNA and are left out of model cross-attention: P000, P004" in caplog.text
    assert "1 of 120 cases have no slides with features" in caplog.text
    risks = predict(fitted, this, holed, bags)
    assert set(cohort.cases.index) - set(risks.cases["case_id"]) == {"P000", "P004", "P010"}
    caplog.clear()
    fit(recipe("wsi-mean", epochs=1), SimpleNamespace(**{**vars(cohort), "rna": None}), bags, split)
    assert "RNA" not in caplog.text


def test_a_cohort_without_what_the_model_needs_is_refused(data):
    cohort, bags, split = data
    with pytest.raises(CohortError, match="Model joint needs RNA and the cohort has none"):
        fit(recipe("joint"), SimpleNamespace(**{**vars(cohort), "rna": None}), bags, split)
    with pytest.raises(ValueError, match="give the bags of the cohort's slides"):
        fit(recipe("wsi-mean"), cohort, None, split)
    elsewhere = SimpleNamespace(**{**vars(cohort), "slides": cohort.slides.iloc[:0]})
    with pytest.raises(CohortError, match="No case of the cohort has all that the model wsi-mean needs"):
        fit(recipe("wsi-mean"), elsewhere, bags, split)


@pytest.mark.parametrize(("part", "need"), [("train", "nothing can be learnt"), ("validation", "cannot be told")])
def test_a_part_without_deaths_is_refused(data, part, need):
    cohort, bags, split = data
    alive = SimpleNamespace(**vars(cohort))
    alive.cases = cohort.cases.copy()
    alive.cases.loc[split.cases(part), "event"] = False
    with pytest.raises(SplitError, match=f"The {part} part has [0-9]+ usable patients and 0 deaths: .*{need}"):
        fit(recipe(), alive, bags, split)


def test_a_split_of_another_cohort_is_refused(data):
    cohort, bags, split = data
    with pytest.raises(SplitError, match="train part names 1 cases the cohort does not have, the first 'Q1'"):
        fit(recipe(), cohort, bags, Split(pd.concat([split.parts, pd.Series({"Q1": "train"})])))


def test_risks_that_run_away_are_an_error_not_nan(data):
    cohort, bags, split = data
    with pytest.raises(ConfigError, match=r"risks stopped being finite \(seed 0\). Lower fit.learning_rate \(1e\+30\)"):
        fit(recipe(learning_rate=1e30), cohort, bags, split)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(data, device, monkeypatch):
    cohort, bags, split = data
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"fit.device is {device}, and this machine offers none"):
        fit(recipe(device=device), cohort, bags, split)


def test_a_device_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"fit.device is cuda:2, and the last one here is cuda:1"):
        find_device("cuda:2")
    assert find_device("cuda:1") == torch.device("cuda:1")


def test_a_mapped_file_that_is_written_to_while_training_is_refused(study, tmp_path, monkeypatch):
    """Also where all epochs see the same bags, drawn once."""
    import shutil

    from mmsurv.cohort import CohortOptions, load_cohort
    from mmsurv.split import make_split
    from mmsurv.store import open_store
    from mmsurv_train.bags import rows

    monkeypatch.setattr(rows, "LOOK_EVERY", 0.0)
    shutil.copytree(study / "store", tmp_path / "store")
    store = open_store(tmp_path / "store")
    options = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    cohort = load_cohort(options, store_slides=store.slide_ids())
    bags = Bags.for_cohort(store, cohort)
    assert bags.reading == "mapped"

    def write(row):
        if row["epoch"] == 2:
            with store.record_path("slide-07").open("ab") as file:
                file.write(b"more")

    with pytest.raises(StoreError, match="slide-07"):
        fit(recipe(epochs=9), cohort, bags, make_split(cohort.cases, seed=0, fractions=(0.6, 0.2, 0.2)), on_epoch=write)
