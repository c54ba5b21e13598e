"""What is measured on which patients: from risks to the predictions tables and metrics.json.

Owns the choice of rows, references and cuts, and the layout of metrics.json; the statistics are in ``metrics``.
Everything that a number of one split depends on besides the risks (censoring reference, τ, cut of the risk groups)
comes from the training part. The pooled numbers of a cross-validation have no one training part: ``crossval`` says
what they take instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmsurv_train import metrics, seeds
from mmsurv_train.recipe import EvaluateSettings

if TYPE_CHECKING:
    from mmsurv_train.fit import RiskTables

PARTS = ("train", "validation", "test")
LEVELS = ("wsi", "case")
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Risks beside the outcomes, sorted by id; higher risk means an earlier death."""

    slides: pd.DataFrame
    """slide_id, case_id, part, risk, time (months), event; of an ensemble also risk_0, risk_1, … of its networks."""
    cases: pd.DataFrame
    """case_id, part, risk, time, event; of an ensemble also risk_0, risk_1, …"""

    def level(self, level: str) -> pd.DataFrame:
        return self.slides if level == "wsi" else self.cases

    def part(self, part: str) -> Predictions:
        return Predictions(
            slides=self.slides[self.slides["part"] == part], cases=self.cases[self.cases["part"] == part]
        )


def with_outcomes(risks: RiskTables, outcomes: pd.DataFrame, parts: pd.Series) -> Predictions:
    """Put part, time and event beside the risks.

    Args:
        risks: slides (slide_id, case_id, risk) and cases (case_id, risk), of an ensemble also risk_0, risk_1, …
        outcomes: index case_id, columns time and event.
        parts: index case_id, values train, validation or test; cases outside it are left out.
    """
    slides, cases = (
        table[table["case_id"].isin(parts.index)].assign(
            part=lambda rows: rows["case_id"].map(parts),
            time=lambda rows: rows["case_id"].map(outcomes["time"]).astype(float),
            event=lambda rows: rows["case_id"].map(outcomes["event"]).astype(bool),
        )
        for table in (risks.slides, risks.cases)
    )
    columns = ["case_id", "part", "risk", "time", "event", *seeds.network_columns(risks.cases)]
    return Predictions(
        slides=slides.sort_values("slide_id", ignore_index=True)[["slide_id", *columns]],
        cases=cases.sort_values("case_id", ignore_index=True)[columns],
    )


def reference(cases: pd.DataFrame, settings: EvaluateSettings, *, name: str = "training part") -> metrics.Reference:
    """The censoring reference and τ of these cases (columns time and event)."""
    time, event = cases["time"].to_numpy(float), cases["event"].to_numpy(bool)
    tau = settings.tau_months or metrics.quantile_tau(time, settings.tau_quantile)
    return metrics.Reference(name=name, time=time, event=event, tau=tau)


def training_cut(predictions: Predictions) -> float:
    """Where the risk groups are cut: the median case-level risk of the training part."""
    return float(predictions.part("train").cases["risk"].median())


def measure(
    predictions: Predictions, settings: EvaluateSettings, *, model: str, network_seeds: Sequence[int]
) -> dict[str, Any]:
    """metrics.json of one run: every part, at WSI and at case level, and each network alone on the test part."""
    compared = reference(predictions.part("train").cases, settings)
    cut = training_cut(predictions)
    parts = {}
    for part in PARTS:
        chosen = predictions.part(part)
        high = metrics.high_risk(chosen.cases["risk"], cut)
        parts[part] = measure_part(chosen, high, compared, settings)
    return {
        "format": FORMAT,
        "kind": "run",
        "model": model,
        "method": method(compared, settings, cut="median case-level risk of the training part"),
        "risk_cut": cut,
        "parts": parts,
        "seeds": seeds.measure_seeds(predictions.part("test"), network_seeds, settings),
    }


def measure_part(
    predictions: Predictions, high: np.ndarray, compared: metrics.Reference, settings: EvaluateSettings
) -> dict[str, Any]:
    """Both levels of one part; the log-rank test at case level, where the rows are independent."""
    levels = {level: measure_level(predictions.level(level), compared, settings) for level in LEVELS}
    cases = predictions.cases
    test = metrics.log_rank(cases["time"], cases["event"], high)
    levels["case"]["risk_groups"] = {
        **_groups(cases["event"].to_numpy(bool), high),
        "log_rank": {key: value for key, value in asdict(test).items() if key != "reason" or value},
    }
    return levels


def measure_level(rows: pd.DataFrame, compared: metrics.Reference, settings: EvaluateSettings) -> dict[str, Any]:
    """Counts, Harrell's and Uno's C-index with intervals, of slides or of cases."""
    risk, time, event = rows["risk"].to_numpy(float), rows["time"].to_numpy(float), rows["event"].to_numpy(bool)
    harrell = metrics.c_index(risk, time, event)
    uno = metrics.c_index_ipcw(risk, time, event, compared)
    if settings.n_bootstrap and harrell.value is not None:
        harrell = _with_interval(harrell, rows, settings, None)
    if settings.n_bootstrap and uno.value is not None:
        uno = _with_interval(uno, rows, settings, metrics.uno_weights(time, event, compared))
    return {
        "n": len(rows),
        "n_cases": int(rows["case_id"].nunique()),
        "events": int(event.sum()),
        "c_index": harrell.to_table(),
        "c_index_ipcw": uno.to_table(),
    }


def method(compared: metrics.Reference, settings: EvaluateSettings, *, cut: str) -> dict[str, Any]:
    """How the numbers were made, in words and settings, for metrics.json."""
    return {
        "c_index": "Harrell (scikit-survival)",
        "c_index_ipcw": "Uno, inverse probability of censoring weights (scikit-survival)",
        "censoring_reference": compared.name,
        "tau_months": compared.tau,
        "interval": metrics.INTERVAL_METHOD,
        "confidence": settings.confidence,
        "n_bootstrap": settings.n_bootstrap,
        "seed": settings.seed,
        "risk_groups": f"high = above the {cut}",
    }


def _with_interval(
    estimate: metrics.Estimate, rows: pd.DataFrame, settings: EvaluateSettings, weights: np.ndarray | None
) -> metrics.Estimate:
    draws = metrics.bootstrap_c_index(
        rows["risk"],
        rows["time"],
        rows["event"],
        rows["case_id"],
        n_resamples=settings.n_bootstrap,
        seed=settings.seed,
        weight_N=weights,
    )
    return metrics.with_interval(estimate, draws, confidence=settings.confidence)


def _groups(event: np.ndarray, high: np.ndarray) -> dict[str, int]:
    return {
        "n_high": int(high.sum()),
        "events_high": int(event[high].sum()),
        "n_low": int((~high).sum()),
        "events_low": int(event[~high].sum()),
    }
