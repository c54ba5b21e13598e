"""The patients that all runs report, and what stands in the way of comparing runs on them.

Owns the choice of patients and slides, and what is refused or warned of. A patient that is not in all runs is listed,
never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mmsurv.errors import RunError
from mmsurv_train.compare.items import Item

SHOWN = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """What all items have a risk for, sorted by id."""

    cases: list[str]
    slides: list[str]
    cases_elsewhere: dict[str, list[str]]
    """Cases that some items report, with the labels of those that do not."""
    slides_elsewhere: dict[str, list[str]]
    """The same of slides of the shared cases."""
    folds: pd.Series | None
    """Fold of each shared case, where all items are cross-validations over the same folds."""
    warnings: list[str] = field(default_factory=list)


def find_shared(items: Sequence[Item]) -> Shared:
    """Join the items by id.

    Args:
        items: at least two; the first is the reference.

    Raises:
        RunError: no case is in all of them, or two of them say different outcomes of one case.
    """
    cases, elsewhere = _in_all({item.label: item.cases.index for item in items})
    if not cases:
        raise _nothing_shared(items)
    for item in items[1:]:
        _refuse_other_outcomes(items[0], item, cases)
    of_shared = {item.label: item.slides.index[item.slides["case_id"].isin(cases)] for item in items}
    slides, slides_elsewhere = _in_all(of_shared)
    folds, warnings = _folds(items, cases)
    warnings += _patients_differ(items, elsewhere) + _training_differs(items) + _slides_differ(of_shared, slides)
    return Shared(
        cases=cases, slides=slides, cases_elsewhere=elsewhere, slides_elsewhere=slides_elsewhere, folds=folds,
        warnings=warnings,
    )  # fmt: skip


def some(ids: Sequence[str]) -> str:
    """The first few ids, for a line."""
    return ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")


def _in_all(ids: dict[str, pd.Index]) -> tuple[list[str], dict[str, list[str]]]:
    """Ids that every label has, and the others with the labels that lack them."""
    sets = {label: set(index) for label, index in ids.items()}
    union = sorted(set().union(*sets.values()))
    lacking = {one: [label for label, having in sets.items() if one not in having] for one in union}
    return [one for one in union if not lacking[one]], {one: labels for one, labels in lacking.items() if labels}


def _nothing_shared(items: Sequence[Item]) -> RunError:
    lines = []
    for item in items:
        part, ids = item.run.reported_part, list(item.cases.index)
        lines.append(f"  {item.label}: {len(ids)} cases of its {part} part ({some(ids)})")
    return RunError(
        "no patient is in the reported part of all runs, so there is nothing to compare:\n"
        + "\n".join(lines)
        + "\nTrain them on one split: the same --split-seed or the same file of --folds, and --complete-cases."
    )


def _refuse_other_outcomes(first: Item, other: Item, cases: list[str]) -> None:
    left, right = first.cases.loc[cases], other.cases.loc[cases]
    same = np.isclose(left["time"], right["time"], rtol=1e-9, atol=0) & (left["event"] == right["event"]).to_numpy()
    if same.all():
        return
    case = cases[int(np.flatnonzero(~same)[0])]
    said = [f"{'event' if row['event'] else 'censored'} at {row['time']:g} months" for row in
            (left.loc[case], right.loc[case])]  # fmt: skip
    raise RunError(
        f"{int((~same).sum())} of {len(cases)} shared cases have other outcomes in {other.label} than in "
        f"{first.label}: {case} has {said[0]} in {first.run.path}, {said[1]} in {other.run.path}. "
        "Train both from one clinical table, read with the same options."
    )


def _folds(items: Sequence[Item], cases: list[str]) -> tuple[pd.Series | None, list[str]]:
    """The folds that all items have, or why there are none."""
    crossed = [item for item in items if item.is_cross_validation]
    if not crossed:
        return None, []
    if len(crossed) < len(items):
        split = [item.label for item in items if not item.is_cross_validation]
        return None, [
            f"{some(split)}: tested on one split, the others by cross-validation. The models learnt from different "
            "patients, so a difference is also one of training sets."
        ]
    first = items[0].cases.loc[cases, "fold"]
    others = [item.label for item in items[1:] if not _same_partition(first, item.cases.loc[cases, "fold"])]
    if not others:
        return first, []
    return None, [
        f"{some(others)}: other folds than {items[0].label}. The models that score a patient learnt from different "
        "patients, so a difference is also one of training sets, and there is no mean of folds to compare. "
        "Train them with one file of --folds, or the same number and --split-seed on the same patients."
    ]


def _same_partition(left: pd.Series, right: pd.Series) -> bool:
    """Whether the folds hold the same patients, whatever they are called."""
    pairs = set(zip(left, right, strict=True))
    return len(pairs) == left.nunique() == right.nunique()


def _patients_differ(items: Sequence[Item], elsewhere: dict[str, list[str]]) -> list[str]:
    lines = []
    for item in items:
        missing = [case for case, labels in elsewhere.items() if item.label in labels]
        if missing:
            part = item.run.reported_part
            lines.append(
                f"{len(missing)} cases that other runs report are not in the {part} part of {item.label} and are left "
                f"out of the comparison: {some(missing)}."
            )
    return lines


def _training_differs(items: Sequence[Item]) -> list[str]:
    """One-split runs whose models learnt from other patients than the first."""
    parts = {
        item.label: frozenset(item.run.predictions.part("train").cases["case_id"])
        for item in items
        if not item.is_cross_validation
    }
    first = next(iter(parts.values()), None)
    other = [label for label, part in parts.items() if part != first]
    if not other:
        return []
    sizes = ", ".join(f"{label} {len(part)}" for label, part in parts.items())
    return [
        f"The training parts differ ({sizes} cases), so a difference is also one of training sets. "
        "Train with --complete-cases to give every model the same patients."
    ]


def _slides_differ(slides: dict[str, pd.Index], shared: list[str]) -> list[str]:
    if not shared:
        without = [label for label, index in slides.items() if not len(index)]
        who = f"{some(without)} has none" if without else "each has others"
        return [f"No slide is in all runs ({who}): compared at case level only."]
    lines = []
    for label, index in slides.items():
        missing = sorted(set().union(*slides.values()) - set(index))
        if missing:
            lines.append(
                f"{len(missing)} slides of the shared cases are not in {label} and are left out at WSI level: "
                f"{some(missing)}."
            )
    return lines
