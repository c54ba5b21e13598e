"""The networks of an ensemble one by one: their risks beside the ensemble's, and how far training by chance moves them.

Owns the names of their columns and the ``seeds`` block of metrics.json: Harrell's C-index of each network alone, their
mean and sample standard deviation, and the interval of the mean. For the interval every network meets the same draws
of patients, so it holds the chance of the sample; the standard deviation holds that of the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmsurv_train import metrics
from mmsurv_train.recipe import EvaluateSettings

if TYPE_CHECKING:
    from mmsurv_train.scores import Predictions

ENSEMBLE = "risk"


def network_columns(table: pd.DataFrame) -> list[str]:
    """The columns risk_0, risk_1, … of a table of risks, in the order of the networks; none for one network."""
    numbers = [name.removeprefix("risk_") for name in table.columns if name.startswith("risk_")]
    return [f"risk_{number}" for number in sorted(int(number) for number in numbers if number.isdecimal())]


def measure_seeds(predictions: Predictions, seeds: Sequence[int], settings: EvaluateSettings) -> dict[str, Any]:
    """The ``seeds`` block of metrics.json.

    Args:
        predictions: of the part that is reported.
        seeds: of each network, in the order of their columns; of one network, ``risk`` itself is its risk.
        settings: of the intervals.
    """
    return {
        "seeds": list(seeds),
        "wsi": _measure_level(predictions.slides, seeds, settings),
        "case": _measure_level(predictions.cases, seeds, settings),
    }


def _measure_level(rows: pd.DataFrame, seeds: Sequence[int], settings: EvaluateSettings) -> dict[str, Any]:
    columns = network_columns(rows) or [ENSEMBLE]
    if len(columns) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds, and risks of {len(columns)} networks: {', '.join(columns)}")
    time, event = rows["time"].to_numpy(float), rows["event"].to_numpy(bool)
    found = [metrics.c_index(rows[column], time, event) for column in columns]
    values = [estimate.value for estimate in found if estimate.value is not None]
    if len(values) < len(found):  # whether pairs are comparable is a matter of outcomes: all lack it, or none
        missing = {"values": [None] * len(found), "mean": None, "sd": None, "low": None, "high": None}
        return {**missing, "reason": found[0].reason}
    mean = metrics.Estimate(float(np.mean(values)))
    if settings.n_bootstrap:
        mean = metrics.with_interval(mean, _draws_of_mean(rows, columns, settings), confidence=settings.confidence)
    table = mean.to_table()
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"values": values, "mean": table.pop("value"), "sd": spread, **table}


def _draws_of_mean(rows: pd.DataFrame, columns: Sequence[str], settings: EvaluateSettings) -> np.ndarray:
    """The mean of the networks' C-indices in every resample of patients, shape (R,)."""
    draws = [
        metrics.bootstrap_c_index(
            rows[column],
            rows["time"],
            rows["event"],
            rows["case_id"],
            n_resamples=settings.n_bootstrap,
            seed=settings.seed,
        )
        for column in columns
    ]
    return np.mean(draws, axis=0)
