"""Attention weights by tile: whose they are, over which tiles they add up to 1, and where the tiles lie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmsurv.errors import RunError
from mmsurv.split import read_split
from mmsurv.store import open_store
from mmsurv_train import run as runs
from mmsurv_train.evaluate import load_model
from mmsurv_train.explain.cli import attention
from mmsurv_train.explain.weights import Asked, tile_weights
from mmsurv_train.recipe import BagSettings, EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.train import train

RECIPE = TrainRecipe(
    model=ModelSettings(name="cross-attention", dim=4, heads=2, query_hidden=3, rna_widths=(2,)),
    bags=BagSettings(),
    fit=FitSettings(epochs=2, n_seeds=2, seed=5, device="cpu", learning_rate=0.05),
    evaluate=EvaluateSettings(n_bootstrap=0, floors=False),
)


@pytest.fixture
def run(sources, tmp_path):
    return train(RECIPE, sources, tmp_path / "run", command="test")


def everything(path, **asked):
    return pd.concat(tile_weights(path, Asked(**asked)), ignore_index=True)


def test_weights_of_a_case_add_up_to_1_over_all_its_slides(run):
    table = everything(run.path)
    np.testing.assert_allclose(table.groupby("case_id")["weight"].sum(), 1, rtol=1e-6)
    assert set(table["slide_id"]) == set(run.provenance["slides"])


def test_weights_of_a_slides_own_bag_add_up_to_1_over_the_slide(run):
    table = everything(run.path, bag="slide")
    np.testing.assert_allclose(table.groupby("slide_id")["weight"].sum(), 1, rtol=1e-6)


def test_rows_are_the_records_with_their_places(run, study):
    table = everything(run.path, slides=("slide-03",))
    record = open_store(study / "store").read("slide-03")
    np.testing.assert_array_equal(table[["x", "y"]], record.coords)
    assert table["row"].tolist() == list(range(record.n_tiles))


def test_they_are_the_models_weights_and_their_mean(run, study):
    table = everything(run.path, slides=("slide-20",))
    names = [f"weight_{seed}_{head}" for seed in (5, 6) for head in (0, 1)]
    np.testing.assert_allclose(table["weight"], table[names].mean(axis=1), rtol=1e-12)
    model, preprocess = load_model(run)
    rna = pd.read_csv(study / "rna.csv", index_col="case_id").loc[["case-20"]]
    store = open_store(study / "store")
    import torch

    slides = [name for name, case in zip(*owners(study), strict=True) if case == "case-20"]
    bag = torch.from_numpy(np.concatenate([store.features(name) for name in slides]))
    expected = model.attention([bag], torch.from_numpy(preprocess.rna(rna)))[0]
    first = sum(store.n_tiles(name) for name in slides[: slides.index("slide-20")])
    np.testing.assert_allclose(table["weight_6_1"], expected[1, 1, first : first + len(table)], rtol=1e-5)


def owners(study):
    rows = pd.read_csv(study / "clinical.csv").dropna(subset="slide_id").sort_values("slide_id")
    return rows["slide_id"].tolist(), rows["case_id"].tolist()


def test_of_a_cross_validation_the_model_that_never_saw_the_case_explains_it(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=2))
    run = train(recipe, sources, tmp_path / "folds", command="test")
    table = everything(run.path)
    for k, fold in enumerate(run.folds()):
        assert set(table[table["fold"] == k]["case_id"]) == set(read_split(fold.path / runs.SPLIT).cases("test"))
    assert set(everything(run.path, fold=1)["fold"]) == {1}
    with pytest.raises(RunError, match="there is no fold 7"):
        everything(run.path, fold=7)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_command_writes_a_whole_file_and_never_over_another(run, tmp_path, suffix):
    out = tmp_path / f"weights.{suffix}"
    done = CliRunner().invoke(attention, [str(run.path), "-o", str(out)], catch_exceptions=False)
    assert done.output == f"342 tiles of 57 slides: {out}\n" if len(run.provenance["slides"]) == 57 else done.output
    table = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    pd.testing.assert_frame_equal(table, everything(run.path), check_dtype=False)
    assert not list(tmp_path.glob(".weights*"))
    assert isinstance(CliRunner().invoke(attention, [str(run.path), "-o", str(out)]).exception, RunError)


def test_another_ending_is_a_usage_error(run, tmp_path):
    found = CliRunner().invoke(attention, [str(run.path), "-o", str(tmp_path / "weights.txt")])
    assert (found.exit_code, "must end in .csv or .parquet" in found.output) == (2, True)


def test_an_unknown_slide_is_named(run):
    with pytest.raises(RunError, match="1 slides cannot be explained: slide-99"):
        everything(run.path, slides=("slide-99",))


def test_a_model_without_attention_says_which_have_one(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, model=ModelSettings(name="joint", rna_widths=(2,)))
    run = train(recipe, sources, tmp_path / "joint", command="test")
    with pytest.raises(RunError, match="joint weighs all tiles alike, so it has no attention"):
        everything(run.path)
