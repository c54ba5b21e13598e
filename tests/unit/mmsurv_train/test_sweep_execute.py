"""A plan carried out in a folder; what trains is played by a stand-in."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from mmsurv.cohort.options import CohortOptions
from mmsurv.errors import ConfigError, RunError
from mmsurv.store import create_store, open_store
from mmsurv.store.testing import make_record
from mmsurv_train import train as training
from mmsurv_train.inputs import Sources
from mmsurv_train.sweep import execute
from mmsurv_train.sweep.execute import sweep
from mmsurv_train.sweep.plan import make_plan
from mmsurv_train.sweep.recipe import load_sweep_recipe
from mmsurv_train.sweep.text import RANDOM_WEIGHTS

RECIPE = '[fit]\ndevice = "cpu"\n[grid]\n"fit.learning_rate" = [0.001, 0.01]\n'
LEVEL = {"n": 9, "events": 4, "c_index": {"value": 0.6}}
METRICS = {
    "method": {"interval": "none", "confidence": 0.95, "n_bootstrap": 0},
    "parts": {"test": {"wsi": LEVEL, "case": LEVEL}},
    "seeds": {level: {"mean": 0.6, "sd": None} for level in ("wsi", "case")},
}


@pytest.fixture
def sources(study: Path) -> Sources:
    options = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    return Sources(cohort=options, store=str(study / "store"))


@pytest.fixture
def run(monkeypatch, sources, tmp_path):
    """Carries out a recipe, with what ``train_all`` is to return; gives the sweep and what it was called with."""

    def run(found, *, recipe: str = RECIPE, store: Path | None = None, out: str = "sweep"):
        (tmp_path / "mine.toml").write_text(recipe, encoding="utf-8")
        plan = make_plan(load_sweep_recipe(str(tmp_path / "mine.toml")), {})
        called = SimpleNamespace()

        def train_all(configurations, _sources, places, **options):
            called.names, called.places, called.options = [one.name for one in configurations], places, options
            called.threads = torch.get_num_threads()
            return {one.name: found(one.name) for one in configurations}

        monkeypatch.setattr(training, "train_all", train_all)
        watching = {"on_epoch": lambda *_: None}
        read = sources if store is None else replace(sources, store=str(store))
        return sweep(plan, read, tmp_path / out, command="mmsurv sweep", watching=watching), called

    return run


def done(_name: str) -> SimpleNamespace:
    return SimpleNamespace(metrics=METRICS)


def test_every_configuration_gets_a_place_below_runs_and_a_row(run, tmp_path) -> None:
    swept, called = run(done)
    assert called.names == ["learning_rate=0.001", "learning_rate=0.01"]
    assert called.places == {name: tmp_path / "sweep" / "runs" / name for name in called.names}
    assert called.options["checkpoint_folder"] == tmp_path / "sweep" / ".checkpoint"
    assert (called.options["command"], set(called.options)) == (
        "mmsurv sweep", {"checkpoint_folder", "command", "on_epoch"},
    )  # fmt: skip
    assert swept.failed == {}
    written = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert written["configuration"].tolist() == called.names
    assert (tmp_path / "sweep" / "table.md").read_text() == swept.text
    assert not (tmp_path / "sweep" / "published.md").exists()


def test_a_failed_configuration_leaves_the_others_their_numbers(run, tmp_path) -> None:
    error = ConfigError("the risks are not finite\nin epoch 3")
    swept, _ = run(lambda name: error if name.endswith("=0.01") else done(name))
    assert swept.failed == {"learning_rate=0.01": "the risks are not finite in epoch 3"}
    written = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert written["status"].tolist() == ["complete", "failed"]
    assert written["wsi_mean"].notna().tolist() == [True, False]


def test_a_configurations_name_is_not_repeated_in_its_reason(run, tmp_path) -> None:
    recipe = RECIPE + '[sweep]\nat_prediction = ["size", "all"]\n[bags]\nsize = 2\nat_prediction = "size"\n'
    swept, _ = run(lambda name: ConfigError(f"{name}, fold 3: no loss"), recipe=recipe)
    assert swept.failed == dict.fromkeys(("learning_rate=0.001", "learning_rate=0.01"), "fold 3: no loss")
    assert swept.text.count("fold 3: no loss") == 2
    assert "Failed:\n- learning_rate=0.001: fold 3: no loss\n- learning_rate=0.01: fold 3" in swept.text


def test_the_table_is_written_before_another_may_work_in_the_folder(run, tmp_path, monkeypatch) -> None:
    written = []
    publish = execute.publish_bytes

    def watched(path, *arguments, **options):
        with (tmp_path / "sweep" / ".lock").open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        written.append(path.name)
        publish(path, *arguments, **options)

    monkeypatch.setattr(execute, "publish_bytes", watched)
    figures = '[published]\ntitle = "t"\nsource = "s"\nmade_with = "m"\ncolumns = ["lr"]\nrows = [["1"]]\n'
    run(done, recipe=RECIPE + figures)
    assert written == ["table.csv", "table.md", "published.md"]


@pytest.mark.parametrize("state", [False, True])
def test_an_interrupt_leaves_no_empty_folder_for_a_state(run, tmp_path, state) -> None:
    checkpoint = tmp_path / "sweep" / ".checkpoint"

    def interrupted(_name: str) -> None:
        (checkpoint / "tiles" if state else checkpoint).mkdir(parents=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)
    assert checkpoint.exists() == state


def test_features_of_random_weights_are_pointed_out(run, sources, study, tmp_path) -> None:
    assert RANDOM_WEIGHTS not in run(done)[0].text
    store = create_store(tmp_path / "random", recipe={"encoder": {"name": "resnet50", "weights": "random"}}, dim=8)
    for name in open_store(study / "store").slide_ids():
        store.write(make_record(name, tiles=2))
    swept, _ = run(done, store=tmp_path / "random", out="other")
    assert f"**{RANDOM_WEIGHTS}**" in swept.text
    assert f"**{RANDOM_WEIGHTS}**" in swept.remarks
    rna = RECIPE + '[model]\nname = "rna"\n'
    assert RANDOM_WEIGHTS not in run(done, store=tmp_path / "random", out="rna", recipe=rna)[0].text


def test_published_figures_get_a_file_of_their_own(run, tmp_path) -> None:
    figures = '[published]\ntitle = "t"\nsource = "s"\nmade_with = "m"\ncolumns = ["lr"]\nrows = [["0.123456"]]\n'
    run(done, recipe=RECIPE + figures)
    assert "0.123456" in (tmp_path / "sweep" / "published.md").read_text()
    for name in ("table.md", "table.csv"):
        assert "0.123456" not in (tmp_path / "sweep" / name).read_text()


def test_a_folder_in_use_is_refused(run, tmp_path) -> None:
    (tmp_path / "sweep").mkdir()
    with (tmp_path / "sweep" / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another mmsurv sweep is at work in"):
            run(done)
    run(done)


def test_a_sweep_goes_on_with_as_many_threads_as_it_began_with(run) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(done)
        torch.set_num_threads(1)
        assert run(done)[1].threads == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_run_of_other_settings_in_the_folder_is_refused(run, tmp_path) -> None:
    place = tmp_path / "sweep" / "runs" / "learning_rate=0.01"
    run(done)
    place.mkdir(parents=True)
    with pytest.raises(RunError, match="is not a run"):
        run(done)
