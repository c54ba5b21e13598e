"""The floors of the runs on the page: a table of what simple models come to on the same patients.

Owns the choice of rows and the words of the section; the page's rest is ``content``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmsurv_train import floor_summary
from mmsurv_train.digits import NONE, interval, number

if TYPE_CHECKING:
    from mmsurv_train.run import Run

HEADS = ("model", "floor", "looks at", "C-index", "folds’ mean", "model − floor")
PATTERN_HEADS = ("model", "patients have", "C-index", "patients (events)")


def sections(found: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """Rows of both tables; empty where no run has any."""
    floors, patterns = [], []
    for run, label in zip(found, labels, strict=True):
        own = run.metrics["parts"][run.reported_part]["case"]
        for name, floor in floor_summary.ordered(run.metrics.get("floors", {})):
            mean, by = floor.get("fold_mean", {}).get("mean"), floor_summary.gap(own, floor)
            gap = NONE if by is None else f"{by:+.3f}".replace("-", "−")
            floors.append((label, name, ", ".join(floor["inputs"]), _cell(floor), number(mean), gap))
        for name, one in floor_summary.ordered(run.metrics.get("patterns", {})):
            patterns.append((label, name, _cell(one), f"{one['n']} ({one['events']})"))
    return {
        "floors": {"heads": HEADS, "rows": floors},
        "patterns": {"heads": PATTERN_HEADS, "rows": patterns},
    }


def _cell(one: dict[str, Any]) -> str:
    value, between = number(one["c_index"]["value"]), interval(one["c_index"])
    return value if between == NONE else f"{value} [{between}]"
