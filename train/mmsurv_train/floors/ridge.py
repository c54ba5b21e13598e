"""Ridge Cox regression, its penalty chosen inside the training part, and out-of-fold scores of the training patients.

Owns the fit. It is the model of scikit-survival's ``CoxPHSurvivalAnalysis(alpha, ties="breslow")``, to which it is
compared in tests/reference/test_ridge.py; ours takes whole sums over patients as matrix products, and with more columns
than patients works in the space of the patients, X = U S Vᵀ: the penalty does not change under rotation, so the fit on
Z = U S is the same one. So a path of penalties over inner folds takes seconds, not minutes.

Shape suffixes: B patients, C columns, R = min(B, C) rotated columns, L penalties.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mmsurv.errors import RunError, SplitError

PENALTIES = (6.0, 2.0, 0.6, 0.2, 0.06, 0.02)
"""Of a column: the penalty of C columns is so many times C. The whole path is tried, from the strongest."""
INNER_FOLDS = 5
STEPS = 100
TOLERANCE = 1e-8
"""Of a Newton step, in log hazard: the largest move of a patient's risk."""
LONGEST_STEP = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeCox:
    """A fitted ridge Cox regression: risk = x · weight + shift, higher means an earlier death."""

    weight: np.ndarray
    """(C,) float64, of the columns as they come."""
    shift: float
    penalty: float

    def risk(self, x_BC: np.ndarray) -> np.ndarray:
        """Risks (B,) float64; their mean over the training patients is 0."""
        return np.asarray(x_BC, np.float64) @ self.weight + self.shift


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeScore:
    """A ridge Cox regression with the scores that its training patients have out of fold."""

    model: RidgeCox
    out_of_fold: np.ndarray
    """(B,) float64: each training patient's risk by the regression of the inner folds without them."""
    path: tuple[tuple[float, float], ...]
    """(penalty, cross-validated log partial likelihood)."""

    @classmethod
    def fit(cls, x_BC: np.ndarray, time_B: np.ndarray, event_B: np.ndarray, ids: Sequence[str]) -> RidgeScore:
        """Choose the penalty by the cross-validated log partial likelihood, and fit it on all.

        Columns are standardised. The penalty is chosen, and scores are made, over the same inner folds, which are
        stratified by event and drawn by a hash of the ids.

        Args:
            x_BC: training patients only.
            time_B: months.
            event_B: who died.
            ids: of the patients; fix the folds.

        Raises:
            SplitError: fewer than two deaths.

        Source: Verweij and van Houwelingen 1993, 1994.
        """
        with threadpool_limits(1, user_api="blas"):  # another number of threads might sum in another order
            return cls._fit(x_BC, np.asarray(time_B, np.float64), np.asarray(event_B, bool), ids)

    @classmethod
    def _fit(cls, x_BC: np.ndarray, time_B: np.ndarray, event_B: np.ndarray, ids: Sequence[str]) -> RidgeScore:
        n_folds = min(INNER_FOLDS, int(event_B.sum()))
        if n_folds < 2:
            raise SplitError(f"A penalty cannot be chosen from {len(event_B)} patients with {event_B.sum()} deaths.")
        z_BR, back = _rotated(np.asarray(x_BC, np.float64))
        penalties = np.array(PENALTIES) * x_BC.shape[1]
        fold_B = inner_folds(ids, event_B, n_folds)
        risk_LB, likelihood_L = np.zeros((len(penalties), len(ids))), np.zeros(len(penalties))
        for fold in range(n_folds):
            inside = fold_B != fold
            for index, beta_R in enumerate(ridge_path(z_BR[inside], time_B[inside], event_B[inside], penalties)):
                risk_B = z_BR @ beta_R
                # A fold's model has its own zero; the likelihood does not see it, the pooled scores must not.
                risk_LB[index, ~inside] = risk_B[~inside] - risk_B[inside].mean()
                likelihood_L[index] += log_partial_likelihood(risk_B, time_B, event_B)
                likelihood_L[index] -= log_partial_likelihood(risk_B[inside], time_B[inside], event_B[inside])
        best = int(np.argmax(likelihood_L))
        beta_R = ridge_path(z_BR, time_B, event_B, penalties[: best + 1])[-1]
        weight_C, shift = back(beta_R)
        return cls(
            model=RidgeCox(weight=weight_C, shift=shift, penalty=float(penalties[best])),
            out_of_fold=risk_LB[best],
            path=tuple(zip(penalties.tolist(), likelihood_L.tolist(), strict=True)),
        )


def ridge_path(
    x_BC: np.ndarray, time_B: np.ndarray, event_B: np.ndarray, penalties: Sequence[float] | np.ndarray
) -> list[np.ndarray]:
    """Coefficients (C,) of each penalty, fitted one after another from the last one's.

    Maximises the log partial likelihood (Breslow's ties, summed over deaths) minus penalty / 2 · |beta|², by Newton's
    method with bounded steps.
    """
    order = np.argsort(-time_B, kind="stable")
    x_BC, time_B, event_B = x_BC[order], time_B[order], event_B[order]
    last_E = (np.searchsorted(-time_B, -time_B, side="right") - 1)[event_B]
    dead_C = x_BC[event_B].sum(0)
    beta_C, found = np.zeros(x_BC.shape[1]), []
    for penalty in penalties:
        for _ in range(STEPS):
            step_C = _newton_step(x_BC, last_E, dead_C, beta_C, float(penalty))
            moved = float(np.abs(x_BC @ step_C).max(initial=0.0))
            beta_C = beta_C + step_C * min(1.0, LONGEST_STEP / moved if moved else 1.0)
            if moved < TOLERANCE:
                break
        found.append(beta_C)
    return found


def _newton_step(
    x_BC: np.ndarray, last_E: np.ndarray, dead_C: np.ndarray, beta_C: np.ndarray, penalty: float
) -> np.ndarray:
    risk_B = x_BC @ beta_C
    weight_B = np.exp(risk_B - risk_B.max())
    at_risk_E = np.cumsum(weight_B)[last_E]
    # How much of all deaths' risk sets a patient is: 1 / (sum at risk), summed over the deaths they outlive.
    share_B = np.bincount(last_E, 1 / at_risk_E, minlength=len(x_BC))[::-1].cumsum()[::-1] * weight_B
    mean_EC = np.cumsum(weight_B[:, None] * x_BC, 0)[last_E] / at_risk_E[:, None]
    slope_C = dead_C - share_B @ x_BC - penalty * beta_C
    curvature_CC = (x_BC * share_B[:, None]).T @ x_BC - mean_EC.T @ mean_EC
    curvature_CC[np.diag_indices_from(curvature_CC)] += penalty
    return np.linalg.solve(curvature_CC, slope_C)


def log_partial_likelihood(risk_B: np.ndarray, time_B: np.ndarray, event_B: np.ndarray) -> float:
    """Cox's, ties by Breslow, summed over deaths."""
    order = np.argsort(-time_B, kind="stable")
    risk_B, time_B, event_B = risk_B[order], time_B[order], event_B[order]
    last_B = np.searchsorted(-time_B, -time_B, side="right") - 1
    return float((risk_B - np.logaddexp.accumulate(risk_B)[last_B])[event_B].sum())


def inner_folds(ids: Sequence[str], event_B: np.ndarray, n_folds: int) -> np.ndarray:
    """A fold (B,) of each patient, stratified by event; whoever else there is hardly moves a patient."""
    fold_B = np.zeros(len(ids), np.int64)
    ranks = [hashlib.blake2b(f"inner\n{name}".encode()).digest() for name in ids]
    for dead in (True, False):
        rows = sorted(np.flatnonzero(event_B == dead), key=lambda row: ranks[row])
        fold_B[rows] = np.arange(len(rows)) % n_folds
    return fold_B


def _rotated(x_BC: np.ndarray) -> tuple[np.ndarray, Any]:
    """Standardised columns, rotated where there are more than patients; and the way back to raw coefficients."""
    mean_C, sd_C = x_BC.mean(0), x_BC.std(0)
    rounding_C = np.finfo(np.float64).eps * len(x_BC) * np.abs(x_BC).max(0, initial=0)
    sd_C = np.where(sd_C > rounding_C, sd_C, np.inf)  # a column that does not vary has no weight
    scaled_BC = (x_BC - mean_C) / sd_C
    rotation_CR: np.ndarray | None = None
    if x_BC.shape[1] > x_BC.shape[0]:
        rotation_CR = np.linalg.svd(scaled_BC, full_matrices=False)[2].T

    def back(beta_R: np.ndarray) -> tuple[np.ndarray, float]:
        weight_C = (beta_R if rotation_CR is None else rotation_CR @ beta_R) / sd_C
        return weight_C, float(-mean_C @ weight_C)

    return (scaled_BC if rotation_CR is None else scaled_BC @ rotation_CR), back


def ridge_to_table(model: RidgeCox) -> dict[str, Any]:
    """JSON-able; the same numbers come back to the last bit."""
    return {"weight": model.weight.tolist(), "shift": model.shift, "penalty": model.penalty}


def ridge_from_table(table: Mapping[str, Any], *, columns: int, source: str) -> RidgeCox:
    """Raises RunError if the table is not one that ``ridge_to_table`` made of so many columns."""
    try:
        values = {field.name: table[field.name] for field in fields(RidgeCox)}
        model = RidgeCox(**{**values, "weight": np.asarray(values["weight"], np.float64)})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{source}: a penalised Cox regression is not as this version writes it ({error}).") from error
    if model.weight.shape != (columns,):
        raise RunError(
            f"{source}: {model.weight.size} coefficients for {columns} columns. The file was changed or cut."
        )
    return model
