"""Training from recipes and sources to run folders: of one recipe, or of many configurations.

Owns which configurations are there already, which can share a pass over the features (all that need the same
patients, the same features and the same device), and where a stopped pass goes on; a pass itself is ``together``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsurv import provenance
from mmsurv.errors import MmsurvError
from mmsurv_train import place
from mmsurv_train import run as runs
from mmsurv_train.asked import run_as_asked
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.together import Configuration, OnEnd, OnEpoch, OnSlide, OnStart, Watching, train_together

if TYPE_CHECKING:
    from mmsurv_train.run import Run

__all__ = ["Configuration", "train", "train_all"]


def train(
    recipe: TrainRecipe,
    sources: Sources,
    out: Path,
    *,
    command: str,
    on_slide: OnSlide = lambda _n_slides: None,
    on_start: OnStart = lambda _inputs, _jobs: None,
    on_epoch: OnEpoch = lambda _job, _row: None,
    on_end: OnEnd = lambda: None,
) -> Run:
    """Train the recipe's model, all folds and seeds in one pass, and write the run folder ``out``.

    Its state is kept in a hidden folder beside ``out`` until the run is there: the same call after a kill goes on.

    Args:
        recipe: settings; with folds, every fold gets a run folder of its own within ``out``.
        sources: tables and store.
        out: where the run goes; must be free.
        command: how the user asked for it, for the record.
        on_slide, on_start, on_epoch, on_end: for progress.

    Raises:
        RunError: ``out`` is taken or cannot be written, or a training that was stopped there was asked for otherwise.
        ConfigError, CohortError, SplitError, StoreError: the request or the data cannot be right.
    """
    from mmsurv_train.unfinished import Unfinished

    place.check_free(out)
    this = Configuration(name=out.name, recipe=recipe)
    watching = Watching(on_slide, on_start, on_epoch, on_end)
    unfinished = Unfinished(place.checkpoint_beside(out))
    found = train_together([this], sources, {this.name: out}, unfinished, command=command, watching=watching)
    result = found[this.name]
    if isinstance(result, MmsurvError):
        raise result
    return result


def train_all(
    configurations: Sequence[Configuration],
    sources: Sources,
    places: Mapping[str, Path],
    *,
    checkpoint_folder: Path,
    command: str,
    on_slide: OnSlide = lambda _n_slides: None,
    on_start: OnStart = lambda _inputs, _jobs: None,
    on_epoch: OnEpoch = lambda _job, _row: None,
    on_end: OnEnd = lambda: None,
) -> dict[str, Run | MmsurvError]:
    """Train all configurations that are not yet runs at their place, in as few passes as possible.

    Args:
        configurations: names must differ.
        sources: tables and store of all.
        places: where the run of each configuration goes, by name.
        checkpoint_folder: where the state of unfinished passes is kept; gone when all is done.
        command: how the user asked for it, for the record.
        on_slide, on_start, on_epoch, on_end: for progress; on_start and on_end are called once for each pass.

    Returns:
        By name, in the order given: the run, or why there is none. What fails does not stop the others.

    Raises:
        RunError: a stopped pass in ``checkpoint_folder`` was asked for otherwise.
        CohortError, StoreError, ConfigError: data that no configuration could be trained on.
    """
    from mmsurv_train.unfinished import Unfinished

    watching = Watching(on_slide, on_start, on_epoch, on_end)
    found: dict[str, Run | MmsurvError] = {}
    for configuration in configurations:
        there = _there(configuration, places[configuration.name])
        if there is not None:
            found[configuration.name] = there
    for key, members in _passes(configurations, sources).items():
        unfinished = Unfinished(checkpoint_folder / key)
        stopped = unfinished.request()
        begun = set() if stopped is None else set(stopped["order"])
        chosen = [one for one in members if one.name in begun or one.name not in found]
        missing = {one.name: places[one.name] for one in chosen if one.name not in found}
        if missing:
            trained = train_together(chosen, sources, missing, unfinished, command=command, watching=watching)
            found.update({name: trained[name] for name in missing})
        else:
            unfinished.delete()
    if checkpoint_folder.is_dir() and not any(checkpoint_folder.iterdir()):
        checkpoint_folder.rmdir()
    return {one.name: found[one.name] for one in configurations}


def _there(configuration: Configuration, path: Path) -> Run | MmsurvError | None:
    """The configuration's run, if it is at its place; an error if something else is."""
    try:
        if not (path / runs.METRICS).is_file():
            place.check_free(path)
            return None
        return run_as_asked(path, configuration.recipe)
    except MmsurvError as error:
        return error


def _passes(configurations: Iterable[Configuration], sources: Sources) -> dict[str, list[Configuration]]:
    """Configurations by the pass they can share: the same patients, the same features, the same device."""
    passes: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        recipe = configuration.recipe
        needs = {
            "tiles": recipe.needs_tiles,
            "rna": recipe.needs_rna or sources.complete_cases,
            "slides": recipe.needs_tiles or sources.complete_cases,
            # Columns are read for all of a pass, so they must be everyone's.
            f"clinical{provenance.fingerprint(list(recipe.clinical.columns))[:8]}": "clinical" in recipe.inputs,
            "any": recipe.may_lack,
        }
        device = recipe.fit.device.replace(":", "")
        key = "-".join([*(name for name, needed in needs.items() if needed), device])
        passes.setdefault(key, []).append(configuration)
    return passes
