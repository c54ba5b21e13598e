"""Every measure of every run on the shared patients, and of every pair what is between them.

Owns which pairs are looked at, which measures there are, and the layout of comparison.json and comparison.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pandas as pd

from mmsurv.config import from_table
from mmsurv.errors import ConfigError
from mmsurv.provenance import file_digest
from mmsurv_train import place, run, scores
from mmsurv_train.compare import paired
from mmsurv_train.compare.items import Item
from mmsurv_train.compare.paired import Difference, Measured, Resampling, Rows
from mmsurv_train.compare.shared import Shared, find_shared
from mmsurv_train.metrics import Estimate, Reference
from mmsurv_train.recipe import EvaluateSettings

FORMAT = 1
LEVELS = ("case", "wsi")
MEASURES = {"c_index": "C-index", "c_index_ipcw": "Uno's C-index", "fold_mean": "mean of folds"}
"""In the order of tables, in words."""

COLUMNS = (
    "level", "measure", "run", "reference", "value", "low", "high", "p", "p_holm", "n", "cases", "events", "reason",
)  # fmt: skip
"""Of comparison.csv: a row without ``reference`` is a run's own number, one with it is ``run`` − ``reference``."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Places of two items; the difference is ``other`` − ``reference``."""

    reference: int
    other: int


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level: what was judged, and every measure of it."""

    n: int
    cases: int
    events: int
    estimates: dict[str, list[Estimate]]
    """By measure, in the order of the items."""
    differences: dict[str, list[Difference]]
    """By measure, in the order of the pairs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The result."""

    items: Sequence[Item]
    pairs: Sequence[Pair]
    shared: Shared
    how: Resampling
    reference: Reference
    """Of Uno's C-index."""
    levels: dict[str, Level]
    """By level; without WSI where no slide is shared."""

    @property
    def labels(self) -> list[str]:
        return [item.label for item in self.items]

    @property
    def measures(self) -> list[str]:
        return [name for name in MEASURES if name != "fold_mean" or self.shared.folds is not None]

    def pair_label(self, pair: Pair) -> str:
        return f"{self.labels[pair.other]} − {self.labels[pair.reference]}"

    def to_table(self) -> dict[str, Any]:
        """comparison.json."""
        return {
            "format": FORMAT,
            "kind": "comparison",
            "runs": [_item_table(item) for item in self.items],
            "shared": {"cases": self.shared.cases, "slides": self.shared.slides},
            "left_out": {"cases": self.shared.cases_elsewhere, "slides": self.shared.slides_elsewhere},
            "warnings": self.shared.warnings,
            "method": self._method(),
            "levels": {name: self._level_table(level) for name, level in self.levels.items()},
        }

    def to_frame(self) -> pd.DataFrame:
        """comparison.csv: columns :data:`COLUMNS`, a missing number is an empty cell."""
        rows = []
        for name, level in self.levels.items():
            counts = {"n": level.n, "cases": level.cases, "events": level.events}
            for measure in self.measures:
                at = {"level": name, "measure": measure, **counts}
                for label, estimate in zip(self.labels, level.estimates[measure], strict=True):
                    rows.append({**at, "run": label, **estimate.to_table()})
                for pair, found in zip(self.pairs, level.differences[measure], strict=True):
                    names = {"run": self.labels[pair.other], "reference": self.labels[pair.reference]}
                    rows.append({**at, **names, **found.to_table()})
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _method(self) -> dict[str, Any]:
        several = len(self.pairs) > 1
        return {
            "c_index": "Harrell (scikit-survival)",
            "c_index_ipcw": "Uno, inverse probability of censoring weights (scikit-survival)",
            "censoring_reference": f"{self.labels[0]}, {self.reference.name}",
            "tau_months": self.reference.tau,
            "fold_mean": None if self.shared.folds is None else "mean of Harrell's C-indices of the folds",
            "interval": "percentile bootstrap over patients, the same draws for every run; of the mean of folds, "
            "patients within their fold",
            "p": paired.P_METHOD,
            "p_holm": paired.HOLM_METHOD if several else None,
            "confidence": self.how.confidence,
            "n_bootstrap": self.how.n_resamples,
            "seed": self.how.seed,
        }

    def _level_table(self, level: Level) -> dict[str, Any]:
        table: dict[str, Any] = {"n": level.n, "cases": level.cases, "events": level.events}
        for measure in self.measures:
            estimates = zip(self.labels, level.estimates[measure], strict=True)
            pairs = zip(self.pairs, level.differences[measure], strict=True)
            table[measure] = {
                "runs": [{"run": label, **estimate.to_table()} for label, estimate in estimates],
                "differences": [
                    {"run": self.labels[pair.other], "reference": self.labels[pair.reference], **found.to_table()}
                    for pair, found in pairs
                ],
            }
        return table


def compare(items: Sequence[Item], how: Resampling, *, all_pairs: bool = False) -> Comparison:
    """Compare runs on the patients that all of them report.

    Args:
        items: at least two; the first is the reference, and gives the censoring distribution and τ of Uno's C-index.
        how: the draws of patients.
        all_pairs: every pair, not only those with the first.

    Raises:
        ConfigError: fewer than two items.
        RunError: no patient is shared, or outcomes differ.
    """
    if len(items) < 2:
        raise ConfigError("one run has nothing to be compared with: name two or more, the reference first.")
    shared = find_shared(items)
    places = combinations(range(len(items)), 2) if all_pairs else ((0, other) for other in range(1, len(items)))
    pairs = [Pair(reference=left, other=right) for left, right in places]
    reference = _reference(items[0])
    levels = {}
    for name in LEVELS:
        ids = shared.slides if name == "wsi" else shared.cases
        if ids:
            levels[name] = _level([item.level(name).loc[ids] for item in items], shared, pairs, reference, how)
    return Comparison(items=items, pairs=pairs, shared=shared, how=how, reference=reference, levels=levels)


def _reference(first: Item) -> Reference:
    """As the first run's own Uno's C-index has it."""
    source = str(first.run.path / run.CONFIG)
    settings = from_table(
        EvaluateSettings, first.run.config["recipe"].get("evaluate", {}), source=source, where="recipe.evaluate."
    )
    if first.is_cross_validation:
        name = "all patients of the cross-validation"
        return scores.reference(first.run.predictions.cases, settings, name=name)
    return scores.reference(first.run.predictions.part("train").cases, settings)


def _level(
    tables: Sequence[pd.DataFrame], shared: Shared, pairs: Sequence[Pair], reference: Reference, how: Resampling
) -> Level:
    rows = _rows(tables[0], shared)
    measured = {
        "c_index": [paired.harrell(table["risk"], rows, how) for table in tables],
        "c_index_ipcw": [paired.uno(table["risk"], rows, reference, how) for table in tables],
    }
    if shared.folds is not None:
        measured["fold_mean"] = [paired.fold_mean(table["risk"], rows, how) for table in tables]
    return Level(
        n=len(rows.time),
        cases=len(set(rows.patient)),
        events=int(rows.event.sum()),
        estimates={name: [one.estimate for one in found] for name, found in measured.items()},
        differences={name: _differences(found, pairs, how) for name, found in measured.items()},
    )


def _rows(table: pd.DataFrame, shared: Shared) -> Rows:
    """Outcomes are the reference's: they are the same in all."""
    patient = (table["case_id"] if "case_id" in table else table.index.to_series()).to_numpy(str)
    fold = None if shared.folds is None else shared.folds.loc[patient].to_numpy()
    return Rows(time=table["time"].to_numpy(float), event=table["event"].to_numpy(bool), patient=patient, fold=fold)


def _differences(found: Sequence[Measured], pairs: Sequence[Pair], how: Resampling) -> list[Difference]:
    raw = [paired.difference(found[pair.reference], found[pair.other], how) for pair in pairs]
    if len(raw) < 2:
        return raw
    return [replace(one, p_holm=p) for one, p in zip(raw, paired.holm([one.p for one in raw]), strict=True)]


def _item_table(item: Item) -> dict[str, Any]:
    return {
        "label": item.label,
        "run": item.source,
        "floor": item.floor,
        "model": item.model,
        "kind": item.run.kind,
        "part": item.run.reported_part,
        "cases": len(item.cases),
        "slides": len(item.slides),
        "metrics_sha256": file_digest(item.run.path / place.METRICS),
    }
