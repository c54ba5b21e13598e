"""Genes of another cohort's RNA table, brought to those of the models by name.

Owns what is done about genes that are missing, and whether the values look like those of the training part. A missing
gene has no value for anyone, and takes the training median as any missing value does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmsurv.errors import CohortError
from mmsurv_train.preprocess import Preprocess

SHOWN = 5
MOST_OUTSIDE = 0.05
"""Share of values outside the training clip borders (5 standard deviations by default) that is no accident."""
USUAL_DEVIATION = (0.4, 1.6)
"""Where the mean absolute deviation, in training standard deviations, lies for values of the same scale; that of a
normal variable is 0.8."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """The new cohort's RNA, and how it fits the models."""

    profiles: pd.DataFrame
    """Index case_id, columns :attr:`genes`; NaN where a value or the gene is missing."""
    genes: tuple[str, ...]
    """All genes of the models, each once."""
    missing: tuple[str, ...]
    """Of these, the ones that the table lacks or has no value of."""
    extra: int
    """Genes of the table that no model sees."""
    coverage: float
    """Share of a model's genes that are there; of several models, the least."""
    outside: float | None
    """Share of values outside the training clip borders; None without clipping."""
    deviation: float | None
    """Mean absolute deviation from the training mean, in training standard deviations and within the clip borders; None
    where genes are not standardised."""

    def warnings(self) -> list[str]:
        """What does not look like the training part."""
        lines = []
        if self.missing:
            lines.append(
                f"{len(self.missing)} of the model's {len(self.genes)} genes are missing and take their training "
                f"median: {_some(self.missing)}."
            )
        signs = []
        if self.outside is not None and self.outside > MOST_OUTSIDE:
            signs.append(f"{self.outside:.1%} of its values lie outside the clip borders of the training part")
        if self.deviation is not None and not USUAL_DEVIATION[0] <= self.deviation <= USUAL_DEVIATION[1]:
            signs.append(f"its mean |z| on the training scale is {self.deviation:.2f}, where about 0.8 is usual")
        if signs:
            lines.append(
                f"The RNA is not on the training part's scale: {', and '.join(signs)}. Another normalisation? "
                "See --rna-log2; risks of such values mean little."
            )
        return lines

    def to_frame(self) -> pd.DataFrame:
        """genes.csv: every gene of the models, and whether the table has it."""
        missing = set(self.missing)
        status = ["missing" if gene in missing else "present" for gene in self.genes]
        return pd.DataFrame({"gene": list(self.genes), "status": status})


def align(profiles: pd.DataFrame, scales: Sequence[Preprocess], *, least: float, source: str) -> Aligned:
    """Find the models' genes in a table.

    Args:
        profiles: index case_id, columns genes in any order, beside any others.
        scales: of every model that is asked.
        least: the share of a model's genes that must be there.
        source: the table, for messages.

    Raises:
        CohortError: fewer are there; names numbers, genes and what to do.
    """
    genes = tuple(dict.fromkeys(gene for scale in scales for gene in scale.genes))
    with_values = set(profiles.columns[profiles.notna().any()])
    coverage = min(len(with_values.intersection(scale.genes)) / scale.n_genes for scale in scales if scale.n_genes)
    missing = tuple(gene for gene in genes if gene not in with_values)
    if coverage < least:
        raise _too_few(profiles, genes, missing, coverage, least, source)
    aligned = profiles.reindex(columns=list(genes))
    return Aligned(
        profiles=aligned,
        genes=genes,
        missing=missing,
        extra=len(set(profiles.columns) - set(genes)),
        coverage=coverage,
        outside=_mean(_outside(aligned, scale) for scale in scales),
        deviation=_mean(_deviation(aligned, scale) for scale in scales),
    )


def _too_few(
    profiles: pd.DataFrame, genes: tuple[str, ...], missing: tuple[str, ...], coverage: float, least: float, source: str
) -> CohortError:
    remedy = _spelling(missing, list(profiles.columns)) or "Give a table with the genes of the training run."
    if len(missing) == len(genes):
        remedy += f" Its genes are named like {str(profiles.columns[0])!r}, the model's like {genes[0]!r}."
    return CohortError(
        f"{source}: {coverage:.1%} of the model's genes are there, and at least {least:.1%} are asked for "
        f"(--min-gene-coverage): {len(missing)} of {len(genes)} are missing: {_some(missing)}. {remedy} "
        "With a lower --min-gene-coverage, missing genes take their training median, and all are named in genes.csv."
    )


def _spelling(missing: Sequence[str], columns: Sequence[str]) -> str:
    """A remedy where another spelling would find genes."""
    plain, lower = {_unversioned(name) for name in columns}, {name.lower() for name in columns}
    versions = sum(gene in plain for gene in missing)
    if versions:
        return f"{versions} of them are there with a version in their name: say --strip-ensembl-versions."
    cases = sum(gene.lower() in lower for gene in missing)
    return f"{cases} of them are there in other letters (upper or lower case): rename the columns." if cases else ""


def _unversioned(name: str) -> str:
    stem, dot, version = name.rpartition(".")
    return stem if dot and version.isdecimal() else name


def _outside(profiles: pd.DataFrame, scale: Preprocess) -> float | None:
    """Share of the values there are that lie outside the clip borders."""
    if scale.low is None or scale.high is None or not scale.n_genes:
        return None
    values_BG = profiles[list(scale.genes)].to_numpy(float)
    there_BG = ~np.isnan(values_BG)
    outside_BG = (values_BG < scale.low) | (values_BG > scale.high)
    return float(outside_BG[there_BG].mean()) if there_BG.any() else None


def _deviation(profiles: pd.DataFrame, scale: Preprocess) -> float | None:
    if not scale.n_genes or not (scale.mean.any() or (scale.sd != 1).any()):
        return None
    values_BG = profiles[list(scale.genes)].to_numpy(float)
    if scale.low is not None and scale.high is not None:
        values_BG = np.clip(values_BG, scale.low, scale.high)
    deviation_BG = np.abs((values_BG - scale.mean) / scale.sd)
    there_BG = ~np.isnan(deviation_BG)
    return float(deviation_BG[there_BG].mean()) if there_BG.any() else None


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
