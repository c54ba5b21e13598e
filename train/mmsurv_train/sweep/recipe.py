"""What a recipe says about a sweep: its grid, its rows, and the form of its table.

Owns the reading of ``[grid]``, ``[sweep]`` and ``[published]`` beside the settings of ``mmsurv_train.recipe``; no
combination is made here.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mmsurv.config import from_table, load_recipe
from mmsurv.errors import ConfigError
from mmsurv_train.recipe import RECIPES, SWEEP_TABLES, TrainRecipe, take_rows

Measure = Literal["networks", "ensemble", "folds", "counts"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
AtPrediction = Literal["all", "size"]

ALIASES = {"lr": "learning_rate", "batch": "batch_size", "l2": "weight_decay", "seeds": "n_seeds", "folds": "n_folds"}
"""What settings are called elsewhere, for the suggestion of an error."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """[sweep]: what the table shows, and with which bags the trained networks are evaluated."""

    at_prediction: tuple[AtPrediction, ...] = ()
    """Evaluate every trained network once with each, a row of the table each; empty: as its recipe's
    ``bags.at_prediction`` says. The network is trained, and its epoch chosen, once, by its own recipe."""
    columns: dict[str, str] = field(default_factory=dict)
    """Heading of the table for people → setting it shows (``fit.batch_size``); empty: the settings that vary."""
    measures: tuple[Measure, ...] = MEASURES
    """What the table for people shows after the settings; ``table.csv`` has them all."""

    def __post_init__(self) -> None:
        for name in ("at_prediction", "measures"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"sweep.{name} names a value twice: {', '.join(values)}")
        if not self.measures:
            raise ValueError(f"sweep.measures must name at least one of {', '.join(MEASURES)}")


@dataclass(frozen=True, kw_only=True)
class Published:
    """[published]: figures that others published; written to a file of their own, beside no number of ours."""

    title: str
    source: str
    """Whose numbers they are."""
    made_with: str
    """Data, encoder, whatever a reader must know to not compare them with ours."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells as they were printed, so texts."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"published.rows: {len(self.columns)} cells expected, as in columns, not {list(row)}")


@dataclass(frozen=True, kw_only=True)
class SweepRecipe:
    """A recipe as read."""

    source: str
    """Recipe or file, for messages."""
    base: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    """Name → what it lays over the base."""
    grid: Mapping[str, list[Any]]
    """Dotted setting → its values."""
    settings: SweepSettings
    published: Published | None


def load_sweep_recipe(name_or_path: str) -> SweepRecipe:
    """Read a recipe with its rows, its grid and the form of its table; any training recipe is one.

    Raises:
        ConfigError: no such recipe, an unknown key (the nearest valid one is named), or a grid that is none.
    """
    table, source = load_recipe(name_or_path, RECIPES)
    grid, settings, published = (table.pop(name, None) for name in SWEEP_TABLES)
    rows = take_rows(table, source)
    _check_columns(settings, source)
    if not isinstance(grid, Mapping | None) or not isinstance(published, Mapping | None):
        raise ConfigError(f"{source}: [grid] and [published] must be tables.")
    return SweepRecipe(
        source=source,
        base=table,
        rows=rows,
        grid=_read_grid(grid or {}, source),
        settings=from_table(SweepSettings, _table(settings, source), source=source, where="sweep."),
        published=None if published is None else from_table(Published, published, source=source, where="published."),
    )


def setting_keys() -> list[str]:
    """All settings of a training recipe, dotted, in the order of their definition."""
    hints = typing.get_type_hints(TrainRecipe)
    return [
        f"{table.name}.{field.name}"
        for table in dataclasses.fields(TrainRecipe)
        for field in dataclasses.fields(hints[table.name])
    ]


def check_setting(key: str, *, where: str) -> None:
    """Raises ConfigError: ``key`` is no setting; the nearest one is named."""
    valid = setting_keys()
    if key in valid:
        return
    last = key.split(".")[-1]
    by_last = [name for name in valid if name.split(".")[-1] == ALIASES.get(last, last)]
    close = by_last or difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}?" if close else f"Settings: {', '.join(valid)}."
    raise ConfigError(f"{where}: unknown key {key!r}. {hint}")


def _check_columns(settings: Any, source: str) -> None:
    columns = settings.get("columns") if isinstance(settings, Mapping) else None
    for heading, key in columns.items() if isinstance(columns, Mapping) else ():
        check_setting(str(key), where=f"{source}, sweep.columns, heading {heading!r}")


def _table(value: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping | None):
        raise ConfigError(f"{source}: [sweep] must be a table.")
    return value or {}


def _read_grid(grid: Mapping[str, Any], source: str) -> dict[str, list[Any]]:
    """The grid by dotted key, whether it was written ``"fit.seed" = […]`` or as tables, ``[grid.fit]``."""
    found: dict[str, list[Any]] = {}
    for key, values in _flatten(grid):
        check_setting(key, where=f"{source}, grid")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{source}: grid.{key} must be a list of values to try, not {values!r}.")
        for i, value in enumerate(values):
            if value in values[:i]:
                raise ConfigError(f"{source}: grid.{key} names {value!r} twice.")
        if key in found:
            raise ConfigError(f"{source}: grid names {key} twice.")
        found[key] = values
    return found


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
