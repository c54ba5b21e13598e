"""A run computed again: from its saved model and the data, compared bit for bit with what it says.

Owns the comparison. No slide is opened: the store, the tables and the run folder are enough. Data that are not the
run's are refused before anything is computed (``inputs.check_tables``, ``check_digests``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmsurv import provenance
from mmsurv.config import from_table
from mmsurv.errors import RunError
from mmsurv_train import inputs, results
from mmsurv_train import run as runs
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.results import Scored
from mmsurv_train.run import Run
from mmsurv_train.unfinished import threads

if TYPE_CHECKING:
    from mmsurv_train.models import SurvivalModel
    from mmsurv_train.preprocess import Preprocess

SHOWN = 5
"""Differences listed per file."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out, and where it differs from what the run says."""

    run: Run
    metrics: dict[str, Any]
    differences: list[str]
    """Lines for people; empty when every file is identical."""

    @property
    def identical(self) -> bool:
        return not self.differences


def evaluate(
    path: Path,
    *,
    store: str | None = None,
    clinical: str | None = None,
    rna: str | None = None,
    memory: int | None = None,
) -> Evaluation:
    """Compute a run's predictions and metrics again and compare them with its files.

    Args:
        path: run folder of one split or of a cross-validation.
        store, clinical, rna: where these are now, if they have moved; they must be the same data.
        memory: most bytes of tile features held at once; None: half of what is free.

    Raises:
        RunError: not a run, or the data are not those it was made from; tables are looked at first.
        StoreError: a record is damaged.
    """
    run = runs.read_run(path)
    members, recipe = run.folds() or [run], _recipe(run)
    models = [load_model(member) for member in members]
    sources = inputs.read_sources(run.config, run=run.path, store=store, clinical=clinical, rna=rna, memory=memory)
    inputs.check_tables(sources, run.provenance["digests"], run=run.path)
    data = inputs.join_tables(recipe, sources, only={name: run.provenance[name] for name in ("slides", "cases")})
    inputs.check_digests(data, run.provenance["digests"], run=run.path)
    for member, (_, preprocess) in zip(members, models, strict=True):
        _check_dim(member, preprocess, data, sources)
    differences: list[str] = []
    with threads(run.provenance["threads"]):  # another number may sum in another order, and change the last bit
        data = inputs.read_features(data, recipe, sources)
        scored = _score_again(members, models, data)
    for member, one in zip(members, scored, strict=True):
        differences += _compare(member, one)
    whole = scored[0]
    if run.kind == runs.CROSS_VALIDATION:
        whole = results.pool(recipe, dict(zip(run.config["folds"], scored, strict=True)))
        differences += _compare(run, whole)
    if differences:
        differences += _why(run)
    return Evaluation(run=run, metrics=whole.metrics, differences=differences)


def load_model(run: Run) -> tuple[SurvivalModel, Preprocess]:
    """The model of a run of one split, with its scaling.

    Raises:
        RunError: the saved weights or scaling do not fit the run's recipe.
    """
    from mmsurv_train.models import build_model
    from mmsurv_train.prepare import dims_of
    from mmsurv_train.preprocess import Preprocess

    recipe = _recipe(run)
    try:
        preprocess = Preprocess.from_table(runs.read_json(run.path / runs.PREPROCESS))
        model = build_model(recipe.model, dims_of(recipe, preprocess), seeds=recipe.fit.seeds)
        model.load_state_dict(run.weights())
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{run.path}: the saved model does not fit its recipe ({error}). Train it again.") from error
    return model.eval(), preprocess


def _score_again(
    members: Sequence[Run], models: Sequence[tuple[SurvivalModel, Preprocess]], data: inputs.Inputs
) -> list[Scored]:
    """Every member scored, all in one read of the features."""
    from mmsurv.split import read_split
    from mmsurv_train.patterns import predict_patterns
    from mmsurv_train.predict import predict_many

    recipes = [_recipe(member) for member in members]
    saved = [(*model, recipe) for model, recipe in zip(models, recipes, strict=True)]
    tables = predict_many(saved, data.cohort, data.bags)
    splits = [read_split(member.path / runs.SPLIT) for member in members]
    patterns = predict_patterns(saved, splits, data.cohort, data.bags)
    return [results.score(*one) for one in zip(recipes, [data] * len(saved), splits, tables, patterns, strict=True)]


def _check_dim(run: Run, preprocess: Preprocess, data: inputs.Inputs, sources: inputs.Sources) -> None:
    """Raises RunError: the store's features are of another width than the model's."""
    if _recipe(run).needs_tiles and data.store is not None and data.store.dim != preprocess.feature_dim:
        raise RunError(
            f"{run.path}: the model takes {preprocess.feature_dim} features per tile, and those of {sources.store} "
            f"have {data.store.dim}. Give the run's store with --store, or train again."
        )


def _recipe(run: Run) -> TrainRecipe:
    return from_table(TrainRecipe, run.config["recipe"], source=str(run.path / runs.CONFIG), where="recipe.")


def _compare(run: Run, scored: Scored) -> list[str]:
    saved, found = run.predictions, scored.predictions
    lines = [
        *_compare_table(run, runs.PREDICTIONS, saved.slides, found.slides, "slide_id"),
        *_compare_table(run, runs.CASE_PREDICTIONS, saved.cases, found.cases, "case_id"),
        *_compare_table(run, runs.SURVIVAL, run.survival, scored.survival, "case_id"),
        *_compare_metrics(run, scored.metrics),
    ]
    if scored.baseline is not None:
        lines += _compare_bytes(run, runs.BASELINE, runs.csv_bytes(scored.baseline))
    if scored.patterns is not None:
        lines += _compare_bytes(run, runs.PATTERN_PREDICTIONS, runs.csv_bytes(scored.patterns.predictions))
    if scored.floors is not None:
        lines += _compare_bytes(run, runs.FLOOR_PREDICTIONS, runs.csv_bytes(scored.floors.predictions))
        if scored.floors.table:  # pooled floors have none: each fold has its own
            lines += _compare_bytes(run, runs.FLOORS, runs.json_text(scored.floors.table).encode())
    return lines


def _compare_table(run: Run, name: str, saved: pd.DataFrame, found: pd.DataFrame, key: str) -> list[str]:
    """Which rows of a predictions file differ; by bytes, so that not a bit escapes."""
    if (run.path / name).read_bytes() == runs.csv_bytes(found):
        return []
    place = run.path / name
    if list(saved.columns) != list(found.columns):
        return [f"{place}: columns {', '.join(saved.columns)} → {', '.join(found.columns)}"]
    if saved[key].tolist() != found[key].tolist():
        strangers = sorted(set(saved[key]) ^ set(found[key]))
        return [f"{place}: other rows than computed: {', '.join(strangers[:SHOWN]) or 'in another order'}"]
    lines = []
    for column in saved.columns:
        both_blank = saved[column].isna() & found[column].isna()
        rows = np.flatnonzero(((saved[column] != found[column]) & ~both_blank).to_numpy())
        for row in rows[:SHOWN]:
            lines.append(
                f"{place}: {column} of {saved[key][row]}: saved {saved[column][row]}, computed {found[column][row]}"
            )
        if len(rows) > SHOWN:
            lines.append(f"{place}: {column} differs in {len(rows)} of {len(saved)} rows")
    return lines or [f"{place}: same values, written otherwise"]


def _compare_metrics(run: Run, metrics: dict[str, Any]) -> list[str]:
    place = run.path / runs.METRICS
    if place.read_bytes() == runs.json_text(metrics).encode():
        return []
    found = provenance.differences(_numbered(run.metrics), _numbered(metrics))
    lines = [f"{place}: {key}: saved {saved}, computed {computed}" for key, saved, computed in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"{place}: {len(found)} fields differ")
    return lines or [f"{place}: same values, written otherwise"]


def _numbered(value: Any) -> Any:
    """Lists as tables by place, so that a difference names one number and not the whole list."""
    if isinstance(value, list):
        return {str(place): _numbered(item) for place, item in enumerate(value)}
    return {key: _numbered(item) for key, item in value.items()} if isinstance(value, dict) else value


def _compare_bytes(run: Run, name: str, computed: bytes) -> list[str]:
    place = run.path / name
    if not place.is_file():  # files that only some runs have are not asked for when the folder is opened
        return [f"{place}: missing; it is computed for this run"]
    return [] if place.read_bytes() == computed else [f"{place}: differs from what is computed"]


def _why(run: Run) -> list[str]:
    """What else differs between then and now, for differences that no one made by hand."""
    from mmsurv_train.predict import device_text, find_device

    then, now = ({**run.provenance["versions"], **run.provenance["machine"]},
                 {**provenance.versions(), **provenance.machine()})  # fmt: skip
    then["device"], now["device"] = run.provenance["device"], device_text(find_device(_recipe(run).fit.device))
    found = provenance.differences(then, now)
    return [f"since the run: {key} {before} → {after}" for key, before, after in found]
