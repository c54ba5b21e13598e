"""Trained networks evaluated with other bags than their recipe's: the same weights, twice in the table.

Owns the folder of such an evaluation: predictions.csv, case_predictions.csv and metrics.json, as a run has them. The
run itself is not touched, and nothing is trained: only ``bags.at_prediction`` of its recipe is another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsurv.config import from_table
from mmsurv.errors import RunError
from mmsurv.split import read_split
from mmsurv_train import inputs, required, results, strata
from mmsurv_train import run as runs
from mmsurv_train.place import new_run
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.sweep.damage import repairable
from mmsurv_train.sweep.possible import Needs, needs_of
from mmsurv_train.sweep.recipe import AtPrediction

if TYPE_CHECKING:
    from mmsurv_train.inputs import Inputs, Sources
    from mmsurv_train.results import Scored
    from mmsurv_train.run import Run

Wanted = tuple["Run", AtPrediction, Path]
"""A run, the ``bags.at_prediction`` of its evaluation, and the folder for that."""
FILES = (runs.PREDICTIONS, runs.CASE_PREDICTIONS, runs.METRICS)


def evaluate_missing(wanted: Iterable[Wanted], sources: Sources) -> None:
    """Evaluate runs with other bags, each into a folder of its own; those with the same bags in one read of them.

    Args:
        wanted: folders that are complete are kept.
        sources: the data the runs were made from.

    Raises:
        RunError: a run or a folder is damaged, or cannot be written.
        StoreError: a record is damaged.
    """
    wanted = list(wanted)
    reading = strata.reading(sources.cohort, [_recipe(run).evaluate for run, _, _ in wanted])
    sources = replace(sources, cohort=reading)
    loaded: dict[Needs, Inputs] = {}
    for alike in _alike(wanted):
        recipe = _recipe(alike[0][0])
        needs = needs_of(recipe)
        if needs not in loaded:
            loaded[needs] = inputs.read_features(inputs.join_tables(recipe, sources), recipe, sources)
        for (run, at_prediction, folder), scored in zip(alike, _score(alike, loaded[needs]), strict=True):
            _write(run, with_bags(run, at_prediction), folder, scored)


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of an evaluation whose files are all there.

    Raises:
        RunError: one is missing or damaged; names it and the remedy.
    """
    try:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise RunError(f"{folder}: {', '.join(missing)} missing.")
        for name in (runs.PREDICTIONS, runs.CASE_PREDICTIONS):
            required.check_columns(runs.read_csv(folder / name).columns, source=folder / name)
        metrics = runs.read_json(folder / runs.METRICS)
        parts = metrics.get("parts")
        part = "out-of-fold" if isinstance(parts, dict) and "out-of-fold" in parts else "test"
        required.check_keys(metrics, required.metrics_keys(part), source=folder / runs.METRICS)
    except RunError as error:
        raise repairable(error, folder, "computes") from error
    return metrics


def with_bags(run: Run, at_prediction: AtPrediction) -> TrainRecipe:
    """The recipe of a run, to be evaluated with other bags; of all tiles, whose number in training is forgotten."""
    recipe = _recipe(run)
    bags = replace(recipe.bags, at_prediction=at_prediction)
    return replace(recipe, bags=replace(bags, size=bags.size_at_prediction))


def _recipe(run: Run) -> TrainRecipe:
    return from_table(TrainRecipe, run.config["recipe"], source=str(run.path / runs.CONFIG), where="recipe.")


def _alike(wanted: Iterable[Wanted]) -> list[list[Wanted]]:
    """What is missing, by what can be asked in one read: the same patients and model, the same bags."""
    groups: dict[Any, list[Wanted]] = {}
    for run, at_prediction, folder in wanted:
        if folder.exists():
            read_metrics(folder)  # a damaged one is refused before the others are computed
        else:
            recipe = with_bags(run, at_prediction)
            groups.setdefault((needs_of(recipe), recipe.bags), []).append((run, at_prediction, folder))
    return list(groups.values())


def _score(alike: Sequence[Wanted], data: Inputs) -> Iterator[list[Scored]]:
    """Every fold of every run scored; runs in their order."""
    from mmsurv_train.evaluate import load_model
    from mmsurv_train.predict import predict_many

    members = [(run.folds() or [run], with_bags(run, at_prediction)) for run, at_prediction, _ in alike]
    models = []
    for (run, _, _), (folds, recipe) in zip(alike, members, strict=True):
        try:
            models += [(*load_model(fold), recipe) for fold in folds]
        except RunError as error:
            raise repairable(error, run.path, "trains") from error
    risks = iter(predict_many(models, data.cohort, data.bags))
    for folds, recipe in members:
        yield [results.score(recipe, data, read_split(fold.path / runs.SPLIT), next(risks)) for fold in folds]


def _write(run: Run, recipe: TrainRecipe, folder: Path, scored: Sequence[Scored]) -> None:
    whole = scored[0]
    if run.kind == runs.CROSS_VALIDATION:
        whole = results.pool(recipe, dict(zip(run.config["folds"], scored, strict=True)))
    with new_run(folder) as place:
        runs.write_predictions(place, whole.predictions)
        runs.write_json(place / runs.METRICS, whole.metrics)
