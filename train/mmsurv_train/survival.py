"""Which curve is a patient's: the baseline of the model that scored it, and the table of predicted survival.

Owns the step from risks of a training part to predicted survival, and the columns of survival.csv. Risks are on the
model's own scale, that of its baseline: the standardised ones of pooled folds are no log hazards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mmsurv_train.metrics import Baseline, Curves, SurvivalCurves, kaplan_meier_baseline
from mmsurv_train.recipe import RiskScale


@dataclass(frozen=True)
class Predicted:
    """Survival predicted for some cases, and by no model for the same ones."""

    curves: SurvivalCurves
    nothing: Curves
    """Kaplan–Meier of the training part of each case's model."""
    training: Sequence[pd.DataFrame]
    """That training part: columns case_id, time, event; none where the strata of its patients are not known."""

    def take(self, rows: np.ndarray) -> Predicted:
        """Of some cases: True for those to keep."""
        return Predicted(self.curves.take(rows), self.nothing.take(rows), self.training)

    def within(self, rows: np.ndarray, stratum: Mapping[str, str], name: str) -> Predicted:
        """Of cases, True for those of a stratum, against the Kaplan–Meier curve of their stratum's training patients.

        Else a model would be praised in each stratum for knowing no more than which it is. A training part without
        any patient of the stratum gives its whole curve, and so does one of whose patients no stratum is known.
        """
        if not self.training:
            return self.take(rows)
        mine = [part[part["case_id"].map(stratum) == name] for part in self.training]
        parts = [own if len(own) else part for own, part in zip(mine, self.training, strict=True)]
        nothing = [kaplan_meier_baseline(part["time"], part["event"]) for part in parts]
        known = replace(self, nothing=replace(self.nothing, baselines=nothing), training=parts)
        return known.take(rows)


SLOPE_PENALTY = 0.1
"""Ridge penalty of a score's slope, summed over deaths: it only keeps that of scores which rank perfectly finite."""


def slope_of(cases: pd.DataFrame, scale: RiskScale) -> float | None:
    """Log hazard per unit of risk, of a Cox regression on it; None where risks are log hazards.

    Fitted on the training and the validation part: the network learnt from the one, so that its scores spread further
    there than among strangers, and not from the other. Never below 0: a higher score means an earlier death.

    Args:
        cases: all parts, columns part, risk, time, event.
        scale: of the risks.
    """
    from mmsurv_train.floors.ridge import ridge_path

    if scale == "log hazard":
        return None
    known = cases[cases["part"].isin(["train", "validation"])]
    risk_N, sd = known["risk"].to_numpy(float), float(known["risk"].std(ddof=0))
    if sd == 0:
        return 0.0
    standard_N1 = (risk_N - risk_N.mean())[:, None] / sd
    (beta_1,) = ridge_path(standard_N1, known["time"].to_numpy(float), known["event"].to_numpy(bool), [SLOPE_PENALTY])
    return max(0.0, float(beta_1[0]) / sd)


def baseline_table(training: pd.DataFrame, slope: float | None = None) -> pd.DataFrame:
    """Breslow's baseline of a training part (columns risk, time, event): what baseline.csv holds.

    With a slope, it is that of ``slope`` · risk, and has it as a column.
    """
    from mmsurv_train.cox import breslow_baseline

    risk, time, event = (training[name].to_numpy() for name in ("risk", "time", "event"))
    if slope is None:
        return breslow_baseline(risk, time, event)
    return breslow_baseline(slope * risk.astype(float), time, event).assign(slope=slope)


def predicted(
    cases: pd.DataFrame,
    training: Mapping[int, pd.DataFrame],
    models: Iterable[int],
    slopes: Mapping[int, float | None] | None = None,
) -> Predicted:
    """The curves of cases.

    Args:
        cases: column raw_risk, or risk where there is none.
        training: the training part of each model, by number: columns case_id, risk, time, event.
        models: the number of each case's model.
        slopes: of each model (:func:`slope_of`); without any, risks are log hazards.
    """
    places = {number: place for place, number in enumerate(training)}
    model_N = np.array([places[number] for number in models], dtype=np.int64)
    risk_N = cases["raw_risk" if "raw_risk" in cases else "risk"].to_numpy(float)
    breslow = [from_table(baseline_table(rows, (slopes or {}).get(number))) for number, rows in training.items()]
    nothing = [kaplan_meier_baseline(rows["time"], rows["event"]) for rows in training.values()]
    without = Curves(nothing, model_N, np.zeros(len(risk_N)))
    return Predicted(Curves(breslow, model_N, risk_N), without, list(training.values()))


def from_table(table: pd.DataFrame) -> Baseline:
    """The baseline that baseline.csv holds."""
    slope = float(table["slope"].iloc[0]) if "slope" in table else 1.0
    return Baseline(table["time"].to_numpy(float), table["cumulative_hazard"].to_numpy(float), slope)


def survival_table(cases: pd.DataFrame, curves: SurvivalCurves, months: Sequence[float]) -> pd.DataFrame:
    """survival.csv: case_id, part, of pooled folds fold, and predicted survival at each of the months.

    Blank beyond the last death of the training part, where the baseline says nothing.
    """
    ids = cases[[name for name in ("case_id", "part", "fold") if name in cases]].reset_index(drop=True)
    columns = [f"survival_{moment:g}" for moment in months]
    return pd.concat([ids, pd.DataFrame(curves.at(months), columns=columns)], axis=1)
