"""Scaling of RNA and features, fitted on the training part and stored with the run.

Owns which genes a model sees, in which order and on which scale. Genes are found by name, so another cohort's table
may hold them in any order, beside others.

Shape suffixes: B patients, G genes kept, D feature dim.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmsurv.errors import CohortError, RunError
from mmsurv_train.clinical import ClinicalCoding
from mmsurv_train.gene_sets import GeneSets
from mmsurv_train.recipe import RnaSettings

logger = logging.getLogger("mmsurv")

IQR_OF_NORMAL = 1.3489795003921634
"""Interquartile range of a standard normal variable."""

DEAD_CHANNEL = 1e-2
"""A feature's standard deviation counts as at least this share of the median one: a channel that is (nearly) constant
in training must not be blown up at prediction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocess:
    """What was learnt from the training part about scales. All arrays float64; empty where there is no such input."""

    genes: tuple[str, ...]
    """Genes the model sees, in its order."""
    dropped_genes: tuple[str, ...]
    """Genes of the training table that (nearly) do not vary or have no value there."""
    median: np.ndarray
    """Takes the place of missing values."""
    low: np.ndarray | None
    """Smaller values are brought to this; None: no clipping."""
    high: np.ndarray | None
    mean: np.ndarray
    sd: np.ndarray
    feature_mean: np.ndarray
    feature_sd: np.ndarray
    clinical: ClinicalCoding | None = None
    """How clinical variables become numbers."""
    gene_sets: GeneSets | None = None
    """Genes of each set among ``genes``."""
    time_edges: np.ndarray | None = None
    """Edges of the time intervals of a discrete-time model, months: K + 1 from 0 to infinity."""

    @classmethod
    def fit(
        cls,
        rna: pd.DataFrame | None,
        settings: RnaSettings,
        *,
        features: tuple[np.ndarray, np.ndarray] | None = None,
        clinical: ClinicalCoding | None = None,
    ) -> Preprocess:
        """Learn the scales.

        Args:
            rna: profiles of the training patients only, index case_id, columns genes; None for a model without RNA.
            settings: the recipe's [rna].
            features: mean and standard deviation of each feature over the training part's tiles, (D,) each.
            clinical: fitted on the training patients.

        Raises:
            CohortError: no gene varies in the training part.
        """
        mean_D, sd_D = (np.zeros(0), np.zeros(0)) if features is None else features
        scales: dict[str, Any] = {"feature_mean": mean_D, "feature_sd": _floored(sd_D), "clinical": clinical}
        if rna is None:
            none = np.zeros(0)
            return cls(genes=(), dropped_genes=(), median=none, low=None, high=None, mean=none, sd=none, **scales)
        return cls(**_fit_genes(rna, settings), **scales)

    @property
    def n_genes(self) -> int:
        return len(self.genes)

    @property
    def feature_dim(self) -> int:
        return len(self.feature_mean)

    def rna(self, profiles: pd.DataFrame) -> np.ndarray:
        """Scaled RNA of some patients.

        Args:
            profiles: one row per patient, columns genes in any order, NaN where a value is missing.

        Returns:
            (B, G) float32, in the order of the rows and of ``genes``.

        Raises:
            CohortError: genes the model needs are not in the table.
        """
        missing = sorted(set(self.genes) - set(profiles.columns))
        if missing:
            raise CohortError(
                f"{len(missing)} of the model's {self.n_genes} genes are not in the RNA table, the first "
                f"{missing[0]!r}. Give a table with the genes of the training run, named as there."
            )
        values_BG = profiles[list(self.genes)].to_numpy(np.float64)
        values_BG = np.where(np.isnan(values_BG), self.median, values_BG)
        if self.low is not None and self.high is not None:
            values_BG = np.clip(values_BG, self.low, self.high)
        # In one layout, whatever the table's: products of another one may differ in the last bit.
        return ((values_BG - self.mean) / self.sd).astype(np.float32, order="C")

    def to_table(self) -> dict[str, Any]:
        """JSON-able; ``from_table`` gives back the same numbers to the last bit."""
        table: dict[str, Any] = {"genes": list(self.genes), "dropped_genes": list(self.dropped_genes)}
        for name in (*_OF_GENES, *_OF_FEATURES):
            array = getattr(self, name)
            table[name] = None if array is None else array.tolist()
        table["time_edges"] = None if self.time_edges is None else self.time_edges[:-1].tolist()  # JSON has no infinity
        for name in ("clinical", "gene_sets"):
            part = getattr(self, name)
            table[name] = None if part is None else part.to_table()
        return table

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Preprocess:
        """Raises RunError if the table is not one that ``to_table`` made."""
        try:
            arrays = {name: table[name] for name in (*_OF_GENES, *_OF_FEATURES)}
            genes, dropped = tuple(table["genes"]), tuple(table["dropped_genes"])
            edges, coding, sets = table["time_edges"], table["clinical"], table["gene_sets"]
        except KeyError as error:
            raise RunError(f"preprocess.json has no key {error}. It is not one that this version wrote.") from error
        values = {name: None if array is None else np.asarray(array, np.float64) for name, array in arrays.items()}
        for name in _OF_GENES:
            array = values[name]
            if array is not None and array.shape != (len(genes),):
                raise RunError(
                    f"preprocess.json: {name} holds {array.size} numbers for {len(genes)} genes. "
                    "The file was changed or cut."
                )
        return cls(
            genes=genes,
            dropped_genes=dropped,
            clinical=None if coding is None else ClinicalCoding.from_table(coding),
            gene_sets=None if sets is None else GeneSets.from_table(sets),
            time_edges=None if edges is None else np.array([*edges, np.inf]),
            **values,  # type: ignore[arg-type]
        )


_OF_GENES = ("median", "low", "high", "mean", "sd")
_OF_FEATURES = ("feature_mean", "feature_sd")


def _fit_genes(rna: pd.DataFrame, settings: RnaSettings) -> dict[str, Any]:
    names = np.asarray(rna.columns, dtype=object)
    with_values = rna.notna().any().to_numpy()
    values_BG = rna.to_numpy(np.float64)[:, with_values]
    median_G = np.nanmedian(values_BG, axis=0) if values_BG.size else np.zeros(0)
    values_BG = np.where(np.isnan(values_BG), median_G, values_BG)
    low_G = high_G = None
    if settings.clip:
        spread_G = _spread(values_BG)
        low_G, high_G = median_G - settings.clip * spread_G, median_G + settings.clip * spread_G
        values_BG = np.clip(values_BG, low_G, high_G)
    variance_G = values_BG.var(axis=0)
    # A constant column of large numbers has a variance of rounding errors, not of zero.
    rounding_G = (np.finfo(np.float64).eps * len(values_BG) * np.abs(values_BG).max(axis=0, initial=0)) ** 2
    kept_G = variance_G > np.maximum(settings.min_variance, rounding_G)
    dropped = [*names[~with_values], *names[with_values][~kept_G]]
    if not kept_G.any():
        raise CohortError(
            f"None of the {len(names)} genes varies among the {len(rna)} training patients. "
            "Check the RNA table, or lower rna.min_variance."
        )
    if dropped:
        logger.warning("%d of %d genes do not vary in the training part and are dropped.", len(dropped), len(names))
    n_kept = int(kept_G.sum())
    return {
        "genes": tuple(str(name) for name in names[with_values][kept_G]),
        "dropped_genes": tuple(sorted(map(str, dropped))),
        "median": median_G[kept_G],
        "low": None if low_G is None else low_G[kept_G],
        "high": None if high_G is None else high_G[kept_G],
        "mean": values_BG[:, kept_G].mean(axis=0) if settings.standardise else np.zeros(n_kept),
        "sd": np.sqrt(variance_G[kept_G]) if settings.standardise else np.ones(n_kept),
    }


def _spread(values_BG: np.ndarray) -> np.ndarray:
    """Standard deviation as the interquartile range has it: a few wild values cannot widen it.

    Genes whose middle half is one value (most patients at zero) have no such range; theirs is the plain one.
    """
    quarter_G, three_quarters_G = np.quantile(values_BG, [0.25, 0.75], axis=0)
    robust_G = (three_quarters_G - quarter_G) / IQR_OF_NORMAL
    return np.where(robust_G > 0, robust_G, values_BG.std(axis=0))


def _floored(sd_D: np.ndarray) -> np.ndarray:
    living = sd_D[sd_D > 0]
    return np.maximum(sd_D, DEAD_CHANNEL * np.median(living) if len(living) else 1.0)
