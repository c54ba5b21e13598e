"""The demo's last words: one table of models and C-indices.

Owns its form. The numbers are those of each run's ``metrics.json``, of the patients a fold's model had not seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsurv.errors import RunError

PART = "out-of-fold"


def results_table(runs: Mapping[str, Path]) -> str:
    """Models × C-index with its interval, at WSI and at case level.

    Args:
        runs: run folders by model.

    Raises:
        RunError: a run without the numbers of a cross-validation.
    """
    rows = [("model", "C-index (WSI)", "C-index (case)")]
    for model, path in runs.items():
        part = _part(path)
        rows.append((model, _cell(part["wsi"]["c_index"]), _cell(part["case"]["c_index"])))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def counts(run: Path) -> str:
    """How many slides, patients and deaths the numbers of a run stand on."""
    part = _part(run)
    return f"{part['wsi']['n']} slides of {part['case']['n']} patients, {part['case']['events']} deaths"


def _part(path: Path) -> dict[str, Any]:
    metrics = path / "metrics.json"
    try:
        return json.loads(metrics.read_text(encoding="utf-8"))["parts"][PART]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{metrics}: no out-of-fold results ({error!r}). Delete {path} and run the demo again."
        ) from error


def _cell(c_index: Mapping[str, Any]) -> str:
    """``0.71 [0.62, 0.79]``; a dash where it is undefined."""
    if c_index.get("value") is None:
        return "–"
    text = f"{c_index['value']:.3f}"
    if c_index.get("low") is None:
        return text
    return f"{text} [{c_index['low']:.2f}, {c_index['high']:.2f}]"
