"""Risks of several things by case, beside the model's: its floors, or the model itself with less to go on.

Owns how they are measured, on the patients and draws that the model is measured on, and how a cross-validation's are
pooled: standardised by the risks of each fold's training part, as the model's are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mmsurv_train.level import measure_level
from mmsurv_train.metrics import Reference
from mmsurv_train.modalities import Modality
from mmsurv_train.recipe import EvaluateSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class RiskColumns:
    """A column of risks for each thing."""

    predictions: pd.DataFrame
    """case_id, part, and the risks of each, sorted by case_id; higher means an earlier death; blank where there is
    none."""
    inputs: dict[str, tuple[Modality, ...]]
    """What each looks at, by its name."""
    table: dict[str, Any] = field(default_factory=dict)
    """JSON-able: how it was fitted."""


def measure_columns(
    columns: RiskColumns, cases: pd.DataFrame, part: str, compared: Reference, settings: EvaluateSettings
) -> dict[str, Any]:
    """Case-level measures of each column.

    Args:
        columns: of one split, or pooled.
        cases: case_id, time and event of the reported cases of the model.
        part: the reported part.
        compared: the model's censoring reference.
        settings: of the measures.
    """
    rows = columns.predictions[columns.predictions["part"] == part]
    found = {}
    for name, inputs in columns.inputs.items():
        risk = rows.set_index("case_id")[name].dropna()
        those = cases[cases["case_id"].isin(risk.index)]
        those = those.assign(risk=those["case_id"].map(risk).astype(float))
        found[name] = {"inputs": list(inputs), **measure_level(those, compared, settings)}
    return found


def pool_columns(folds: Mapping[int, RiskColumns], part: str) -> RiskColumns:
    """The test parts of all folds on one scale: by mean and standard deviation of the fold's training risks."""
    tables = []
    for columns in folds.values():
        rows = columns.predictions
        tested = rows[rows["part"] == "test"].assign(part=part)
        training = rows[rows["part"] == "train"]
        for name in columns.inputs:
            spread = float(training[name].std(ddof=0))
            tested[name] = (tested[name] - training[name].mean()) / (spread if spread > 0 else 1.0)
        tables.append(tested)
    first = next(iter(folds.values()))
    pooled = pd.concat(tables, ignore_index=True).sort_values("case_id", ignore_index=True, kind="stable")
    return RiskColumns(predictions=pooled, inputs=first.inputs)


def fold_means(blocks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation of each column's C-index over folds, from their blocks."""
    means = {}
    for name in blocks[0]:
        values = [block[name]["c_index"]["value"] for block in blocks]
        known = [value for value in values if value is not None]
        means[name] = {
            "mean": float(np.mean(known)) if known else None,
            "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "n_folds": len(known),
            "n_undefined": len(values) - len(known),
        }
    return means
