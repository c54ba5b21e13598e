"""The folder of a comparison: its table, its record and its forest plots.

Owns its files; ``place`` makes the folder whole or absent. The same runs and draws give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from mmsurv_train import run as runs
from mmsurv_train.compare.comparison import Comparison
from mmsurv_train.place import new_run

TABLE = "comparison.csv"
RECORD = "comparison.json"
PLOTS = {"case": "forest", "wsi": "forest-wsi"}
"""Names of the plots by level, each as .png and .svg."""


def write_comparison(found: Comparison, out: Path) -> None:
    """Write the folder ``out``.

    Raises:
        RunError: ``out`` is taken or cannot be written.
    """
    from mmsurv_train.compare.figure import forest_plot, to_png, to_svg

    with new_run(out) as folder:
        runs.write_csv(folder / TABLE, found.to_frame())
        runs.write_json(folder / RECORD, found.to_table())
        for level in found.levels:
            (folder / f"{PLOTS[level]}.png").write_bytes(to_png(forest_plot(found, level)))
            (folder / f"{PLOTS[level]}.svg").write_bytes(to_svg(forest_plot(found, level)))
