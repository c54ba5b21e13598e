"""Files and devices count by what they come to: a file of folds by its folds, ``auto`` by the device it is here."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mmsurv.errors import CohortError, RunError
from mmsurv_train import predict
from mmsurv_train.asked import run_as_asked
from mmsurv_train.inputs import gene_sets_digest
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.train import Configuration, train, train_all


@pytest.fixture
def folds_file(study: Path, tmp_path: Path) -> Path:
    """Three folds, in each as many of those who died as can be."""
    cases = pd.read_csv(study / "clinical.csv").drop_duplicates("case_id").sort_values("vital_status", kind="stable")
    path = tmp_path / "folds.csv"
    pd.DataFrame({"case_id": cases["case_id"], "fold": [i % 3 for i in range(len(cases))]}).to_csv(path, index=False)
    return path


def recipe(folds_file: Path, **split) -> TrainRecipe:
    return TrainRecipe(
        model=ModelSettings(name="rna"),
        fit=FitSettings(epochs=3, device="cpu"),
        split=SplitSettings(folds_file=str(folds_file), **split),
        evaluate=EvaluateSettings(n_bootstrap=0),
    )


def move(folds_file: Path) -> Path:
    elsewhere = folds_file.parent / "elsewhere"
    elsewhere.mkdir()
    return Path(shutil.move(folds_file, elsewhere))


def change(folds_file: Path) -> None:
    """Two cases of the run change places."""
    table = pd.read_csv(folds_file, index_col="case_id")
    a, b = table.index[table["fold"] == 0][-1], table.index[table["fold"] == 1][-1]
    table.loc[[a, b], "fold"] = [1, 0]
    table.to_csv(folds_file)


def interrupted(job: int, row) -> None:
    if (job, row["epoch"]) == (2, 2):
        raise KeyboardInterrupt("by the user")


@pytest.mark.usefixtures("state_at_once")
def test_a_stopped_training_goes_on_with_the_folds_it_began_with_wherever_their_file_lies(
    sources, steps, folds_file, tmp_path
) -> None:
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train(recipe(folds_file), sources, tmp_path / "run", command="", on_epoch=interrupted)
    steps.clear()
    moved = move(folds_file)
    shutil.copy(moved, tmp_path / "copy.csv")
    change(tmp_path / "copy.csv")
    with pytest.raises(RunError, match=r"asked for something else:\n  splits\.run, fold 0  [0-9a-f]+… → [0-9a-f]+…"):
        train(recipe(tmp_path / "copy.csv"), sources, tmp_path / "run", command="")
    train(recipe(moved), sources, tmp_path / "run", command="")
    assert 0 < len(steps) < 3


@pytest.mark.usefixtures("state_at_once")
def test_a_stopped_training_is_not_gone_on_with_if_its_file_of_folds_was_changed(sources, folds_file, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train(recipe(folds_file), sources, tmp_path / "run", command="", on_epoch=interrupted)
    change(folds_file)
    with pytest.raises(RunError, match=r"asked for something else:\n  splits\.run, fold 0"):
        train(recipe(folds_file), sources, tmp_path / "run", command="")


@pytest.mark.parametrize("fold", [{}, {"fold": 1}], ids=["all folds", "one fold"])
def test_a_run_is_as_asked_if_its_file_of_folds_was_moved_and_not_if_it_was_changed(
    sources, passes, folds_file, tmp_path, fold
) -> None:
    places = {"a": tmp_path / "a"}

    def trained(path: Path):
        chosen = [Configuration(name="a", recipe=recipe(path, **fold))]
        return train_all(chosen, sources, places, checkpoint_folder=tmp_path / "unfinished", command="")["a"]

    trained(folds_file)
    moved = move(folds_file)
    assert not isinstance(trained(moved), Exception)
    assert len(passes) == 1
    change(moved)
    assert "cases have another part in fold" in str(trained(moved))
    assert len(passes) == 1
    with pytest.raises(RunError, match=r"holds a run of other folds than .*case-\d\d.*delete it to have it trained"):
        run_as_asked(places["a"], recipe(moved, **fold))


def test_a_file_of_folds_that_lost_a_case_or_a_fold_asks_for_another_run(sources, folds_file, tmp_path) -> None:
    train(recipe(folds_file), sources, tmp_path / "run", command="")
    table = pd.read_csv(folds_file)
    table.replace({"fold": {2: 1}}).to_csv(folds_file, index=False)
    with pytest.raises(RunError, match=r"other folds than .*folds\.csv has: 3 → 2\."):
        run_as_asked(tmp_path / "run", recipe(folds_file))
    table[table["case_id"] != "case-05"].to_csv(folds_file, index=False)
    with pytest.raises(RunError, match=r"other folds than .*have no fold: case-05"):
        run_as_asked(tmp_path / "run", recipe(folds_file))


def test_drawn_folds_are_not_those_of_a_file(sources, folds_file, tmp_path) -> None:
    drawn = dataclasses.replace(recipe(folds_file), split=SplitSettings(n_folds=3))
    train(drawn, sources, tmp_path / "run", command="")
    with pytest.raises(RunError, match=r"than the one asked for:\n  split\.folds_file  – +→ by its folds"):
        run_as_asked(tmp_path / "run", recipe(folds_file))


def on(device: str) -> TrainRecipe:
    fit = FitSettings(epochs=3, device=device)
    return TrainRecipe(model=ModelSettings(name="rna"), fit=fit, evaluate=EvaluateSettings(n_bootstrap=0))


@pytest.mark.usefixtures("state_at_once")
def test_a_device_counts_by_what_it_comes_to(sources, steps, tmp_path, monkeypatch) -> None:
    def stop(_job: int, row) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt("by the user")

    find_device = predict.find_device
    monkeypatch.setattr(predict, "find_device", lambda name: find_device("cpu" if name == "auto" else name))
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        train(on("cpu"), sources, tmp_path / "run", command="", on_epoch=stop)
    monkeypatch.setattr(predict, "device_text", lambda _device: "cuda (another)")
    with pytest.raises(RunError, match=r"device  cpu → cuda \(another\)"):
        train(on("cpu"), sources, tmp_path / "run", command="")
    monkeypatch.setattr(predict, "device_text", str)
    steps.clear()
    train(on("auto"), sources, tmp_path / "run", command="")
    assert 0 < len(steps) < 3
    assert run_as_asked(tmp_path / "run", on("cpu")).kind == "run"
    monkeypatch.setattr(predict, "device_text", lambda _device: "cuda (another)")
    assert run_as_asked(tmp_path / "run", on("auto")).kind == "run"  # the same setting: wherever it was trained
    with pytest.raises(RunError, match=r"device  cpu → cuda \(another\)"):
        run_as_asked(tmp_path / "run", on("cpu"))


def test_a_training_is_not_gone_on_with_by_another_file_of_gene_sets(tmp_path):
    path = tmp_path / "sets.gmt"
    model = ModelSettings(name="co-attention", gene_sets=str(path))
    digests = []
    for genes in ("A\tB", "A\tC"):
        path.write_text(f"one\t-\t{genes}\n")
        digests.append(gene_sets_digest(TrainRecipe(model=model)))
    assert digests[0] != digests[1]
    assert gene_sets_digest(TrainRecipe()) is None
    path.unlink()
    with pytest.raises(CohortError, match=r"sets\.gmt: cannot be read"):
        gene_sets_digest(TrainRecipe(model=model))
