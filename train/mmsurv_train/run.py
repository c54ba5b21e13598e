"""The run folder: what files it has, and how they are written and read back exactly.

Owns the layout of design.md §5; ``place`` makes the folder whole or absent. Safetensors, JSON, TOML and CSV; no
pickle. Floats are written by their shortest exact representation, so reading gives back the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmsurv.config import dump_toml, load_toml
from mmsurv.errors import ConfigError, RunError
from mmsurv_train import required
from mmsurv_train.place import METRICS
from mmsurv_train.scores import Predictions

if TYPE_CHECKING:
    import torch

FORMAT = 3
"""3: survival.csv and what is measured of it; floors; what a model looks at is in its recipe."""

CONFIG = "config.toml"
MODEL = "model.safetensors"
PREPROCESS = "preprocess.json"
SPLIT = "split.csv"
HISTORY = "history.csv"
PREDICTIONS = "predictions.csv"
CASE_PREDICTIONS = "case_predictions.csv"
SURVIVAL = "survival.csv"
BASELINE = "baseline.csv"
FLOOR_PREDICTIONS = "floor_predictions.csv"
FLOORS = "floors.json"
"""Both only where there are floors."""
SELECTION = "selection.csv"
"""Only where settings were chosen on inner folds."""
PATTERN_PREDICTIONS = "pattern_predictions.csv"
"""Only where patients may lack modalities."""
PROVENANCE = "provenance.json"

RUN = "run"
CROSS_VALIDATION = "cross-validation"

FILES = {
    RUN: (
        CONFIG, MODEL, PREPROCESS, SPLIT, HISTORY, PREDICTIONS, CASE_PREDICTIONS, SURVIVAL, METRICS, BASELINE,
        PROVENANCE,
    ),
    CROSS_VALIDATION: (CONFIG, PREDICTIONS, CASE_PREDICTIONS, SURVIVAL, METRICS, PROVENANCE),
}  # fmt: skip

OF_A_SWEEP = ("plan.json", "runs")
"""What tells the folder of a sweep, which is no run but holds some."""

_IDS = {"slide_id": str, "case_id": str, "part": str}


@dataclass(frozen=True)
class Run:
    """A run folder on disk; its files are read when asked for."""

    path: Path
    config: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return self.config["kind"]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def reported_part(self) -> str:
        """The part whose numbers count: patients the model was not trained on and its epoch was not chosen by."""
        return "out-of-fold" if self.kind == CROSS_VALIDATION else "test"

    @cached_property
    def metrics(self) -> dict[str, Any]:
        metrics = read_json(self.path / METRICS)
        required.check_keys(metrics, required.metrics_keys(self.reported_part), source=self.path / METRICS)
        if self.kind == RUN:
            required.check_keys(metrics, required.RUN_METRICS, source=self.path / METRICS)
        return metrics

    @cached_property
    def provenance(self) -> dict[str, Any]:
        record, source = read_json(self.path / PROVENANCE), self.path / PROVENANCE
        required.check_keys(record, required.PROVENANCE, source=source)
        required.check_keys(record, required.OPTIONAL_PROVENANCE, source=source, optional=True)
        return record

    @cached_property
    def predictions(self) -> Predictions:
        return Predictions(slides=self._table(PREDICTIONS), cases=self._table(CASE_PREDICTIONS))

    @cached_property
    def survival(self) -> pd.DataFrame:
        return self._table(SURVIVAL)

    @cached_property
    def baseline(self) -> pd.DataFrame:
        """Of a run of one split."""
        return self._table(BASELINE)

    @cached_property
    def history(self) -> pd.DataFrame:
        return self._table(HISTORY)

    def _table(self, name: str) -> pd.DataFrame:
        table = read_csv(self.path / name)
        required.check_columns(table.columns, source=self.path / name)
        return table

    def folds(self) -> list[Run]:
        """The runs of the folds, in order; empty for a run of one split."""
        if self.kind != CROSS_VALIDATION:
            return []
        return [read_run(self.path / fold_name(k)) for k in self.config["folds"]]

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's state.

        Raises:
            RunError: the file is not safetensors.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path / MODEL)
        except (SafetensorError, OSError) as error:
            raise RunError(f"{self.path / MODEL}: not a safetensors file ({error}). Train the run again.") from error


def fold_name(k: int) -> str:
    """Folder of one fold within a cross-validation run."""
    return f"fold-{k}"


def read_run(path: Path) -> Run:
    """Open a run folder.

    Raises:
        RunError: it is not one, is incomplete (also in a fold), or was written by a newer version. What its other
            files hold is checked when they are asked for, with the same error.
    """
    if not path.is_dir():
        raise RunError(f"{path} is not a folder; a run is the folder that `mmsurv train -o` wrote.")
    if all((path / name).exists() for name in OF_A_SWEEP):
        raise RunError(f"{path} is a sweep, not a run: name its runs, {path / 'runs'}/*.")
    try:
        config = load_toml(path / CONFIG)
    except ConfigError as error:
        raise RunError(f"{path} is not a run: {error}") from error
    kind, found = config.get("kind"), config.get("format")
    if found != FORMAT or not isinstance(kind, str) or kind not in FILES:
        raise RunError(
            f"{path / CONFIG} says format {found!r}, kind {kind!r}; this version reads format {FORMAT}, "
            f"kinds {', '.join(FILES)}."
        )
    _require(path, [name for name in FILES[kind] if not (path / name).is_file()])
    required.check_keys(config, required.CONFIG, source=path / CONFIG)
    required.check_keys(config, required.OPTIONAL_CONFIG, source=path / CONFIG, optional=True)
    if kind == CROSS_VALIDATION:
        required.check_keys(config, required.FOLDS, source=path / CONFIG)
        _require(path, [name for k in config["folds"] for name in _missing_of_fold(path, fold_name(k))])
    return Run(path, config)


def _missing_of_fold(path: Path, fold: str) -> list[str]:
    """The fold's folder, or what lacks in it."""
    if not (path / fold).is_dir():
        return [fold]
    return [f"{fold}/{name}" for name in FILES[RUN] if not (path / fold / name).is_file()]


def _require(path: Path, missing: Sequence[str]) -> None:
    if missing:
        raise RunError(
            f"{path} is not a complete run: {', '.join(missing)} missing. Delete that run and train it again, or bring "
            "back what is missing."
        )


def write_config(folder: Path, config: Mapping[str, Any], *, kind: str) -> None:
    """config.toml with the format and kind in front."""
    text = dump_toml({"format": FORMAT, "kind": kind, **config})
    (folder / CONFIG).write_text(text, encoding="utf-8")


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """predictions.csv (slides) and case_predictions.csv."""
    write_csv(folder / PREDICTIONS, predictions.slides)
    write_csv(folder / CASE_PREDICTIONS, predictions.cases)


def write_weights(folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """model.safetensors, on the CPU. Raises OSError if it cannot be written."""
    from safetensors.torch import save

    (folder / MODEL).write_bytes(save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Comma-separated, booleans as 0/1, floats by their shortest exact representation."""
    path.write_bytes(csv_bytes(table))


def csv_bytes(table: pd.DataFrame) -> bytes:
    """What :func:`write_csv` writes."""
    flags = table.select_dtypes(bool).columns
    text = table.astype(dict.fromkeys(flags, "int64")).to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8")


def read_csv(path: Path) -> pd.DataFrame:
    """Read what :func:`write_csv` wrote: ids as text, ``event`` and ``high_risk`` as booleans, floats exactly.

    Raises:
        RunError: missing, or not such a table.
    """
    try:
        columns = pd.read_csv(path, nrows=0).columns
        missing = {name: [""] for name in columns if name not in _IDS}
        table = pd.read_csv(path, dtype=_IDS, float_precision="round_trip", keep_default_na=False, na_values=missing)
        flags = table.columns.intersection(["event", "high_risk"])
        return table.astype(dict.fromkeys(flags, bool))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not a table of this run ({error}).") from error


def json_text(value: Any) -> str:
    """Deterministic JSON: sorted keys, floats exact, no NaN."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    path.write_text(json_text(value), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Raises RunError: missing, or not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: a JSON object is expected, not {type(value).__name__}.")
    return value
