"""Which configurations a sweep trains: rows × grid, each a checked recipe with a name.

Owns the plan; nothing is read but the recipe. Every configuration must be measured on the same patients in the same
way, or the rows of one table could not be compared: so the split, the evaluation and the device are those of all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsurv.config import from_table
from mmsurv.errors import ConfigError
from mmsurv.split import fold_labels
from mmsurv_train import options
from mmsurv_train.options import OVERRIDES
from mmsurv_train.recipe import SplitSettings, TrainRecipe, overlay
from mmsurv_train.sweep.names import configuration_names
from mmsurv_train.sweep.recipe import AtPrediction, Published, SweepRecipe, SweepSettings, setting_keys

COMMON = ("split.", "evaluate.", "fit.device")
"""Settings, or tables of them, that no configuration may have for itself."""

Combination = tuple[str | None, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One configuration."""

    name: str
    recipe: TrainRecipe
    row: str | None = None
    """Which of the recipe's rows it is; None where it has none."""

    def setting(self, key: str) -> Any:
        """The value of a dotted setting."""
        table, name = key.split(".")
        return getattr(getattr(self.recipe, table), name)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All configurations of a sweep, in the recipe's order."""

    source: str
    configurations: tuple[Planned, ...]
    settings: SweepSettings
    published: Published | None
    varying: tuple[str, ...]
    """Dotted settings that the grid names or that are not the same everywhere."""

    @property
    def recipe(self) -> TrainRecipe:
        """The first configuration: its split, evaluation and device are everyone's."""
        return self.configurations[0].recipe

    @property
    def n_folds(self) -> int:
        """Folds that are trained; 1 for one split."""
        return count_folds(self.recipe.split)

    @property
    def n_networks(self) -> int:
        """Networks to train."""
        return self.n_folds * sum(planned.recipe.fit.n_seeds for planned in self.configurations)

    def varied(self, planned: Planned) -> dict[str, Any]:
        """The settings of a configuration that vary, as cells of a table; lists with blanks between."""
        values = {key: planned.setting(key) for key in self.varying}
        return {key: " ".join(map(str, value)) if isinstance(value, tuple) else value for key, value in values.items()}

    def evaluations(self, planned: Planned) -> tuple[AtPrediction, ...]:
        """With which bags a configuration's networks are evaluated: those asked for that differ, or its own."""
        own, asked = planned.recipe.bags.at_prediction, self.settings.at_prediction
        if not asked:
            return (own,)
        if planned.recipe.bags.size == 0 or not planned.recipe.needs_tiles:
            return (own,) if own in asked else asked[:1]
        return asked


def make_plan(recipe: SweepRecipe, overrides: Mapping[str, Any]) -> Plan:
    """Combine rows and grid, check every combination, and name it.

    Args:
        recipe: as read.
        overrides: values of the command's setting options, by name; None where not given.

    Raises:
        ConfigError: an option for a setting the recipe varies; a combination that cannot be (named); a setting of
            :data:`COMMON` that differs; two rows that say the same.
    """
    _refuse_overridden(recipe, overrides)
    combinations = list(_combinations(recipe))
    names = configuration_names(combinations, default=_stem(recipe.source))
    configurations = tuple(
        Planned(name=name, recipe=_resolve(recipe, combination, overrides, name), row=combination[0])
        for name, combination in zip(names, combinations, strict=True)
    )
    options.refuse_idle(overrides, [planned.recipe for planned in configurations])
    varying = _varying(recipe, configurations)
    _refuse_incomparable(recipe.source, varying)
    _refuse_twins(recipe.source, configurations)
    return Plan(
        source=recipe.source,
        configurations=configurations,
        settings=recipe.settings,
        published=recipe.published,
        varying=varying,
    )


def count_folds(split: SplitSettings) -> int:
    """Folds that a split setting trains; 1 for one split or one fold."""
    if split.fold is not None:
        return 1
    if split.folds_file is not None:
        return len(fold_labels(Path(split.folds_file)))
    return split.n_folds or 1


def _combinations(recipe: SweepRecipe) -> Iterator[Combination]:
    """Rows outermost, then the grid with its last key fastest."""
    rows: list[str | None] = list(recipe.rows) or [None]
    for row in rows:
        for values in itertools.product(*recipe.grid.values()):
            yield row, dict(zip(recipe.grid, values, strict=True))


def _resolve(recipe: SweepRecipe, combination: Combination, overrides: Mapping[str, Any], name: str) -> TrainRecipe:
    row, settings = combination
    table = dict(recipe.base) if row is None else overlay(recipe.base, recipe.rows[row])
    for key, value in settings.items():
        place, setting = key.split(".")
        table = overlay(table, {place: {setting: value}})
    resolved = from_table(TrainRecipe, table, source=f"{recipe.source}, configuration {name}")
    return options.overlay(resolved, overrides)


def _refuse_overridden(recipe: SweepRecipe, overrides: Mapping[str, Any]) -> None:
    """An option for what rows or grid set would make configurations alike that are called differently."""
    for option, value in overrides.items():
        table, key = OVERRIDES[option]
        if value is None:
            continue
        flag = f"--{option.replace('_', '-')}"
        if f"{table}.{key}" in recipe.grid:
            raise ConfigError(f"{flag}: the grid of {recipe.source} sets {table}.{key}. Leave the option out.")
        rows = [name for name, over in recipe.rows.items() if key in over.get(table, {})]
        if rows:
            raise ConfigError(
                f"{flag}: {recipe.source} sets {table}.{key} in its row {rows[0]}. Leave the option out, or write a "
                "recipe of your own."
            )


def _varying(recipe: SweepRecipe, configurations: tuple[Planned, ...]) -> tuple[str, ...]:
    differing = [key for key in setting_keys() if len({planned.setting(key) for planned in configurations}) > 1]
    return tuple(dict.fromkeys([*recipe.grid, *differing]))


def _refuse_incomparable(source: str, varying: tuple[str, ...]) -> None:
    for key in varying:
        if key.startswith(COMMON):
            raise ConfigError(
                f"{source}: {key} differs between configurations; the rows of one table must have the same patients "
                "and measures. Make it one value, or two sweeps."
            )


def _refuse_twins(source: str, configurations: tuple[Planned, ...]) -> None:
    seen: dict[TrainRecipe, str] = {}
    for planned in configurations:
        if planned.recipe in seen:
            raise ConfigError(f"{source}: {seen[planned.recipe]} and {planned.name} have the same settings. Keep one.")
        seen[planned.recipe] = planned.name


def _stem(source: str) -> str:
    return Path(source.removeprefix("recipe ")).name.removesuffix(".toml")
