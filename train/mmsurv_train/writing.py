"""What a run's files say: the folder of one split, and that of a cross-validation with its folds in it.

Owns which result goes into which file, and provenance.json. Where the folder goes is ``place``'s, how a file is
written ``run``'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsurv import provenance
from mmsurv.config import to_table
from mmsurv_train import inputs, results
from mmsurv_train import run as runs
from mmsurv_train.inputs import Inputs, Sources
from mmsurv_train.place import new_run
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.results import Scored

if TYPE_CHECKING:
    import pandas as pd

    from mmsurv.split import Split
    from mmsurv_train.fit import Fitted


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run was made from: the same for all folds."""

    recipe: TrainRecipe
    sources: Sources
    data: Inputs
    record: Mapping[str, Any]
    """From :func:`record`."""

    def config(self, out: Path) -> dict[str, Any]:
        """config.toml of a run that will stand at ``out``."""
        return {"recipe": to_table(self.recipe), **inputs.sources_table(self.sources, run=out)}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One fold, fitted and scored."""

    split: Split
    fitted: Fitted
    scored: Scored
    recipe: TrainRecipe | None = None
    """Where it is not everyone's: settings that were chosen for this fold."""


def write_run(out: Path, origin: Origin, folds: Mapping[int, Result], *, selection: pd.DataFrame | None = None) -> None:
    """Write the run folder ``out``: of one split, or of a cross-validation where there are several folds.

    Args:
        out: must be free.
        origin: what all folds were made from.
        folds: by number.
        selection: how settings were chosen, if they were.

    Raises:
        RunError: ``out`` is taken or cannot be written.
    """
    with new_run(out) as folder:
        if selection is not None:
            runs.write_csv(folder / runs.SELECTION, selection)
        if len(folds) == 1:
            (result,) = folds.values()
            _write_split(folder, out, origin, result)
            return
        for k, result in folds.items():
            name = runs.fold_name(k)
            (folder / name).mkdir()
            _write_split(folder / name, out / name, origin, result)
        pooled = results.pool(origin.recipe, {k: result.scored for k, result in folds.items()})
        runs.write_config(folder, {**origin.config(out), "folds": list(folds)}, kind=runs.CROSS_VALIDATION)
        _write_scored(folder, pooled)
        runs.write_json(folder / runs.PROVENANCE, origin.record)


def record(data: Inputs, sources: Sources, *, command: str, device: str) -> dict[str, Any]:
    """provenance.json: what the run was made from, with what, where and when."""
    import torch

    cohort = data.cohort
    return {
        "made": provenance.now(),
        "command": command,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "device": device,
        "threads": torch.get_num_threads(),
        "features": _features(data, sources),
        "digests": data.digests,
        "slides": cohort.slides["slide_id"].tolist(),
        "cases": list(cohort.cases.index),
        "join": data.join,
        "left_out": data.left_out,
        "store_recipe": None if data.store is None else dict(data.store.recipe),
    }


def _write_split(folder: Path, out: Path, origin: Origin, result: Result) -> None:
    """Write the run of one split into ``folder``, which will stand at ``out``."""
    fitted, scored = result.fitted, result.scored
    if result.recipe is not None:
        origin = dataclasses.replace(origin, recipe=result.recipe)
    runs.write_config(folder, origin.config(out), kind=runs.RUN)
    runs.write_weights(folder, fitted.model.state_dict())
    runs.write_json(folder / runs.PREPROCESS, fitted.preprocess.to_table())
    result.split.save(folder / runs.SPLIT)
    runs.write_csv(folder / runs.HISTORY, fitted.history)
    _write_scored(folder, scored)
    runs.write_json(folder / runs.PROVENANCE, {**origin.record, "best_epoch": list(fitted.best_epoch)})


def _write_scored(folder: Path, scored: Scored) -> None:
    runs.write_predictions(folder, scored.predictions)
    runs.write_csv(folder / runs.SURVIVAL, scored.survival)
    runs.write_json(folder / runs.METRICS, scored.metrics)
    if scored.baseline is not None:
        runs.write_csv(folder / runs.BASELINE, scored.baseline)
    if scored.patterns is not None:
        runs.write_csv(folder / runs.PATTERN_PREDICTIONS, scored.patterns.predictions)
    if scored.floors is not None:
        runs.write_csv(folder / runs.FLOOR_PREDICTIONS, scored.floors.predictions)
        if scored.floors.table:
            runs.write_json(folder / runs.FLOORS, scored.floors.table)


def _features(data: Inputs, sources: Sources) -> dict[str, Any] | None:
    """How tile features were read, for the record: it changes time and memory, and no number."""
    if data.bags is None:
        return None
    return {"reading": data.bags.reading, "bytes": data.bags.nbytes, "memory": sources.memory}
