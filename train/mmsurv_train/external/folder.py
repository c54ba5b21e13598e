"""The folder of a prediction: risks, survival, genes, and what they were made from.

Owns its files; ``place`` makes the folder whole or absent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mmsurv.provenance import file_digest
from mmsurv_train import run as runs
from mmsurv_train import seeds, writing
from mmsurv_train.external.predict import External
from mmsurv_train.place import METRICS, new_run

GENES = "genes.csv"


def write_prediction(found: External, out: Path, *, command: str) -> None:
    """Write the folder ``out``.

    Raises:
        RunError: ``out`` is taken or cannot be written.
    """
    with new_run(out) as folder:
        runs.write_csv(folder / runs.PREDICTIONS, slide_table(found))
        runs.write_csv(folder / runs.CASE_PREDICTIONS, case_table(found))
        if found.genes is not None:
            runs.write_csv(folder / GENES, found.genes.to_frame())
        if found.metrics is not None:
            runs.write_json(folder / METRICS, found.metrics)
        runs.write_json(folder / runs.PROVENANCE, _record(found, command))


def slide_table(found: External) -> pd.DataFrame:
    """predictions.csv: slide_id, case_id, seen, risk[, risk_0, …][, time, event]."""
    slides = found.risks.slides.sort_values("slide_id", ignore_index=True)
    columns = ["slide_id", "case_id", "seen", *_risk_columns(slides)]
    return _with_outcomes(found, slides, columns)


def case_table(found: External) -> pd.DataFrame:
    """case_predictions.csv: case_id, seen, risk[, risk_0, …], survival_12, …, has_wsi, has_rna[, time, event]."""
    cohort = found.data.cohort
    cases = found.risks.cases.sort_values("case_id", ignore_index=True)
    with_rna = () if cohort.rna is None else cohort.rna.index
    cases = cases.merge(found.survival, left_on="case_id", right_index=True, how="left").assign(
        has_wsi=cases["case_id"].isin(cohort.slides["case_id"]),
        has_rna=cases["case_id"].isin(with_rna),
    )
    columns = ["case_id", "seen", *_risk_columns(cases), *found.survival, "has_wsi", "has_rna"]
    return _with_outcomes(found, cases, columns)


def _risk_columns(table: pd.DataFrame) -> list[str]:
    return ["risk", *seeds.network_columns(table)]


def _with_outcomes(found: External, table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The columns, with time and event where any case has an outcome; a case without one has empty cells."""
    table = table.assign(seen=table["case_id"].isin(list(found.seen)))
    if not found.has_outcomes:
        return table[columns]
    outcomes = found.data.cohort.cases
    time = table["case_id"].map(outcomes["time"]).astype(float)
    event = table["case_id"].map(outcomes["event"]).astype("Int64").where(time.notna())
    return table.assign(time=time, event=event)[[*columns, "time", "event"]]


def _record(found: External, command: str) -> dict[str, Any]:
    """provenance.json: that of a run, and which run predicted what."""
    from mmsurv_train.predict import device_text, find_device

    device = device_text(find_device(found.recipe.fit.device))
    members = found.run.folds() or [found.run]
    genes = found.genes
    return {
        **writing.record(found.data, found.sources, command=command, device=device),
        "run": {
            "path": str(found.run.path.absolute()),
            "models": {
                str(one.path.relative_to(found.run.path)): file_digest(one.path / runs.MODEL) for one in members
            },
        },
        "seen": found.seen,
        "genes": None
        if genes is None
        else {
            "of_the_model": len(genes.genes),
            "missing": list(genes.missing),
            "coverage": genes.coverage,
            "extra": genes.extra,
            "outside_clip": genes.outside,
            "mean_deviation": genes.deviation,
        },
        "warnings": found.warnings,
    }
