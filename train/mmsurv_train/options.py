"""The command-line options that say what is trained, shared by every command that trains.

Owns their spelling and help, and how they lie over a recipe. Imports click and the settings only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mmsurv.config import load_recipe, recipe_names
from mmsurv_train.modalities import MODALITIES, MODELS
from mmsurv_train.recipe import LOSSES, RECIPES, TrainRecipe

Command = TypeVar("Command", bound=Callable[..., Any])

GIGABYTE = 10**9

OVERRIDES: dict[str, tuple[str, str]] = {
    "model": ("model", "name"),
    "inputs": ("model", "inputs"),
    "gene_sets": ("model", "gene_sets"),
    "modality_dropout": ("model", "modality_dropout"),
    "loss": ("fit", "loss"),
    "clinical_variable": ("clinical", "columns"),
    "epochs": ("fit", "epochs"),
    "batch_size": ("fit", "batch_size"),
    "learning_rate": ("fit", "learning_rate"),
    "seed": ("fit", "seed"),
    "seeds": ("fit", "n_seeds"),
    "data_seed": ("fit", "data_seed"),
    "device": ("fit", "device"),
    "bag_size": ("bags", "size"),
    "split_seed": ("split", "seed"),
    "folds": ("split", "n_folds"),
    "folds_file": ("split", "folds_file"),
    "fold": ("split", "fold"),
    "bootstrap": ("evaluate", "n_bootstrap"),
    "stratum": ("evaluate", "stratum"),
}
"""Which setting of the recipe an option replaces."""


class _Folds(click.ParamType):
    """A number of folds, int, or a file of them, str."""

    name = "folds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"[+-]?\d+", value):
            return int(click.IntRange(2).convert(value, param, ctx))
        if not Path(value).is_file():
            self.fail(f"{value!r} is neither a number of folds nor a file of them.", param, ctx)
        return str(value)


def train_recipe_names() -> list[str]:
    """The shipped recipes that ``mmsurv train`` takes: those without a grid, which is for ``mmsurv sweep``."""
    return [name for name in recipe_names(RECIPES) if not load_recipe(name, RECIPES)[0].get("grid")]


def recipe_of(name: str | None, model: str | None) -> str:
    """The recipe that was named; otherwise the shipped one of the model that was, or ``default``."""
    return name or (model if model in recipe_names(RECIPES) else None) or "default"


def setting_options(command: Command) -> Command:
    """Add the options of :data:`OVERRIDES`; the command receives each by its name, None where it was not given."""
    options = [
        click.option("--model", type=click.Choice(MODELS), help="The network, instead of the recipe's."),
        click.option("--input", "inputs", multiple=True, type=click.Choice(MODALITIES), callback=_some,
                     help="What the model looks at; may be given several times. [default: the model's own]"),
        click.option("--clinical-variable", multiple=True, metavar="COLUMN", callback=_some,
                     help="A column of the clinical table for the model to look at; may be given several times."),
        click.option("--modality-dropout", type=click.FloatRange(0, 1, max_open=True), metavar="RATE",
                     help="Above 0, patients may lack modalities; in training each is hidden at this rate."),
        click.option("--gene-sets", type=click.Path(exists=True, dir_okay=False), help="GMT file, for co-attention."),
        click.option("--loss", type=click.Choice(LOSSES), help="What is minimised."),
        click.option("--epochs", type=click.IntRange(1), help="Most epochs."),
        click.option("--batch-size", type=click.IntRange(0), help="Patients per step; 0 = all."),
        click.option("--bag-size", type=click.IntRange(0), help="Tiles per bag while training; 0 = all."),
        click.option("--learning-rate", type=float),
        click.option("--seed", type=click.IntRange(0), help="Of initialisation and dropout."),
        click.option("--seeds", type=click.IntRange(1), metavar="N",
                     help="An ensemble of N networks, from seed --seed on, trained in one pass."),
        click.option("--data-seed", type=click.IntRange(0), help="Of batches, bags and slides drawn."),
        click.option("--split-seed", type=click.IntRange(0), help="Of the split or folds."),
        click.option("--device", help="cpu, cuda, cuda:N or auto."),
        click.option("--folds", type=_Folds(), metavar="N|FILE",
                     help="Cross-validate over N folds, or over those of a CSV file (case_id, fold)."),
        click.option("--fold", type=click.IntRange(0), metavar="K", help="Train only fold K."),
        click.option("--bootstrap", type=click.IntRange(0), metavar="N",
                     help="Resamples of patients for the intervals; 0 = none."),
        click.option("--stratum", metavar="COLUMN",
                     help="A column of the clinical table: case-level results also for each of its values. "
                          "GBM and LGG are shown apart without it."),
    ]  # fmt: skip
    result: Any = command
    for option in reversed(options):
        result = option(result)
    return result


def memory_option(command: Command) -> Command:
    """Add ``--memory``; the command receives ``memory`` in bytes, None where it was not given."""
    option = click.option(
        "--memory", type=click.FloatRange(0, min_open=True), metavar="GB", callback=_bytes,
        help="Most memory for tile features, in gigabytes; a larger store is read anew in every epoch. "
             "It changes no number. [default: half of what is free]",
    )  # fmt: skip
    return option(command)


def overlay(settings: TrainRecipe, options: Mapping[str, Any]) -> TrainRecipe:
    """The recipe with the options given (not None) over it.

    Raises:
        UsageError: a fold without folds.
        ConfigError: a value that cannot be; names the option.
    """
    from mmsurv.config import replace

    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("folds"), str):
        given["folds_file"] = given.pop("folds")
    split = settings.split
    if "folds" in given:
        split = dataclasses.replace(split, folds_file=None)
    if "folds_file" in given:
        split = dataclasses.replace(split, n_folds=0)
    if "model" in given and "inputs" not in given and settings.model.inputs:
        settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, inputs=()))
    if "fold" in given and not {"folds", "folds_file"} & set(given) and not split.n_folds and not split.folds_file:
        raise click.UsageError("--fold needs --folds: which folds?")
    # The options of one table at once: only all together need they fit each other, in whatever order they are given.
    tables: dict[str, Any] = {"split": split}
    for table in dict.fromkeys(OVERRIDES[name][0] for name in given):
        names = [name for name in OVERRIDES if name in given and OVERRIDES[name][0] == table]
        changes = {OVERRIDES[name][1]: given[name] for name in names}
        tables[table] = replace(tables.get(table, getattr(settings, table)), _flags(names), **changes)
    return replace(settings, "the options", **tables)


def refuse_idle(options: Mapping[str, Any], recipes: Iterable[TrainRecipe]) -> None:
    """Raises UsageError: gene sets were given, and no model that is trained takes any."""
    models = dict.fromkeys(recipe.model.name for recipe in recipes)
    if options.get("gene_sets") is not None and "co-attention" not in models:
        raise click.UsageError(
            f"--gene-sets: the model {', '.join(models)} takes no gene sets. Leave it out, or say --model co-attention."
        )


def _flags(names: Sequence[str]) -> str:
    """Options as they are typed."""
    return ", ".join("--input" if name == "inputs" else f"--{name.replace('_', '-')}" for name in names)


def _some(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """What was given; None where nothing was."""
    return values or None


def _bytes(_context: click.Context, _option: click.Parameter, gigabytes: float | None) -> int | None:
    return None if gigabytes is None else max(1, int(gigabytes * GIGABYTE))
