"""Clinical variables as numbers: coding, scales and imputation, fitted on the training part and stored with the run.

Owns what becomes of a column. Numbers become z-scores, text one column of 0 and 1 for each level. Levels that few
training patients have are one level, "other"; a level first met at prediction counts as it too, or as none.

Shape suffixes: B patients, C columns of the coded matrix.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmsurv.errors import CohortError, RunError

logger = logging.getLogger("mmsurv")

OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Number:
    """A column of numbers."""

    column: str
    median: float
    """Takes the place of missing values."""
    mean: float
    sd: float
    may_miss: bool
    """Whether values were missing in the training part: then a column of 0 and 1 says where they are."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.column, f"{self.column}=missing") if self.may_miss else (self.column,)

    def numbers(self, values: pd.Series) -> np.ndarray:
        """The values, NaN where one is missing. Raises CohortError: one is text; names the case."""
        found = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
        strangers = np.isnan(found) & values.notna().to_numpy()
        if strangers.any():
            raise CohortError(
                f"column {self.column!r} held numbers in the training part, now {values[strangers].iloc[0]!r} (case "
                f"{values.index[strangers][0]!r}). Code it as there."
            )
        return found

    def code(self, values: pd.Series) -> list[np.ndarray]:
        """The coded columns of some patients."""
        found = self.numbers(values)
        missing = np.isnan(found)
        scaled = (np.where(missing, self.median, found) - self.mean) / self.sd
        return [scaled, missing.astype(np.float64)] if self.may_miss else [scaled]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """A column of text."""

    column: str
    levels: tuple[str, ...]
    """Each has a column of 0 and 1."""
    pooled: tuple[str, ...]
    """Rare levels of the training part: together the level "other"."""
    may_miss: bool

    @property
    def names(self) -> tuple[str, ...]:
        more = [OTHER] * bool(self.pooled) + ["missing"] * self.may_miss
        return tuple(f"{self.column}={level}" for level in (*self.levels, *more))

    def code(self, values: pd.Series) -> list[np.ndarray]:
        """The coded columns of some patients."""
        text = [None if pd.isna(value) else level_text(value) for value in values]
        known = {*self.levels, *self.pooled, None}
        strangers = sorted({level for level in text if level not in known and level is not None})
        if strangers:
            n = sum(level in strangers for level in text)
            treated = f"as {OTHER!r}" if self.pooled else "as none of the known ones"
            logger.warning(
                "Column %r: %d patients have levels that no training patient had (%s); they count %s.",
                self.column, n, ", ".join(strangers[:5]), treated,
            )  # fmt: skip
        columns = [np.array([value == level for value in text], np.float64) for level in self.levels]
        if self.pooled:
            columns.append(np.array([value is not None and value not in self.levels for value in text], np.float64))
        return [*columns, np.array([value is None for value in text], np.float64)] if self.may_miss else columns


@dataclass(frozen=True, kw_only=True)
class ClinicalCoding:
    """What was learnt from the training part about clinical variables."""

    variables: tuple[Number | Levels, ...]
    dropped: tuple[str, ...]
    """Columns that have one value, none, or only rare levels in the training part."""

    @classmethod
    def fit(cls, table: pd.DataFrame, *, rare: int = 5) -> ClinicalCoding:
        """Learn the coding.

        Args:
            table: the training patients only, index case_id, one column for each variable; NaN or None is missing.
            rare: levels of fewer patients are pooled.

        Raises:
            CohortError: no variable varies in the training part.
        """
        found = {str(name): _fit_column(table[name], rare) for name in table.columns}
        dropped = tuple(name for name, variable in found.items() if variable is None)
        kept = tuple(variable for variable in found.values() if variable is not None)
        if not kept:
            raise CohortError(
                f"None of the clinical variables {', '.join(map(repr, dropped))} varies among the {len(table)} "
                f"training patients (levels of fewer than {rare} are one). Name others with --clinical-variable."
            )
        if dropped:
            logger.warning(
                "Clinical variables that do not vary in the training part are dropped: %s", ", ".join(dropped)
            )
        return cls(variables=kept, dropped=dropped)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the coded columns, such as "age" and "oncotree_code=GBM"."""
        return tuple(name for variable in self.variables for name in variable.names)

    def check(self, table: pd.DataFrame, *, source: str) -> None:
        """Raises CohortError: text stands where numbers stood in the training part; names ``source`` and the case."""
        for variable in self.variables:
            if isinstance(variable, Number) and variable.column in table:
                try:
                    variable.numbers(table[variable.column])
                except CohortError as error:
                    raise CohortError(f"{source}: {error}") from error

    def matrix(self, table: pd.DataFrame) -> np.ndarray:
        """The coded variables of some patients, (B, C) float32.

        Args:
            table: index case_id, the variables among its columns, in any order.

        Raises:
            CohortError: a column is not there, or text stands where numbers stood.
        """
        lacking = [variable.column for variable in self.variables if variable.column not in table.columns]
        if lacking:
            raise CohortError(
                f"The clinical table has no column {', '.join(map(repr, lacking))}, which the model was trained with. "
                "Give a table with the columns of the training run, named as there."
            )
        columns = [column for variable in self.variables for column in variable.code(table[variable.column])]
        return np.stack(columns, axis=1).astype(np.float32, order="C")

    def to_table(self) -> dict[str, Any]:
        """JSON-able; ``from_table`` gives back the same numbers to the last bit."""
        kinds = [{"kind": type(one).__name__.lower(), **asdict(one)} for one in self.variables]
        lists = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in one.items()} for one in kinds
        ]
        return {"variables": lists, "dropped": list(self.dropped)}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> ClinicalCoding:
        """Raises RunError if the table is not one that ``to_table`` made."""
        makers: dict[str, type[Number] | type[Levels]] = {"number": Number, "levels": Levels}
        try:
            variables = []
            for one in table["variables"]:
                values: dict[str, Any] = {
                    key: tuple(value) if isinstance(value, list) else value for key, value in one.items()
                }
                variables.append(makers[values.pop("kind")](**values))
            return cls(variables=tuple(variables), dropped=tuple(table["dropped"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"preprocess.json: its clinical variables are not as this version writes them ({error}). Train again."
            ) from error


def level_text(value: Any) -> str:
    """A level as it is named; whole numbers without a decimal point."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fit_column(values: pd.Series, rare: int) -> Number | Levels | None:
    """The coding of one column; None where it does not vary."""
    column, missing = str(values.name), bool(values.isna().any())
    known = values.dropna()
    if known.nunique() + missing < 2:
        return None
    if pd.api.types.is_numeric_dtype(values):
        numbers = known.to_numpy(np.float64)
        median = float(np.median(numbers))
        filled = values.fillna(median).to_numpy(np.float64)
        sd = float(filled.std())
        return Number(
            column=column, median=median, mean=float(filled.mean()), sd=sd if sd > 0 else 1.0, may_miss=missing
        )
    counts = known.map(level_text).value_counts()
    levels = tuple(sorted(str(level) for level, n in counts.items() if n >= rare))
    pooled = tuple(sorted(str(level) for level, n in counts.items() if n < rare))
    if not levels and not missing:  # all are "other"
        return None
    return Levels(column=column, levels=levels, pooled=pooled, may_miss=missing)
