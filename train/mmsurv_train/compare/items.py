"""What can be compared: the risks a run, or one of its floors, reports for patients it was not trained on.

Owns how an item is named (``RUN`` or ``RUN:FLOOR``) and which rows of a run folder it stands for. A floor is a simple
model that was fitted beside the run; it has one risk per case, and a slide has that of its case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.run import Run, read_run

FLOORS = "floor_predictions.csv"
"""Of a run folder: case_id, part, and a column of risks for every floor."""

_NO_FLOORS = frozenset({"case_id", "part", "fold", "time", "event"})
"""Columns of that table that are no floor's risks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One column of the comparison."""

    label: str
    """Distinguishes it from the others."""
    source: str
    """As the user named it."""
    run: Run
    floor: str | None
    cases: pd.DataFrame
    """Index case_id: risk, time, event, of a cross-validation also fold; of the reported part."""
    slides: pd.DataFrame
    """Index slide_id: case_id and the same; empty where no slide is known of."""

    @property
    def is_cross_validation(self) -> bool:
        return self.run.kind == runs.CROSS_VALIDATION

    @property
    def model(self) -> str:
        return self.floor or self.run.metrics["model"]

    def level(self, level: str) -> pd.DataFrame:
        return self.slides if level == "wsi" else self.cases


def read_items(sources: Sequence[str]) -> list[Item]:
    """Open what the user named, in that order.

    Args:
        sources: run folders, or ``RUN:FLOOR``.

    Raises:
        RunError: not a run, no such floor, or the same thing twice.
    """
    named = [_split(source) for source in sources]
    found = [(read_run(path), floor) for path, floor in named]
    return _items(found, sources)


def items_of(found: Sequence[Run], labels: Sequence[str]) -> list[Item]:
    """Runs that are open already, under labels of the caller's."""
    return [read_item(run, None, label, str(run.path)) for run, label in zip(found, labels, strict=True)]


def _split(source: str) -> tuple[Path, str | None]:
    """The folder and the floor; a folder may have a colon in its name."""
    path, colon, floor = source.rpartition(":")
    if not colon or Path(source).is_dir() or not Path(path).is_dir():
        return Path(source), None
    return Path(path), floor


def _items(found: Sequence[tuple[Run, str | None]], sources: Sequence[str]) -> list[Item]:
    for (run, floor), count in Counter((run.path.resolve(), floor) for run, floor in found).items():
        if count > 1:
            name = str(run) if floor is None else f"{run}:{floor}"
            raise RunError(f"{name} is named {count} times; a run does not differ from itself. Name it once.")
    short = [_label(run.name, floor) for run, floor in found]
    counts = Counter(short)
    labels = [name if counts[name] == 1 else source for name, source in zip(short, sources, strict=True)]
    return [
        read_item(run, floor, label, source) for (run, floor), label, source in zip(found, labels, sources, strict=True)
    ]


def _label(name: str, floor: str | None) -> str:
    return name if floor is None else f"{name}:{floor}"


def read_item(run: Run, floor: str | None, label: str, source: str) -> Item:
    """The reported rows of a run, or of one of its floors.

    Raises:
        RunError: a table lacks a column, has a row twice or a risk that is no number; or there is no such floor.
    """
    reported = run.predictions.part(run.reported_part)
    cases = reported.cases.set_index("case_id")
    slides = reported.slides.set_index("slide_id")
    if floor is not None:
        risk = _floor_risk(run, floor)
        cases = cases.assign(risk=risk.reindex(cases.index))
        slides = slides.assign(risk=slides["case_id"].map(risk))
        cases, slides = (table[table["risk"].notna()] for table in (cases, slides))
        if cases.empty:
            raise RunError(f"{run.path / FLOORS}: {floor} has no risk for any case of the {run.reported_part} part.")
    columns = ["risk", "time", "event", *(["fold"] if run.kind == runs.CROSS_VALIDATION else [])]
    for table, name in ((cases, runs.CASE_PREDICTIONS), (slides, runs.PREDICTIONS)):
        _check(run.path / name, table, columns)
    return Item(
        label=label, source=source, run=run, floor=floor, cases=cases[columns], slides=slides[["case_id", *columns]]
    )


def _check(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise _changed(path, f"the column {', '.join(missing)} is missing")
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise _changed(path, f"{twice} stands in two rows")
    if not np.isfinite(table["risk"].to_numpy(float)).all():
        raise _changed(path, "a risk is not a finite number")


def _changed(path: Path, what: str) -> RunError:
    return RunError(f"{path}: {what}. The file was changed: train the run again.")


def _floor_risk(run: Run, floor: str) -> pd.Series:
    """The floor's risk of the reported cases, by case; pooled over folds where only these have a table."""
    path = run.path / FLOORS
    if path.is_file():
        table = _floors(path, floor)
        return _by_case(path, table[table["part"] == run.reported_part], floor)
    folds = run.folds()
    if not folds or not all((fold.path / FLOORS).is_file() for fold in folds):
        raise RunError(f"{path} is missing, so {run.path} has no floor {floor!r}. Name the run without it.")
    return pd.concat([_standardised(fold.path / FLOORS, floor) for fold in folds])


def _standardised(path: Path, floor: str) -> pd.Series:
    """Test risks of one fold on the scale of its training part, as ``crossval`` pools those of networks."""
    table = _floors(path, floor)
    training, tested = (_by_case(path, table[table["part"] == part], floor) for part in ("train", "test"))
    spread = float(training.std(ddof=0))
    return (tested - float(training.mean())) / (spread if spread > 0 else 1.0)


def _floors(path: Path, floor: str) -> pd.DataFrame:
    table = runs.read_csv(path)
    missing = [name for name in ("case_id", "part") if name not in table]
    if missing:
        raise _changed(path, f"the column {', '.join(missing)} is missing")
    known = [name for name in table.columns if name not in _NO_FLOORS]
    if floor not in known:
        raise RunError(f"{path} has no floor {floor!r}. It has {', '.join(known) or 'none'}: name one of them.")
    return table


def _by_case(path: Path, rows: pd.DataFrame, floor: str) -> pd.Series:
    risk = rows.set_index("case_id")[floor].astype(float)
    if not risk.index.is_unique:
        twice = risk.index[risk.index.duplicated()][0]
        raise _changed(path, f"{twice} stands in two rows")
    return risk
