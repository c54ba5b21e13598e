"""Attention weights by tile: whose they are, over which tiles they add up to 1, and where the tiles lie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmsurv.errors import ConfigError, RunError
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
    with pytest.raises(ConfigError, match=r"--fold 7: there is no such fold of .*folds\. It has 0, 1\."):
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
    with pytest.raises(RunError, match="1 slide cannot be explained: slide-99"):
        everything(run.path, slides=("slide-99",))


def test_a_model_without_attention_says_which_have_one(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, model=ModelSettings(name="joint", rna_widths=(2,)))
    run = train(recipe, sources, tmp_path / "joint", command="test")
    with pytest.raises(RunError, match="joint weighs all tiles alike, so it has no attention"):
        everything(run.path)


def test_the_slides_of_a_case_are_asked_for_by_its_id(run):
    assert set(everything(run.path, cases=("case-03",))["slide_id"]) == {"slide-03", "slide-42"}
    both = everything(run.path, cases=("case-03",), slides=("slide-20",))
    assert set(both["slide_id"]) == {"slide-03", "slide-42", "slide-20"}
    with pytest.raises(RunError, match="1 case cannot be explained: case-99"):
        everything(run.path, cases=("case-99",))


def test_one_split_has_no_folds_to_choose_from(run):
    with pytest.raises(ConfigError, match=r"is of one split and has no folds\. Leave --fold out"):
        everything(run.path, fold=0)


def test_tiles_that_the_prediction_does_not_see_have_no_weight(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, bags=BagSettings(size=5, at_prediction="size"))
    run = train(recipe, sources, tmp_path / "first", command="test")
    table = everything(run.path)
    assert table.groupby("case_id")["row"].count().max() == 5
    np.testing.assert_allclose(table.groupby("case_id")["weight"].sum(), 1, rtol=1e-6)
    of_two = table[table["case_id"] == "case-03"].groupby("slide_id")["row"].apply(list)
    assert of_two.tolist() == [[0, 1, 2], [0, 1]]  # as the bag of a case shares them


def test_folds_with_other_heads_have_the_columns_of_all(sources, tmp_path):
    """As after a nested selection, which chooses for each fold."""
    recipe = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=2))
    run = train(recipe, sources, tmp_path / "folds", command="test")
    single = dataclasses.replace(recipe, model=dataclasses.replace(RECIPE.model, heads=1))
    other = train(single, sources, tmp_path / "single", command="test")
    (run.path / "fold-1").rename(tmp_path / "away")
    (other.path / "fold-1").rename(run.path / "fold-1")
    out = tmp_path / "weights.csv"
    done = CliRunner().invoke(attention, [str(run.path), "-o", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    table = pd.read_csv(out)
    two, one = (table[table["fold"] == k] for k in (0, 1))
    assert two[["weight_5_1", "weight_6_1"]].notna().all(axis=None)
    assert one[["weight_5_1", "weight_6_1"]].isna().all(axis=None)
    np.testing.assert_allclose(one["weight"], one[["weight_5_0", "weight_6_0"]].mean(axis=1), rtol=1e-12)


def test_data_that_cannot_be_read_are_not_said_to_be_a_file_that_cannot_be_written(run, tmp_path, monkeypatch):
    def broken(self, slide_id):
        raise OSError(5, "Input/output error", "disk")

    monkeypatch.setattr(type(open_store(str(run.config["data"]["store"]))), "read", broken)
    found = CliRunner().invoke(attention, [str(run.path), "-o", str(tmp_path / "weights.csv")])
    assert str(found.exception) == "disk: cannot be read (Input/output error)."
    assert not list(tmp_path.glob("*weights*"))


def test_a_slide_of_which_the_prediction_sees_no_tile_is_refused_by_name(sources, tmp_path):
    recipe = dataclasses.replace(RECIPE, bags=BagSettings(size=1, at_prediction="size"))
    run = train(recipe, sources, tmp_path / "first", command="test")
    with pytest.raises(RunError, match="slide slide-42 has no weight: the run predicts from the first 1 tiles"):
        everything(run.path, slides=("slide-42",))
    assert len(everything(run.path, slides=("slide-42",), bag="slide")) == 1
    assert set(everything(run.path, cases=("case-03",))["slide_id"]) == {"slide-03"}
