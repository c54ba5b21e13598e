"""Training from recipe and sources to a run folder: load, split, fit, predict, measure, write.

Owns the order of these steps, for one split and for cross-validation, and what a run's files say. The same step that
scores a fitted model here scores the saved one in ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv import provenance
from mmsurv.config import to_table
from mmsurv.errors import ConfigError
from mmsurv_train import crossval, inputs, scores
from mmsurv_train import run as runs
from mmsurv_train.inputs import Inputs, Sources
from mmsurv_train.recipe import SplitSettings, TrainRecipe

if TYPE_CHECKING:
    from mmsurv.split import Split
    from mmsurv_train.fusion import SurvivalModel
    from mmsurv_train.preprocess import Preprocess
    from mmsurv_train.run import Run

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called after every epoch with the fold (0 without folds) and the epoch's row of the history."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model says about a cohort."""

    predictions: scores.Predictions
    metrics: dict[str, Any]
    baseline: pd.DataFrame


def train(
    recipe: TrainRecipe,
    sources: Sources,
    out: Path,
    *,
    command: str,
    on_slide: Callable[[int], None] = lambda _n_slides: None,
    on_start: Callable[[Inputs, int], None] = lambda _inputs, _n_folds: None,
    on_epoch: OnEpoch = lambda _fold, _row: None,
) -> Run:
    """Train the recipe's model and write the run folder ``out``.

    Args:
        recipe: settings; with folds, every fold gets a run folder of its own within ``out``.
        sources: tables and store.
        out: where the run goes; must be free.
        command: how the user asked for it, for the record.
        on_slide: told of every slide read from the store, with how many there are to read.
        on_start: told the inputs and the number of models to train, before the first.
        on_epoch: told of every epoch.

    Raises:
        RunError: ``out`` is taken or cannot be written.
        ConfigError, CohortError, SplitError, StoreError: the request or the data cannot be right.
    """
    from mmsurv_train.predict import device_text, find_device

    runs.check_free(out)
    device = find_device(recipe.fit.device)
    data = inputs.load_inputs(recipe.model, sources, on_slide=on_slide)
    splits = make_splits(recipe.split, data.cohort.cases)
    on_start(data, len(splits))
    job = _Job(recipe=recipe, sources=sources, data=data, record=_record(data, command, device_text(device)))
    with runs.new_run(out) as folder:
        if len(splits) == 1:
            (k, split), *_ = splits.items()
            _train_one(job, split, folder=folder, out=out, on_epoch=partial(on_epoch, k))
        else:
            _cross_validate(job, splits, folder=folder, out=out, on_epoch=on_epoch)
    return runs.read_run(out)


def make_splits(settings: SplitSettings, cases: pd.DataFrame) -> dict[int, Split]:
    """The splits a recipe asks for, by fold; one split is fold 0.

    Raises:
        ConfigError: the one fold asked for does not exist.
    """
    from mmsurv.split import make_folds, make_split, read_folds

    if settings.folds_file is not None:
        splits = read_folds(Path(settings.folds_file), cases, seed=settings.seed)
    elif settings.n_folds:
        splits = make_folds(cases, n_folds=settings.n_folds, seed=settings.seed)
    elif settings.fold is not None:
        raise ConfigError("a fold was asked for without folds: add --folds or --folds-file.")
    else:
        splits = [make_split(cases, seed=settings.seed, fractions=settings.fractions)]
    if settings.fold is None:
        return dict(enumerate(splits))
    if settings.fold >= len(splits):
        raise ConfigError(f"fold {settings.fold} does not exist: folds are 0 to {len(splits) - 1}.")
    return {settings.fold: splits[settings.fold]}


def score(recipe: TrainRecipe, data: Inputs, split: Split, model: SurvivalModel, preprocess: Preprocess) -> Scored:
    """Predict all parts with a fitted model and measure them."""
    from mmsurv_train.cox import breslow_baseline
    from mmsurv_train.fit import predict

    risks = predict((model, preprocess), recipe, data.cohort, data.bags)
    predictions = scores.with_outcomes(risks, data.cohort.cases, split.parts)
    training = predictions.part("train").cases
    baseline = breslow_baseline(*(training[name].to_numpy() for name in ("risk", "time", "event")))
    measured = scores.measure(predictions, recipe.evaluate, model=recipe.model.name)
    return Scored(predictions=predictions, metrics=measured, baseline=baseline)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the folds of a run have in common."""

    recipe: TrainRecipe
    sources: Sources
    data: Inputs
    record: dict[str, Any]

    def config(self, out: Path) -> dict[str, Any]:
        """config.toml of a run that will stand at ``out``."""
        return {"recipe": to_table(self.recipe), **inputs.sources_table(self.sources, run=out)}


def _train_one(
    job: _Job, split: Split, *, folder: Path, out: Path, on_epoch: Callable[[Mapping[str, float]], None]
) -> Scored:
    """Fit on one split and write its run into ``folder``, which will stand at ``out``."""
    from mmsurv_train.fit import fit

    fitted = fit(job.recipe, job.data.cohort, job.data.bags, split, on_epoch=on_epoch)
    scored = score(job.recipe, job.data, split, fitted.model, fitted.preprocess)
    runs.write_config(folder, job.config(out), kind=runs.RUN)
    runs.write_weights(folder, fitted.model.state_dict())
    runs.write_json(folder / runs.PREPROCESS, fitted.preprocess.to_table())
    split.save(folder / runs.SPLIT)
    runs.write_csv(folder / runs.HISTORY, fitted.history)
    runs.write_predictions(folder, scored.predictions)
    runs.write_json(folder / runs.METRICS, scored.metrics)
    runs.write_csv(folder / runs.BASELINE, scored.baseline)
    runs.write_json(folder / runs.PROVENANCE, {**job.record, "best_epoch": fitted.best_epoch})
    return scored


def _cross_validate(job: _Job, splits: Mapping[int, Split], *, folder: Path, out: Path, on_epoch: OnEpoch) -> None:
    """Fit on every fold, then pool the out-of-fold risks."""
    folds = []
    for k, split in splits.items():
        name = runs.fold_name(k)
        (folder / name).mkdir()
        scored = _train_one(job, split, folder=folder / name, out=out / name, on_epoch=partial(on_epoch, k))
        folds.append(crossval.Fold(k=k, predictions=scored.predictions, metrics=scored.metrics))
    pooled = crossval.pool(folds)
    runs.write_config(folder, {**job.config(out), "folds": list(splits)}, kind=runs.CROSS_VALIDATION)
    runs.write_predictions(folder, pooled)
    runs.write_json(folder / runs.METRICS, crossval.measure_pooled(folds, pooled, job.recipe.evaluate))
    runs.write_json(folder / runs.PROVENANCE, job.record)


def _record(data: Inputs, command: str, device: str) -> dict[str, Any]:
    """provenance.json: what the run was made from, with what, where and when."""
    import torch

    cohort = data.cohort
    return {
        "made": provenance.now(),
        "command": command,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "device": device,
        "threads": torch.get_num_threads(),
        "digests": data.digests,
        "slides": cohort.slides["slide_id"].tolist(),
        "cases": list(cohort.cases.index),
        "join": data.join,
        "left_out": data.left_out,
        "store_recipe": None if data.store is None else dict(data.store.recipe),
    }
