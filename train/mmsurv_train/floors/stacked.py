"""A Cox regression on the scores of several modalities, each a ridge Cox regression of its own.

Owns the combination: scores are standardised by the mean and standard deviation of their out-of-fold values, and
weighed by a Cox regression on the out-of-fold values, so that a score that only fits the patients it was made from gets
no credit for it; no weight is negative. A patient without a modality gets that score's mean.

Shape suffixes: B patients, C columns of a modality, S scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmsurv.errors import RunError
from mmsurv_train.floors.ridge import RidgeCox, RidgeScore, ridge_from_table, ridge_path, ridge_to_table
from mmsurv_train.modalities import Modality

WEIGHT_PENALTY = 1.0
"""Ridge penalty of the few weights, summed over deaths: it only keeps two scores that say the same from exploding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The score of one modality within a stack."""

    model: RidgeCox
    mean: float
    """Of the out-of-fold scores."""
    sd: float
    weight: float
    """Log hazard per standard deviation of the score."""

    def risk(self, x_BC: np.ndarray) -> np.ndarray:
        """Its share of the risk, (B,)."""
        return self.weight * (self.model.risk(x_BC) - self.mean) / self.sd

    @property
    def linear(self) -> tuple[np.ndarray, float]:
        """(weight (C,), shift) with which ``x @ weight + shift`` is its share of the risk."""
        scale = self.weight / self.sd
        return self.model.weight * scale, (self.model.shift - self.mean) * scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Stacked:
    """The fitted stack."""

    parts: Mapping[Modality, Part]

    def risk(
        self, values: Mapping[Modality, np.ndarray], has: Mapping[Modality, np.ndarray] | None = None
    ) -> np.ndarray:
        """Risks (B,) float64, on the scale of log hazards.

        Args:
            values: of each modality, (B, C).
            has: who has it, (B,) bool; everyone where it is not named.
        """
        shares = []
        for modality, part in self.parts.items():
            share_B = part.risk(values[modality])
            mask_B = (has or {}).get(modality)
            shares.append(share_B if mask_B is None else np.where(mask_B, share_B, 0.0))
        return np.sum(shares, axis=0)

    def to_table(self) -> dict[str, Any]:
        """JSON-able; ``from_table`` gives back the same numbers to the last bit."""
        return {
            modality: {**ridge_to_table(part.model), "score_mean": part.mean, "score_sd": part.sd,
                       "score_weight": part.weight}
            for modality, part in self.parts.items()
        }  # fmt: skip

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, columns: Mapping[Modality, int], source: str) -> Stacked:
        """Raises RunError if the table is not one that ``to_table`` made for these modalities."""
        if set(table) != set(columns):
            raise RunError(f"{source}: expected scores of {', '.join(columns)}, found {', '.join(table) or 'none'}.")
        try:
            return cls(
                parts={
                    modality: Part(
                        model=ridge_from_table(table[modality], columns=n, source=source),
                        mean=float(table[modality]["score_mean"]),
                        sd=float(table[modality]["score_sd"]),
                        weight=float(table[modality]["score_weight"]),
                    )
                    for modality, n in columns.items()
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{source}: a stack of scores is not as this version writes it ({error}).") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedStack:
    """A stack with what its training patients get out of fold."""

    stack: Stacked
    out_of_fold: np.ndarray
    """Risks (B,) of the training patients by scores that never saw them."""
    shares: Mapping[Modality, np.ndarray] = field(default_factory=dict)
    """Of each modality, what adds up to them."""


def stack(scores: Mapping[Modality, RidgeScore], time_B: np.ndarray, event_B: np.ndarray,
          has: Mapping[Modality, np.ndarray] | None = None) -> FittedStack:  # fmt: skip
    """Weigh scores by a Cox regression on their out-of-fold values.

    Args:
        scores: of each modality, fitted on the training patients who have it.
        time_B, event_B: outcomes of all training patients.
        has: which training patients have a modality, (B,) bool; all where it is not named.
    """
    columns, scales = [], []
    for modality, score in scores.items():
        mean, sd = float(score.out_of_fold.mean()), float(score.out_of_fold.std())
        sd = sd if sd > 0 else 1.0
        column_B = np.zeros(len(time_B))
        column_B[(has or {}).get(modality, slice(None))] = (score.out_of_fold - mean) / sd
        columns.append(column_B)
        scales.append((mean, sd))
    x_BS = np.stack(columns, 1)
    weight_S = _weights(x_BS, np.asarray(time_B, np.float64), np.asarray(event_B, bool))
    parts = {
        modality: Part(model=score.model, mean=mean, sd=sd, weight=float(weight))
        for (modality, score), (mean, sd), weight in zip(scores.items(), scales, weight_S, strict=True)
    }
    shares = {modality: x_BS[:, index] * weight_S[index] for index, modality in enumerate(scores)}
    return FittedStack(stack=Stacked(parts=parts), out_of_fold=x_BS @ weight_S, shares=shares)


def _weights(x_BS: np.ndarray, time_B: np.ndarray, event_B: np.ndarray) -> np.ndarray:
    """Weights (S,), none below 0: out-of-fold scores of noise run against the outcome, which is no reason to turn them
    round (Breiman 1996). A score whose weight would be negative is left out, the worst first."""
    kept = list(range(x_BS.shape[1]))
    while kept:
        (found,) = ridge_path(x_BS[:, kept], time_B, event_B, [WEIGHT_PENALTY])
        if found.min() >= 0:
            weight_S = np.zeros(x_BS.shape[1])
            weight_S[kept] = found
            return weight_S
        del kept[int(found.argmin())]
    return np.zeros(x_BS.shape[1])


def fit_stack(
    values: Mapping[Modality, np.ndarray],
    time_B: np.ndarray,
    event_B: np.ndarray,
    ids: Sequence[str],
    has: Mapping[Modality, np.ndarray] | None = None,
) -> FittedStack:
    """Fit the scores of all modalities, and their weights.

    Args:
        values: of each modality, (B, C); rows of patients who lack it are not looked at.
        time_B, event_B, ids: of the training patients.
        has: who has a modality; everyone where it is not named.

    Raises:
        SplitError: too few deaths to choose a penalty.
    """
    scores = {}
    for modality, x_BC in values.items():
        rows = np.flatnonzero((has or {}).get(modality, np.ones(len(ids), bool))).tolist()
        scores[modality] = RidgeScore.fit(x_BC[rows], time_B[rows], event_B[rows], [ids[row] for row in rows])
    return stack(scores, time_B, event_B, has)
