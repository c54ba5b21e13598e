"""Risks of several models on one scale, and the survival they stand for.

Owns the mean over the folds of a cross-validation: each fold's risks are standardised by its own training part, as its
test risks are when folds are pooled, so nothing of the new patients goes into a scale. Survival is that of each
model's own baseline hazard and own risk, and the mean of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmsurv.errors import RunError
from mmsurv_train import crossval, seeds
from mmsurv_train import run as runs
from mmsurv_train.metrics import Curves, MeanCurves, SurvivalCurves
from mmsurv_train.predict import RiskTables
from mmsurv_train.run import Run
from mmsurv_train.survival import from_table

MONTHS = (12, 36, 60)
"""When the chance to be alive is written."""


def one_scale(run: Run, tables: Sequence[RiskTables]) -> RiskTables:
    """The risks of the run's model, or the mean of its folds' standardised risks.

    Args:
        run: of one split or a cross-validation.
        tables: of its one model, or of each fold's, on their own scales; the same rows in the same order.
    """
    if run.kind == runs.RUN:
        (table,) = tables
        return table
    folds = folds_of(run)
    return RiskTables(
        slides=_mean(folds, [table.slides for table in tables]), cases=_mean(folds, [table.cases for table in tables])
    )


def folds_of(run: Run) -> list[crossval.Fold]:
    """The folds of a cross-validation, with the scales of their training parts."""
    return [
        crossval.Fold(k=k, predictions=fold.predictions, metrics=fold.metrics)
        for k, fold in zip(run.config["folds"], run.folds(), strict=True)
    ]


def risk_cut(run: Run) -> float:
    """Where risk groups are cut: the training median; of folds the mean of theirs on their standard scales."""
    if run.kind == runs.RUN:
        return float(run.metrics["risk_cut"])
    scales = [(fold.metrics["risk_cut"], *fold.scale()) for fold in folds_of(run)]
    return float(np.mean([(cut - mean) / spread for cut, mean, spread in scales]))


def curves(members: Sequence[Run], tables: Sequence[RiskTables]) -> SurvivalCurves:
    """Survival of each case, in the order of the tables: the mean of the models' own curves."""
    return MeanCurves([_curves(member, table.cases) for member, table in zip(members, tables, strict=True)])


def survival(found: SurvivalCurves, cases: pd.DataFrame) -> pd.DataFrame:
    """The chance of each case to be alive at :data:`MONTHS`, columns survival_12, …; index case_id.

    NaN beyond the last death of a model's training part, where its baseline hazard knows nothing.
    """
    columns = [f"survival_{months}" for months in MONTHS]
    return pd.DataFrame(found.at(MONTHS), columns=columns, index=pd.Index(cases["case_id"], name="case_id"))


def _mean(folds: Sequence[crossval.Fold], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    result = tables[0].copy()
    for column in ("risk", *seeds.network_columns(result)):
        scales = [fold.scale(column) for fold in folds]
        scaled = [(table[column].to_numpy(float) - mean) / spread
                  for table, (mean, spread) in zip(tables, scales, strict=True)]  # fmt: skip
        result[column] = np.mean(scaled, axis=0)
    return result


def _curves(member: Run, cases: pd.DataFrame) -> Curves:
    source = member.path / runs.BASELINE
    baseline = runs.read_csv(source)
    if member.config["recipe"]["fit"]["loss"] == "nll" and "slope" not in baseline:
        raise RunError(f"{source}: the column slope is expected of a run with fit.loss = nll. Train the run again.")
    if not {"time", "cumulative_hazard"} <= set(baseline.columns):
        raise RunError(f"{source}: the columns time and cumulative_hazard are expected. Train the run again.")
    return Curves([from_table(baseline)], np.zeros(len(cases), dtype=np.int64), cases["risk"].to_numpy(float))
