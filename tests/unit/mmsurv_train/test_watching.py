"""What a user sees of a training: one bar over all networks, which reaches its end also where they stop early."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest

from mmsurv_train import watching as module
from mmsurv_train.recipe import FitSettings, ModelSettings, TrainRecipe
from mmsurv_train.watching import watching


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Every bar that was shown: label, total, and how far it came."""
    shown: list[SimpleNamespace] = []

    @contextmanager
    def bar(total: int, label: str, *, unit: str):
        this = SimpleNamespace(label=label, total=total, unit=unit, done=0)
        shown.append(this)

        def advance(count: float) -> None:
            assert count >= 0, "a bar never goes back"
            this.done += count

        yield advance

    monkeypatch.setattr(module, "progress", bar)
    return shown


def data() -> SimpleNamespace:
    cohort = SimpleNamespace(cases=pd.DataFrame({"event": [True, False]}), slides=pd.DataFrame(index=range(3)))
    return SimpleNamespace(cohort=cohort, notices=lambda models: [f"left out of {models}"])


def job(n_seeds: int, *, epochs: int = 10, model: str = "joint") -> SimpleNamespace:
    fit = FitSettings(epochs=epochs, n_seeds=n_seeds)
    return SimpleNamespace(recipe=TrainRecipe(model=ModelSettings(name=model), fit=fit))


def test_the_bar_counts_the_epochs_of_all_networks(bars, capsys) -> None:
    with watching() as watch:
        for _ in range(3):
            watch.on_slide(3)
        watch.on_start(data(), [job(2), job(2)])
        for seed in (0, 1):
            for fold in (0, 1):
                watch.on_epoch(fold, {"seed": seed, "epoch": 1})
    reading, training = bars
    assert (reading.label, reading.done, reading.total) == ("Reading features", 3, 3)
    assert (training.label, training.done, training.total) == ("Training 2 folds × 2 seeds", 4, 40)
    assert capsys.readouterr().err == "left out of joint\njoint: 2 cases, 1 events, 3 slides\n"


def test_the_bar_reaches_its_end_where_networks_stop_early(bars) -> None:
    with watching() as watch:
        watch.on_start(data(), [job(2)])
        for epoch in range(1, 5):
            watch.on_epoch(0, {"seed": 0, "epoch": epoch})
        watch.on_epoch(0, {"seed": 1, "epoch": 1})
        assert bars[0].done == 5
        watch.on_end()
    assert bars[0].done == bars[0].total == 20


def test_a_training_that_goes_on_begins_where_it_was(bars) -> None:
    with watching() as watch:
        watch.on_start(data(), [job(1)])
        watch.on_epoch(0, {"seed": 0, "epoch": 8})
    assert bars[0].done == 8


def test_every_pass_has_bars_of_its_own(bars, capsys) -> None:
    with watching("models") as watch:
        watch.on_slide(1)
        watch.on_start(data(), [job(1), job(1, model="wsi-mean"), job(3, epochs=5)])
        watch.on_end()
        watch.on_start(data(), [job(1, model="rna")])
        watch.on_epoch(0, {"seed": 0, "epoch": 1})
    assert [(bar.label, bar.done, bar.total) for bar in bars] == [
        ("Reading features", 1, 1),
        ("Training 3 models", 35, 35),
        ("Training", 1, 10),
    ]
    assert "joint, wsi-mean: 2 cases" in capsys.readouterr().err
