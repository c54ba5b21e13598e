"""What is measured on which patients: from risks to the predictions tables and metrics.json.

Owns the choice of rows, references and cuts, and the layout of metrics.json but for what is measured on one set of rows
(``level``). The statistics are in ``metrics``.
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

from mmsurv_train import metrics, seeds, survival
from mmsurv_train.level import measure_level, measure_survival
from mmsurv_train.recipe import EvaluateSettings, RiskScale
from mmsurv_train.strata import Stratification, measure_strata

if TYPE_CHECKING:
    from mmsurv_train.predict import RiskTables

PARTS = ("train", "validation", "test")
LEVELS = ("wsi", "case")
FORMAT = 2
"""2: time-dependent AUC, Brier scores, calibration, strata."""


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


def predicted_survival(predictions: Predictions, scale: RiskScale = "log hazard") -> survival.Predicted:
    """Predicted survival of the cases of one run, all parts, from its own training part."""
    cases = predictions.cases
    return survival.predicted(
        cases, {0: predictions.part("train").cases}, [0] * len(cases), {0: survival.slope_of(cases, scale)}
    )


def measure(
    predictions: Predictions,
    settings: EvaluateSettings,
    *,
    model: str,
    network_seeds: Sequence[int],
    scale: RiskScale = "log hazard",
    chosen: Sequence[Stratification] = (),
) -> dict[str, Any]:
    """metrics.json of one run: every part at WSI and at case level; of the test part also predicted survival, strata,
    and each network alone.

    Args:
        predictions: of all parts.
        settings: of the measures.
        model: its name.
        network_seeds: of each network.
        scale: of the risks.
        chosen: how cases are parted for strata.
    """
    compared = reference(predictions.part("train").cases, settings)
    cut = training_cut(predictions)
    parts = {}
    for part in PARTS:
        rows = predictions.part(part)
        high = metrics.high_risk(rows.cases["risk"], cut)
        parts[part] = measure_part(rows, high, compared, settings)
    is_test = (predictions.cases["part"] == "test").to_numpy()
    cases, predicted = predictions.cases[is_test], predicted_survival(predictions, scale).take(is_test)
    parts["test"]["case"] |= measure_survival(cases, predicted, compared, settings)
    return {
        "format": FORMAT,
        "kind": "run",
        "model": model,
        "method": method(compared, settings, cut="median case-level risk of the training part", scale=scale),
        "risk_cut": cut,
        "parts": parts,
        "strata": measure_strata(chosen, cases, predicted, compared, settings),
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


SURVIVAL: dict[RiskScale, str] = {
    "log hazard": "exp(-H0(t) exp(risk)), Breslow's baseline of the training part, undefined beyond its last death",
    "score": "exp(-H0(t) exp(b risk)): a discrete-time model's risk is no log hazard; b of a Cox regression on it in "
    "the training and validation part, Breslow's baseline of the training part, undefined beyond its last death",
}
"""How survival is predicted."""


def method(
    compared: metrics.Reference, settings: EvaluateSettings, *, cut: str, scale: RiskScale = "log hazard"
) -> dict[str, Any]:
    """How the numbers were made, in words and settings, for metrics.json."""
    return {
        "c_index": "Harrell (scikit-survival)",
        "c_index_ipcw": "Uno, inverse probability of censoring weights (scikit-survival)",
        "auc": "cumulative/dynamic, inverse probability of censoring weights (scikit-survival)",
        "brier": "Graf, inverse probability of censoring weights (scikit-survival)",
        "survival": SURVIVAL[scale],
        "no_model": "Kaplan-Meier of the training part; in a stratum, of its patients there",
        "times_months": list(settings.times_months),
        "calibration": f"at most {settings.calibration_groups} groups by quantiles of predicted survival",
        "d_calibration": "Haider 2020, 10 bins, censored cases spread evenly below their survival",
        "censoring_reference": compared.name,
        "tau_months": compared.tau,
        "interval": metrics.INTERVAL_METHOD,
        "confidence": settings.confidence,
        "n_bootstrap": settings.n_bootstrap,
        "seed": settings.seed,
        "risk_groups": f"high = above the {cut}",
    }


def _groups(event: np.ndarray, high: np.ndarray) -> dict[str, int]:
    return {
        "n_high": int(high.sum()),
        "events_high": int(event[high].sum()),
        "n_low": int((~high).sum()),
        "events_low": int(event[~high].sum()),
    }
