"""The paired differences of a report's runs to its first, as plain values.

Owns the words of that table. What cannot be compared is a sentence there, not an error: a report shows any runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmsurv.config import from_table
from mmsurv.errors import MmsurvError
from mmsurv_train import run as runs
from mmsurv_train.compare import paired, text
from mmsurv_train.compare.comparison import Comparison, compare
from mmsurv_train.compare.items import items_of
from mmsurv_train.compare.paired import Resampling
from mmsurv_train.recipe import EvaluateSettings
from mmsurv_train.run import Run

HEADS = ("difference of", "level", "measure", "difference", "interval", "p", "Holm’s p")


def of_report(found: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """What the page shows; empty for one run.

    Draws are those of the first run's own intervals, so on the same patients its interval is that of the page.
    """
    if len(found) < 2:
        return {}
    try:
        result = compare(items_of(found, labels), _resampling(found[0]))
    except MmsurvError as error:
        return {"reference": labels[0], "refused": str(error)}
    rows = [(pair, level, measure, *rest) for level, measure, pair, *rest in text.pair_rows(result)]
    several = len(result.pairs) > 1
    return {
        "reference": labels[0],
        "refused": "",
        "caption": _caption(result),
        "heads": HEADS if several else HEADS[:-1],
        "rows": rows if several else [row[:-1] for row in rows],
        "warnings": result.shared.warnings,
    }


def _resampling(first: Run) -> Resampling:
    source = str(first.path / runs.CONFIG)
    settings = from_table(EvaluateSettings, first.config["recipe"].get("evaluate", {}), source=source)
    return Resampling(n_resamples=settings.n_bootstrap, seed=settings.seed, confidence=settings.confidence)


def _caption(result: Comparison) -> str:
    case, how = result.levels["case"], result.how
    said = (
        f"On the {case.n} cases that all runs report ({case.events} events): paired bootstrap over patients, "
        f"{how.n_resamples} draws, the same for every run; {how.confidence:.0%} intervals. p: {paired.P_METHOD}."
    )
    return (
        f"{said} Holm’s p is adjusted for the other pairs of its level and measure." if len(result.pairs) > 1 else said
    )
