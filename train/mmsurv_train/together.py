"""One pass over the features for many models: join, split, read, fit, predict, measure, write.

Owns the order of these steps. All folds, seeds and configurations of a pass are fitted together and predicted
together; a configuration that fails is named and stops no other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mmsurv import provenance
from mmsurv.config import to_table
from mmsurv.errors import MmsurvError
from mmsurv_train import asked, inputs, results, strata, writing
from mmsurv_train import run as runs
from mmsurv_train.inputs import Inputs, Sources
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.split import Split
    from mmsurv_train.fit import FitFailed, FitJob, Fitted
    from mmsurv_train.run import Run
    from mmsurv_train.unfinished import Unfinished

Outcome: TypeAlias = "Run | MmsurvError"
OnSlide = Callable[[int], None]
"""Told of every slide read from the store, with how many there are to read."""
OnStart: TypeAlias = "Callable[[Inputs, Sequence[FitJob]], None]"
"""Told the inputs and the jobs of a pass (each a fold of a configuration) before the first epoch."""
OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Told of every epoch of every network: the index of its job in the pass, and its row of the history."""
OnEnd = Callable[[], None]
"""Told when all jobs of a pass are trained, before they are predicted."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A recipe under a name."""

    name: str
    recipe: TrainRecipe


@dataclass(frozen=True)
class Watching:
    """Whom to tell of progress."""

    on_slide: OnSlide
    on_start: OnStart
    on_epoch: OnEpoch
    on_end: OnEnd


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One fold of one configuration."""

    configuration: Configuration
    k: int
    split: Split
    alone: bool
    """Whether it is the configuration's only one."""

    @property
    def name(self) -> str:
        return self.configuration.name if self.alone else f"{self.configuration.name}, fold {self.k}"


def train_together(
    configurations: Sequence[Configuration],
    sources: Sources,
    places: Mapping[str, Path],
    unfinished: Unfinished,
    *,
    command: str,
    watching: Watching,
) -> dict[str, Outcome]:
    """Train configurations that need the same patients, features and device, and write their runs.

    Args:
        configurations: at least one.
        sources: tables and store of all.
        places: where each run goes, by the configuration's name; one without a place is trained and not written, as
            it was by the pass that was stopped.
        unfinished: where the state is kept meanwhile; deleted when every run that can be is in place.
        command: for the record.
        watching: whom to tell.

    Returns:
        The run, or why there is none, by name.

    Raises:
        RunError: the state in ``unfinished`` is of another request.
        CohortError, StoreError, ConfigError: data that none of them could be trained on.
    """
    from mmsurv_train.fit import FitJob, fit_many
    from mmsurv_train.predict import device_text, find_device

    reading = strata.reading(sources.cohort, [one.recipe.evaluate for one in configurations])
    sources = dataclasses.replace(sources, cohort=reading)
    recipe = configurations[0].recipe
    device = device_text(find_device(recipe.fit.device))
    data = inputs.join_tables(recipe, sources)
    members, found = _members(configurations, data)
    if not members:
        return found
    wanted = request(
        {one.name: one.recipe for one in configurations if one.name not in found},
        {one.name: one.split for one in members},
        sources, data, device,
    )  # fmt: skip
    with unfinished.going_on(wanted) as checkpoint:
        data = inputs.read_features(data, recipe, sources, on_slide=watching.on_slide)
        jobs = [FitJob(recipe=one.configuration.recipe, split=one.split) for one in members]
        watching.on_start(data, jobs)
        fitted = fit_many(jobs, data.cohort, data.bags, on_epoch=watching.on_epoch, checkpoint=checkpoint)
        watching.on_end()
        folds, failed = _score(members, fitted, data, places)
        found.update(failed)
        record = writing.record(data, sources, command=command, device=device)
        recipes = {one.name: one.recipe for one in configurations}
        for name, of_folds in folds.items():
            origin = writing.Origin(recipe=recipes[name], sources=sources, data=data, record=record)
            found[name] = _write(places[name], origin, of_folds)
        if any(isinstance(found[name], MmsurvError) for name in folds):
            unfinished.leave()
        else:
            unfinished.delete()
    return found


def _members(configurations: Sequence[Configuration], data: Inputs) -> tuple[list[_Member], dict[str, Outcome]]:
    """Every fold of every configuration, and the configurations that cannot be split or parted, with the reason."""
    members: list[_Member] = []
    failed: dict[str, Outcome] = {}
    for configuration in configurations:
        try:
            configuration.recipe.require_complete()
            inputs.gene_sets_digest(configuration.recipe)  # a file that cannot be read is this configuration's failure
            splits = asked.make_splits(configuration.recipe.split, data.cohort.cases)
            strata.stratifications(data.cohort, configuration.recipe.evaluate)  # refused now, not after the training
        except MmsurvError as error:
            failed[configuration.name] = error
            continue
        alone = len(splits) == 1
        members += [_Member(configuration=configuration, k=k, split=split, alone=alone) for k, split in splits.items()]
    return members, failed


def request(
    recipes: Mapping[str, TrainRecipe], splits: Mapping[str, Split], sources: Sources, data: Inputs, device: str
) -> dict[str, Any]:
    """Whatever decides the numbers that come out; where a file lies does not, nor how the device was named.

    Args:
        recipes: of every configuration, by its name.
        splits: that are trained on, by name.
        sources, data: from which.
        device: in words.
    """
    reading = {key: value for key, value in to_table(sources.cohort).items() if key not in ("clinical", "rna")}
    return {
        "order": list(recipes),
        "recipes": {name: asked.comparable(recipe) for name, recipe in recipes.items()},
        "splits": {name: asked.split_digest(split) for name, split in splits.items()},
        "cohort": {**reading, "complete_cases": sources.complete_cases},
        "digests": data.digests,
        "gene_sets": {name: inputs.gene_sets_digest(recipe) for name, recipe in recipes.items()},
        "cases": list(data.cohort.cases.index),
        "versions": provenance.versions(),
        "device": device,
    }


def _score(
    members: Sequence[_Member], fitted: Sequence[Fitted | FitFailed], data: Inputs, places: Container[str]
) -> tuple[dict[str, dict[int, writing.Result]], dict[str, Outcome]]:
    """The results by fold of each configuration that has a place, and the configurations with a fold that failed."""
    from mmsurv_train.fit import FitFailed
    from mmsurv_train.patterns import predict_patterns
    from mmsurv_train.predict import predict_many

    failed: dict[str, Outcome] = {}
    for member, one in zip(members, fitted, strict=True):
        if isinstance(one, FitFailed):
            failed.setdefault(member.configuration.name, _named(one.error, member))
    whole = [
        (member, one)
        for member, one in zip(members, fitted, strict=True)
        if not isinstance(one, FitFailed)
        and member.configuration.name not in failed
        and member.configuration.name in places
    ]
    folds: dict[str, dict[int, writing.Result]] = {}
    for alike in _alike(whole):
        models = [(one.model, one.preprocess, member.configuration.recipe) for member, one in alike]
        tables = predict_many(models, data.cohort, data.bags)
        patterns = predict_patterns(models, [member.split for member, _ in alike], data.cohort, data.bags)
        for (member, one), risks, lacking in zip(alike, tables, patterns, strict=True):
            scored = results.score(member.configuration.recipe, data, member.split, risks, lacking)
            result = writing.Result(split=member.split, fitted=one, scored=scored)
            folds.setdefault(member.configuration.name, {})[member.k] = result
    return folds, failed


def _alike(whole: Sequence[tuple[_Member, Fitted]]) -> list[list[tuple[_Member, Fitted]]]:
    """Members that can be asked in one read: of one model, with the same bags."""
    groups: dict[Any, list[tuple[_Member, Fitted]]] = {}
    for member, one in whole:
        recipe = member.configuration.recipe
        groups.setdefault((recipe.model.name, recipe.bags, recipe.inputs, recipe.may_lack), []).append((member, one))
    return list(groups.values())


def _named(error: MmsurvError, member: _Member) -> MmsurvError:
    """The error with the fold it is about, where there are several."""
    return error if member.alone else type(error)(f"{member.name}: {error}")


def _write(path: Path, origin: writing.Origin, folds: Mapping[int, writing.Result]) -> Outcome:
    try:
        writing.write_run(path, origin, folds)
        return runs.read_run(path)
    except MmsurvError as error:
        return error
