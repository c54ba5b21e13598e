"""Which patient trains, validates and tests.

Owns splits and folds at patient level: made by a seed or read from a file, saved, and checked. A patient belongs to one
part, every part has an event, and the draw depends on the seed and the case ids alone: not on the order of the
table, and not on a random generator that another version may change.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from mmsurv.cohort.reading import Layout, Table, place, read_table
from mmsurv.errors import SplitError

log = logging.getLogger("mmsurv")

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
VALIDATION_SHARE = 1 / 8
"""Of a fold's training part, what chooses the epoch: 70 and 10 of every 80 patients, as in the 70/10/20 split."""


@dataclass(frozen=True)
class Split:
    """Every patient's part."""

    parts: pd.Series
    """Index case_id (sorted, unique), values "train", "validation" or "test"."""

    def __post_init__(self) -> None:
        repeated = self.parts.index[self.parts.index.duplicated()]
        if len(repeated):
            found = ", ".join(sorted(set(self.parts.loc[[repeated[0]]])))
            raise SplitError(f"Case {repeated[0]!r} is in the split more than once ({found}). A patient has one part.")
        unknown = self.parts[~self.parts.isin(PARTS)]
        if len(unknown):
            raise SplitError(f"Case {unknown.index[0]!r}: {unknown.iloc[0]!r} is no part. Expected {', '.join(PARTS)}.")
        object.__setattr__(self, "parts", self.parts.sort_index().rename("part").rename_axis("case_id"))

    def cases(self, part: Part) -> list[str]:
        """Case ids of one part, sorted."""
        if part not in PARTS:
            raise SplitError(f"{part!r} is no part. Expected {', '.join(PARTS)}.")
        return list(self.parts.index[self.parts == part])

    def save(self, path: Path) -> None:
        """Write a CSV of case_id and part, sorted by case_id; :func:`read_split` reads it back."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("case_id", "part"))
            writer.writerows(self.parts.items())


def read_split(path: Path) -> Split:
    """Read a split that :meth:`Split.save` wrote, or one made elsewhere in that form.

    Raises:
        SplitError: not such a table; a case in two rows; a part of another name. The message has the row.
    """
    table = _read_two_columns(path, "part")
    for index, part in enumerate(table.text["part"]):
        if part not in PARTS:
            where = place(path, table.row(index), "part")
            raise SplitError(f"{where}: expected {', '.join(PARTS)}, found {part!r}. Correct the cell.")
    return Split(_one_each(table, "part"))


def make_split(cases: pd.DataFrame, *, seed: int, fractions: Sequence[float] = (0.7, 0.1, 0.2)) -> Split:
    """Draw a split, stratified by event.

    Args:
        cases: index case_id, column event (bool), as in ``Cohort.cases``; the order of rows does not matter.
        seed: another seed, another draw.
        fractions: shares of patients in training, validation and test; they add up to 1, and the first is not 0.

    Raises:
        SplitError: the fractions are not such, or there are fewer events than parts.
    """
    if len(fractions) != 3 or any(not 0 <= share <= 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"Expected three fractions between 0 and 1 that add up to 1, found {tuple(fractions)}.")
    if not fractions[0]:
        raise SplitError("The training part has a fraction of 0. Give it patients to train on.")
    shares = dict(zip(PARTS, fractions, strict=True))
    return Split(_draw(_events(cases), shares, key=f"split:{seed}", what="a split"))


def make_folds(cases: pd.DataFrame, *, n_folds: int, seed: int) -> list[Split]:
    """Draw k folds, stratified by event: each patient is tested once, and an eighth of the others validates.

    Args:
        cases: as in :func:`make_split`.
        n_folds: at least 2.
        seed: of the folds and of the validation parts.

    Raises:
        SplitError: ``n_folds`` is below 2, or there are too few events for one in every part of every fold.
    """
    if n_folds < 2:
        raise SplitError(f"Expected at least 2 folds, found {n_folds}.")
    events = _events(cases)
    n_events = int(events.sum())
    if n_events < n_folds:
        raise SplitError(
            f"{n_folds} folds need an event each, and the cohort has {n_events}. Ask for at most {n_events} folds."
        )
    ranked = [*_ranked(events.index[events], f"folds:{seed}"), *_ranked(events.index[~events], f"folds:{seed}")]
    fold = {case_id: position % n_folds for position, case_id in enumerate(ranked)}
    return [_fold_split(events, fold, label, seed) for label in range(n_folds)]


def read_folds(path: Path, cases: pd.DataFrame, *, seed: int) -> list[Split]:
    """Read folds made elsewhere: a CSV of case_id and fold, whatever the labels.

    Args:
        path: the table; cases that are not in the cohort are passed over with a warning in the log.
        cases: as in :func:`make_split`.
        seed: of the validation parts, an eighth of each training part, stratified by event.

    Returns:
        One split per fold in the order of the labels (as numbers where all are numbers): that fold tests.

    Raises:
        SplitError: a case of the cohort has no fold; a case has two; fewer than 2 folds; or a part without event.
    """
    events = _events(cases)
    folds = _fold_of_each(path)
    missing = sorted(set(events.index) - set(folds.index))
    if missing:
        raise SplitError(
            f"{path}: {len(missing)} of {len(events)} cases of the cohort have no fold: {_some(missing)}. "
            "Add them to the table, or take them out of the cohort."
        )
    extra = sorted(set(folds.index) - set(events.index))
    if extra:
        log.warning("%s: %d cases are not in the cohort and are passed over: %s", path, len(extra), _some(extra))
    fold = {str(case_id): str(folds[case_id]) for case_id in events.index}
    labels = _label_order(set(fold.values()))
    if len(labels) < 2:
        raise SplitError(f"{path}: expected at least 2 folds, found only {labels[0]!r}.")
    _require_events(path, events, fold, labels)
    return [_fold_split(events, fold, label, seed) for label in labels]


def fold_labels(path: Path) -> list[str]:
    """The labels of a table of folds, in the order of :func:`read_folds`, whichever cases they are of.

    Raises:
        SplitError: no such table, a blank label, or a case with two.
    """
    return _label_order({str(label) for label in _fold_of_each(path)})


def _fold_of_each(path: Path) -> pd.Series:
    """Index case_id, values the labels of the folds."""
    table = _read_two_columns(path, "fold")
    for index, label in enumerate(table.text["fold"]):
        if not label:
            raise SplitError(f"{place(path, table.row(index), 'fold')}: the fold is blank. Fill it in.")
    return _one_each(table, "fold")


def _require_events(path: Path, events: pd.Series, fold: Mapping[str, str], labels: Sequence[str]) -> None:
    for label in labels:
        tested = [case_id for case_id in events.index if fold[case_id] == label]
        if not events[tested].any():
            raise SplitError(
                f"{path}: fold {label!r} has no event among its {len(tested)} cases of the cohort, so nothing can be "
                "tested on it. Join it to another fold."
            )


def _fold_split(events: pd.Series, fold: Mapping[str, object], label: object, seed: int) -> Split:
    """Fold ``label`` tests; of the others an eighth validates."""
    tests = pd.Series([fold[case_id] == label for case_id in events.index], index=events.index, dtype=bool)
    shares: dict[Part, float] = {"train": 1 - VALIDATION_SHARE, "validation": VALIDATION_SHARE}
    rest = _draw(events[~tests], shares, key=f"validation:{seed}:{label}", what=f"the training part of fold {label!r}")
    return Split(pd.concat([rest, pd.Series("test", index=events.index[tests], dtype=object)]))


def _events(cases: pd.DataFrame) -> pd.Series:
    """Event by case id, sorted, so that the order of the table is forgotten."""
    if cases.index.has_duplicates:
        raise SplitError(f"Case {cases.index[cases.index.duplicated()][0]!r} stands twice in the cohort.")
    return cases["event"].astype(bool).sort_index()


def _draw(events: pd.Series, shares: Mapping[Part, float], *, key: str, what: str) -> pd.Series:
    """A part for every case: events first, at least one a part, then the censored, so that the sizes come out right."""
    used = {part: share for part, share in shares.items() if share > 0}
    n_events, n = int(events.sum()), len(events)
    if n_events < len(used):
        raise SplitError(
            f"{what[0].upper()}{what[1:]} into {', '.join(used)} needs an event in each, and there "
            f"{'is' if n_events == 1 else 'are'} {n_events}. Use a larger cohort, fewer folds or fewer parts."
        )
    event_counts = _apportion(n_events, list(used.values()), least=1)
    room = [max(0.0, share * n - count) for share, count in zip(used.values(), event_counts, strict=True)]
    censored_counts = _apportion(n - n_events, room, least=0)
    drawn: dict[str, Part] = {}
    for counts, case_ids in ((event_counts, events.index[events]), (censored_counts, events.index[~events])):
        ranked = iter(_ranked(case_ids, key))
        for part, count in zip(used, counts, strict=True):
            drawn.update((next(ranked), part) for _ in range(count))
    return pd.Series(drawn, dtype=object)


def _apportion(n: int, weights: Sequence[float], *, least: int) -> list[int]:
    """``n`` in whole numbers by weight (largest remainders), none below ``least``; ``n`` is large enough for that."""
    total = sum(weights)
    quotas = [n * weight / total for weight in weights] if total else [n, *[0.0] * (len(weights) - 1)]
    counts = [int(quota + 1e-9) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda part: counts[part] - quotas[part])
    for part in by_remainder[: n - sum(counts)]:
        counts[part] += 1
    while min(counts) < least:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(min(counts))] += 1
    return counts


def _ranked(case_ids: Iterable[str], key: str) -> list[str]:
    """The ids in an order drawn by ``key``: by a hash of each, so that one more case moves no other."""
    return sorted(case_ids, key=lambda case_id: hashlib.blake2b(f"{key}\n{case_id}".encode()).digest())


def _label_order(labels: set[str]) -> list[str]:
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


def _read_two_columns(path: Path, value: str) -> Table:
    def choose(columns: tuple[str, ...]) -> Layout:
        for name in ("case_id", value):
            if name not in columns:
                found = _some([repr(column) for column in columns])
                raise SplitError(f"{path}: no column {name!r}. Expected case_id and {value}, found {found}.")
        return Layout(text=("case_id", value))

    return read_table(path, choose, error=SplitError)


def _one_each(table: Table, column: str) -> pd.Series:
    """The value of each case.

    Raises:
        SplitError: a blank id, or a case in two rows.
    """
    first: dict[str, int] = {}
    for index, case_id in enumerate(table.text["case_id"]):
        if not case_id:
            raise SplitError(f"{place(table.path, table.row(index), 'case_id')}: the case id is blank.")
        if first.setdefault(case_id, index) != index:
            both = " and ".join(repr(table.text[column][i]) for i in (first[case_id], index))
            raise SplitError(
                f"{table.path}, {table.rows([first[case_id], index])}: case {case_id!r} has two rows, with {column} "
                f"{both}. Keep one: a patient belongs to one {column}."
            )
    return pd.Series(table.text[column], index=pd.Index(list(first), dtype=object), dtype=object)


def _some(ids: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(ids[:limit])
    return shown if len(ids) <= limit else f"{shown} and {len(ids) - limit} more"
