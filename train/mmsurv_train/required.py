"""Which keys the files of a run must hold, so that a damaged one is an error that names file and key.

Owns what other modules read by key from config.toml, provenance.json, metrics.json and the tables; the recipe, the
cohort options and the scaling check themselves when they are built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsurv.errors import RunError


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_table, value))


def _are_numbers_or_none(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number_or_none, value))


def _are_columns(value: Any) -> bool:
    """Floors, or the model with less to go on, by name."""
    return isinstance(value, dict) and all(map(_is_column, value.values()))


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _are_texts(value.get("inputs"))
        and all(_is_count(value.get(name)) for name in ("n", "events"))
        and isinstance(value.get("c_index"), dict)
        and _is_number_or_none(value["c_index"].get("value", ""))
    )


EXPECTED: dict[Callable[[Any], bool], str] = {
    _is_table: "a table",
    _is_text: "text",
    _is_flag: "true or false",
    _is_number: "a number",
    _is_count: "0 or a positive whole number",
    _is_number_or_none: "a number or null",
    _is_positive: "a positive whole number",
    _are_texts: "a list of texts",
    _are_counts: "a list such as 0, 1, 2",
    _are_tables: "a list of tables",
    _are_numbers_or_none: "a list of numbers or nulls",
    _are_columns: "a table of measured models, each with inputs, n, events and c_index",
}
"""The kinds of values, in words."""

Keys = Mapping[str, Callable[[Any], bool]]
"""Dotted path of a key to what its value must be."""

CONFIG: Keys = {
    "recipe": _is_table,
    "cohort": _is_table,
    "cohort.clinical": _is_text,
    "data": _is_table,
    "data.complete_cases": _is_flag,
    "data.from_run": _is_table,
    "data.from_run.clinical": _is_text,
}
OPTIONAL_CONFIG: Keys = {
    "cohort.rna": _is_text,
    "data.store": _is_text,
    "data.from_run.rna": _is_text,
    "data.from_run.store": _is_text,
}
FOLDS: Keys = {"folds": _are_counts}
"""Of the config.toml of a cross-validation."""

PROVENANCE: Keys = {
    "made": _is_text,
    "command": _is_text,
    "versions": _is_table,
    "machine": _is_table,
    "device": _is_text,
    "threads": _is_positive,
    "digests": _is_table,
    "slides": _are_texts,
    "cases": _are_texts,
    "join": _is_table,
}
OPTIONAL_PROVENANCE: Keys = {
    "features": lambda value: value is None or isinstance(value, dict),
    "digests.records": _is_table,
    "store_recipe": lambda value: value is None or isinstance(value, dict),
    "selection.n_settings_tried": _is_count,
    "selection.inner_folds": _is_count,
    "selection.measure": _is_text,
    "selection.chosen": _is_table,
}

COLUMNS = {
    "predictions.csv": ("slide_id", "case_id", "part", "risk", "time", "event"),
    "case_predictions.csv": ("case_id", "part", "risk", "time", "event"),
    "survival.csv": ("case_id", "part"),
    "baseline.csv": ("time", "cumulative_hazard"),
    "history.csv": ("seed", "epoch", "loss", "validation_loss"),
}


RUN_METRICS: Keys = {"risk_cut": _is_number}
"""Of the metrics.json of one split."""


def metrics_keys(part: str) -> Keys:
    """What metrics.json must hold about the part that is reported."""
    keys: dict[str, Callable[[Any], bool]] = {"model": _is_text, "method": _is_table}
    keys["method.tau_months"] = _is_number
    keys["seeds.seeds"] = _are_counts
    keys |= dict.fromkeys(("floors", "patterns"), _are_columns)
    for level in ("wsi", "case"):
        at = f"parts.{part}.{level}"
        keys |= {f"{at}.n": _is_count, f"{at}.events": _is_count}
        for measure in ("c_index", "c_index_ipcw"):
            keys[f"{at}.{measure}.value"] = _is_number_or_none
        seeds = f"seeds.{level}"
        keys |= {f"{seeds}.{measure}": _is_number_or_none for measure in ("mean", "sd", "low", "high")}
        keys[f"{seeds}.values"] = _are_numbers_or_none
    keys |= _survival_keys(part)
    groups = f"parts.{part}.case.risk_groups"
    keys |= {f"{groups}.{name}": _is_count for name in ("n_high", "events_high", "n_low", "events_low")}
    return {**keys, f"{groups}.log_rank.p": _is_number_or_none}


def _survival_keys(part: str) -> Keys:
    """Of predicted survival and strata."""
    at = f"parts.{part}.case"
    keys: dict[str, Callable[[Any], bool]] = {"strata": _are_tables}
    for level in ("wsi", "case"):
        keys |= {
            f"parts.{part}.{level}.auc.at": _are_tables,
            f"parts.{part}.{level}.auc.mean.value": _is_number_or_none,
        }
    keys |= {f"{at}.{name}": _are_tables for name in ("brier", "calibration")}
    keys |= {f"{at}.integrated_brier.{name}": _is_number_or_none for name in ("value", "kaplan_meier")}
    return {**keys, f"{at}.d_calibration.p": _is_number_or_none}


def check_keys(table: Mapping[str, Any], keys: Keys, *, source: Path, optional: bool = False) -> None:
    """Check that the keys are there (unless ``optional``) and hold what they should.

    Raises:
        RunError: names the file, the key and what is wrong.
    """
    for path, fits in keys.items():
        value: Any = table
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                value = _MISSING
                break
            value = value[name]
        if value is _MISSING and optional:
            continue
        if value is _MISSING:
            raise RunError(f"{source}: the key {path} is missing. The file was changed or cut: train the run again.")
        if not fits(value):
            expected = EXPECTED.get(fits, "a table")
            raise RunError(
                f"{source}: {path} must be {expected}, not {value!r}. The file was changed: train the run again."
            )


def check_columns(columns: Iterable[str], *, source: Path) -> None:
    """Raises RunError: a table of a run lacks a column; names both."""
    missing = [name for name in COLUMNS[source.name] if name not in set(columns)]
    if missing:
        raise RunError(
            f"{source}: the column {', '.join(missing)} is missing. The file was changed: train the run again."
        )


_MISSING = object()
