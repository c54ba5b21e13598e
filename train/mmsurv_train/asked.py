"""Which run a recipe asks for: its splits, and whether a folder holds that run.

Owns what of a recipe is compared. A file of folds counts by what it holds and not by where it lies: a moved one asks
for the same run, a changed one for another. The device counts by what it comes to: ``auto`` is ``cpu`` where there is
no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsurv import provenance
from mmsurv.config import from_table, to_table
from mmsurv.errors import ConfigError, RunError, SplitError
from mmsurv_train import run as runs
from mmsurv_train.recipe import SplitSettings, TrainRecipe

if TYPE_CHECKING:
    import pandas as pd

    from mmsurv.split import Split
    from mmsurv_train.run import Run

SHOWN = 5
"""Cases named."""

AGAIN = "Move it away, or delete it to have it trained again."


def make_splits(settings: SplitSettings, cases: pd.DataFrame) -> dict[int, Split]:
    """The splits a recipe asks for, by fold; one split is fold 0.

    Raises:
        ConfigError: the one fold asked for does not exist.
        SplitError: folds that leak, or a part of a fold without an event; names both.
    """
    from mmsurv.split import make_folds, make_split, read_folds

    if settings.folds_file is not None:
        splits = read_folds(Path(settings.folds_file), cases, seed=settings.seed)
    elif settings.n_folds:
        splits = make_folds(cases, n_folds=settings.n_folds, seed=settings.seed)
    elif settings.fold is not None:
        raise ConfigError("a fold was asked for without folds: add --folds.")
    else:
        splits = [make_split(cases, seed=settings.seed, fractions=settings.fractions)]
    if settings.fold is None:
        return dict(enumerate(splits))
    if settings.fold >= len(splits):
        raise ConfigError(f"fold {settings.fold} does not exist: folds are 0 to {len(splits) - 1}.")
    return {settings.fold: splits[settings.fold]}


def comparable(recipe: TrainRecipe) -> dict[str, Any]:
    """The recipe as a table without what is compared by what it comes to: the device, and the path of a file of folds.

    What such a file holds is compared by :func:`split_digest`.
    """
    table = to_table(recipe)
    del table["fit"]["device"]
    if recipe.split.folds_file is not None:
        table["split"]["folds_file"] = "by its folds"
    return table


def split_digest(split: Split) -> str:
    """SHA-256 (hex) of every case's part."""
    return provenance.fingerprint(dict(split.parts.items()))


def run_as_asked(path: Path, recipe: TrainRecipe) -> Run:
    """The run in the folder ``path``, if it is whole and of the recipe.

    Args:
        path: a run folder of one split or of a cross-validation.
        recipe: what it must be of; its file of folds must make the run's folds of the run's cases, wherever it lies.

    Raises:
        RunError: not a complete run, or one of other settings or folds; names each, run → asked for.
        CohortError: the recipe's file of folds cannot be read.
        ConfigError: the recipe's device is not there.
    """
    from mmsurv_train.predict import device_text, find_device

    run = runs.read_run(path)
    there = from_table(TrainRecipe, run.config["recipe"], source=str(path / runs.CONFIG), where="recipe.")
    before, now = comparable(there), comparable(recipe)
    if there.fit.device != recipe.fit.device:
        before["device"], now["device"] = run.provenance["device"], device_text(find_device(recipe.fit.device))
    if before != now:
        differences = provenance.difference_table(before, now)
        raise RunError(f"{path} holds a run of another recipe than the one asked for:\n{differences}\n{AGAIN}")
    if recipe.split.folds_file is not None:
        _check_folds(run, recipe.split)
    return run


def _check_folds(run: Run, settings: SplitSettings) -> None:
    """Raises RunError: the file of folds makes other splits of the run's cases than the run has."""
    from mmsurv.split import read_split

    members = run.folds() or [run]
    cases = members[0].predictions.cases.set_index("case_id")[["event"]]
    other = f"{run.path} holds a run of other folds than {settings.folds_file} has:"
    try:
        wanted = make_splits(settings, cases)
    except (ConfigError, SplitError) as error:
        raise RunError(f"{other} {error} {AGAIN}") from error
    if len(wanted) != len(members):
        raise RunError(f"{other} {len(members)} → {len(wanted)}. {AGAIN}")
    for (k, split), member in zip(wanted.items(), members, strict=True):
        moved = _moved(read_split(member.path / runs.SPLIT), split)
        if moved:
            shown = ", ".join(moved[:SHOWN]) + (", …" if len(moved) > SHOWN else "")
            raise RunError(f"{other} {len(moved)} cases have another part in fold {k} ({shown}). {AGAIN}")


def _moved(before: Split, now: Split) -> list[str]:
    """Cases whose part is another."""
    then, today = dict(before.parts.items()), dict(now.parts.items())
    return sorted(str(case) for case in then.keys() | today.keys() if then.get(case) != today.get(case))
