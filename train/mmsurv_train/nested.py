"""Nested selection: settings are chosen inside each training part, then trained on it; each test part is touched once.

Owns the choice. For every split the training and validation patients are cut into inner folds; every configuration of
the plan is trained and tested on them, all in as few passes as possible; the one of the greatest mean C-index is
trained on the split itself. Ties go to the one that stands first.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmsurv.errors import CohortError, ConfigError, MmsurvError, SplitError
from mmsurv.split import Split, make_folds
from mmsurv_train import asked, inputs, place, results, strata, writing
from mmsurv_train import run as runs
from mmsurv_train.inputs import Inputs, Sources
from mmsurv_train.metrics import c_index
from mmsurv_train.together import request

if TYPE_CHECKING:
    from mmsurv_train.checkpoint import Checkpoint
    from mmsurv_train.fit import Fitted
    from mmsurv_train.run import Run
    from mmsurv_train.sweep.plan import Plan, Planned

logger = logging.getLogger("mmsurv")

MEASURE = "mean case-level C-index of the inner folds"


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What was chosen for each split, and from what."""

    chosen: Mapping[int, Planned]
    """By fold."""
    table: pd.DataFrame
    """fold, configuration, each setting that varies, c_index (mean of the inner folds; blank where one has none), sd,
    n_inner (inner folds with a C-index), chosen: selection.csv."""
    n_settings: int
    inner_folds: int

    def record(self) -> dict[str, Any]:
        """For provenance.json."""
        return {
            "n_settings_tried": self.n_settings,
            "inner_folds": self.inner_folds,
            "measure": MEASURE,
            "chosen": {str(k): planned.name for k, planned in self.chosen.items()},
        }

    def text(self) -> str:
        """In one line for people."""
        names = ", ".join(f"{planned.name} (fold {k})" for k, planned in self.chosen.items())
        tried = f"{self.n_settings} tried on {self.inner_folds} inner folds of each training part"
        return f"settings: {tried}; chosen: {names}"


def train_nested(
    plan: Plan,
    sources: Sources,
    out: Path,
    *,
    inner_folds: int,
    command: str,
    on_slide: Callable[[int], None] = lambda _n_slides: None,
    on_start: Callable[..., None] = lambda *_: None,
    on_epoch: Callable[..., None] = lambda *_: None,
    on_end: Callable[[], None] = lambda: None,
) -> tuple[Run, Selection]:
    """Choose the settings of each split by inner folds, train them, and write the run folder ``out``.

    A folder of folds holds the settings of each fold in its own config.toml. The state is kept in a hidden folder
    beside ``out`` until the run is there: the same call after a kill goes on.

    Raises:
        ConfigError: configurations that look at other inputs, or are other models.
        RunError: ``out`` is taken or cannot be written, or what was stopped there was asked for otherwise.
        CohortError, SplitError, StoreError: the data cannot be right.
    """
    from mmsurv_train.predict import device_text, find_device
    from mmsurv_train.unfinished import Unfinished

    place.check_free(out)
    _require_alike(plan)
    recipe = plan.recipe
    device = device_text(find_device(recipe.fit.device))
    sources = dataclasses.replace(sources, cohort=strata.reading(sources.cohort, [recipe.evaluate]))
    data = inputs.join_tables(recipe, sources)
    splits = asked.make_splits(recipe.split, data.cohort.cases)
    strata.stratifications(data.cohort, recipe.evaluate)  # refused now, not after the training
    recipes = {planned.name: planned.recipe for planned in plan.configurations}
    wanted = request(recipes, {f"fold {k}": split for k, split in splits.items()}, sources, data, device)
    unfinished = Unfinished(place.checkpoint_beside(out))
    with unfinished.going_on({**wanted, "inner_folds": inner_folds}) as checkpoint:
        data = inputs.read_features(data, recipe, sources, on_slide=on_slide)
        watching = (on_start, on_epoch, on_end)
        try:
            selection = choose(
                plan, data, splits, inner_folds=inner_folds, watching=watching, checkpoint=_part(checkpoint, "inner")
            )
            folds = _trained(selection, splits, data, watching, _part(checkpoint, "outer"))
        except (ConfigError, CohortError, SplitError):
            unfinished.delete()  # the same command would end there again
            raise
        record = writing.record(data, sources, command=command, device=device)
        record = {**record, "selection": selection.record()}
        origin = writing.Origin(recipe=recipe, sources=sources, data=data, record=record)
        writing.write_run(out, origin, folds, selection=selection.table)
        unfinished.delete()
    return runs.read_run(out), selection


def _part(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """A checkpoint of one of the two steps."""
    return dataclasses.replace(checkpoint, folder=checkpoint.folder / name)


def _trained(
    selection: Selection,
    splits: Mapping[int, Split],
    data: Inputs,
    watching: Sequence[Callable[..., None]],
    checkpoint: Checkpoint,
) -> dict[int, writing.Result]:
    """What was chosen for each split, trained on it and scored."""
    from mmsurv_train.fit import FitFailed, FitJob, fit_many
    from mmsurv_train.patterns import predict_patterns
    from mmsurv_train.predict import predict_many

    on_start, on_epoch, on_end = watching
    jobs = [FitJob(recipe=selection.chosen[k].recipe, split=split) for k, split in splits.items()]
    on_start(data, jobs)
    fitted: list[Fitted] = []
    for one in fit_many(jobs, data.cohort, data.bags, on_epoch=on_epoch, checkpoint=checkpoint):
        if isinstance(one, FitFailed):
            raise one.error
        fitted.append(one)
    on_end()
    models = [(one.model, one.preprocess, job.recipe) for one, job in zip(fitted, jobs, strict=True)]
    tables = predict_many(models, data.cohort, data.bags)
    patterns = predict_patterns(models, list(splits.values()), data.cohort, data.bags)
    folds = {}
    for k, job, one, risks, lacking in zip(splits, jobs, fitted, tables, patterns, strict=True):
        scored = results.score(job.recipe, data, job.split, risks, lacking)
        folds[k] = writing.Result(split=job.split, fitted=one, scored=scored, recipe=job.recipe)
    return folds


def choose(
    plan: Plan,
    data: Inputs,
    splits: Mapping[int, Split],
    *,
    inner_folds: int,
    watching: Sequence[Callable[..., None]] = (),
    checkpoint: Checkpoint | None = None,
) -> Selection:
    """The best configuration for each split; no outcome of a split's test part is looked at.

    A configuration that fails on an inner fold is not chosen.

    Raises:
        ConfigError: all of them failed.
        SplitError: inner folds cannot be made.
    """
    from mmsurv_train.fit import FitFailed, FitJob, fit_many
    from mmsurv_train.predict import predict_many

    on_start, on_epoch, on_end = watching or (lambda *_: None,) * 3
    keys, jobs = [], []
    for k, split in splits.items():
        for inner in inner_splits(split, data.cohort.cases, inner_folds, seed=plan.recipe.split.seed):
            for planned in plan.configurations:
                keys.append((k, planned.name))
                jobs.append(FitJob(recipe=planned.recipe, split=inner))
    on_start(data, jobs)
    fitted = fit_many(jobs, data.cohort, data.bags, on_epoch=on_epoch, checkpoint=checkpoint)
    on_end()
    values: dict[tuple[int, str], list[float]] = {}
    failed: list[MmsurvError] = []
    for key, job, one in zip(keys, jobs, fitted, strict=True):
        if isinstance(one, FitFailed):
            logger.warning("Inner folds of fold %d: %s cannot be trained: %s", *key, one.error)
            values.setdefault(key, []).append(np.nan)
            failed.append(one.error)
            continue
        (risks,) = predict_many([(one.model, one.preprocess, job.recipe)], data.cohort, data.bags)
        values.setdefault(key, []).append(_c_index(risks.cases, job.split, data.cohort.cases))
    return _selection(plan, list(splits), values, inner_folds, failed)


def inner_splits(split: Split, cases: pd.DataFrame, n_folds: int, *, seed: int) -> list[Split]:
    """Folds of a split's training and validation patients; the test part is not in them.

    Raises:
        SplitError: too few events.
    """
    inside = cases.loc[sorted([*split.cases("train"), *split.cases("validation")])]
    deaths = int(inside["event"].sum())
    if deaths < n_folds:
        raise SplitError(
            f"{n_folds} inner folds need a death each, and of the {len(inside)} patients outside a test part "
            f"{deaths} died. Ask for at most --inner-folds {deaths}."
        )
    return make_folds(inside, n_folds=n_folds, seed=seed)


def _c_index(cases: pd.DataFrame, split: Split, outcomes: pd.DataFrame) -> float:
    rows = cases[cases["case_id"].isin(split.cases("test"))]
    known = outcomes.loc[rows["case_id"]]
    found = c_index(rows["risk"], known["time"], known["event"].to_numpy(bool))
    if found.value is None:
        logger.warning("An inner fold of %d patients has no C-index: %s", len(rows), found.reason)
        return np.nan
    return found.value


def _selection(
    plan: Plan,
    folds: Sequence[int],
    values: Mapping[tuple[int, str], list[float]],
    inner_folds: int,
    failed: Sequence[MmsurvError],
) -> Selection:
    by_name = {planned.name: planned for planned in plan.configurations}
    rows, chosen = [], {}
    for k in folds:
        means = {name: float(np.mean(values[k, name])) for name in by_name}  # a failed inner fold leaves none
        known = {name: mean for name, mean in means.items() if not np.isnan(mean)}
        if not known:
            remedy = f" Take fewer than {inner_folds} --inner-folds." if inner_folds > 2 and not failed else ""
            because = f" The first failed so: {failed[0]}" if failed else " Some test on too few patients."
            raise ConfigError(
                f"fold {k}: no configuration of {plan.source} could be trained and tested on all "
                f"inner folds (the log says why).{because}{remedy}"
            )
        best = max(known, key=lambda name: known[name])
        chosen[k] = by_name[best]
        for name in by_name:
            found = [value for value in values[k, name] if not np.isnan(value)]
            rows.append(
                {
                    "fold": k,
                    "configuration": name,
                    **plan.varied(by_name[name]),
                    "c_index": means[name],
                    "sd": float(np.std(found, ddof=1)) if len(found) > 1 else np.nan,
                    "n_inner": len(found),
                    "chosen": name == best,
                }
            )
    return Selection(chosen=chosen, table=pd.DataFrame(rows), n_settings=len(by_name), inner_folds=inner_folds)


def _require_alike(plan: Plan) -> None:
    """Raises ConfigError: the configurations are not one model on the same patients."""
    for what, of in (
        ("models", lambda planned: planned.recipe.model.name),
        ("inputs", lambda planned: planned.recipe.inputs),
        ("seeds", lambda planned: planned.recipe.fit.seeds),
        ("whether patients may lack modalities", lambda planned: planned.recipe.may_lack),
        ("Cox and discrete-time losses", lambda planned: planned.recipe.fit.risk_scale),
        ("clinical variables", lambda planned: planned.recipe.clinical.columns),
    ):
        if len({of(planned) for planned in plan.configurations}) > 1:
            raise ConfigError(f"{plan.source}: settings are chosen for one model on the same patients; {what} differ.")
