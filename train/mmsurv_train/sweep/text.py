"""A sweep for people: the plan before it runs, and the table with what it is in words.

Owns words and digits; the numbers are those of ``table``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmsurv_train.digits import counted
from mmsurv_train.sweep.names import label, short_names
from mmsurv_train.sweep.plan import Plan, Planned
from mmsurv_train.sweep.possible import Facts
from mmsurv_train.sweep.recipe import Measure, Published
from mmsurv_train.sweep.same import same_trainings, uses
from mmsurv_train.sweep.table import Result

LEVEL_NAMES = {"wsi": "WSI", "case": "case"}
NONE = "–"
RANDOM_WEIGHTS = (
    "The encoder's weights are random: the tile features were not learnt from any image, and these numbers say nothing "
    "about what slides can tell."
)


def plan_text(plan: Plan) -> str:
    """What a sweep would train."""
    shown = [] if _headings(plan) == ["configuration"] else _headings(plan)
    headings = ["configuration", *shown]
    rows = [[planned.name, *_settings(plan, planned)][: len(headings)] for planned in plan.configurations]
    return f"{markdown(headings, rows)}\n\n{counts_text(plan)}"


def counts_text(plan: Plan) -> str:
    """Such as "3 configurations × 5 folds × 4 seeds: 60 networks"."""
    seeds = sorted({planned.recipe.fit.n_seeds for planned in plan.configurations})
    factors = [
        counted(len(plan.configurations), "configuration"),
        counted(plan.n_folds, "fold") if plan.n_folds > 1 else "one split",
        counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds",
    ]
    return f"{' × '.join(factors)}: {counted(plan.n_networks, 'network')}"


def remarks(plan: Plan, facts: Facts, notes: Sequence[str]) -> list[str]:
    """What a reader must know first: what the features are, the user's notes, rows that are one training."""
    return [
        *([f"**{RANDOM_WEIGHTS}**"] if facts.random_weights else []),
        *(f"Note: {note}" for note in notes),
        *(
            f"These rows are the same training: {'; '.join(names)}. They differ only in settings that their model does "
            "not use, in batches that hold the whole training part, or in bags that cut no patient's tiles."
            for names in same_trainings(plan, facts)
        ),
    ]


def table_text(plan: Plan, results: Sequence[Result], numbers: pd.DataFrame, *, remarks: Sequence[str] = ()) -> str:
    """table.md: the rounded table, under it the remarks, and what its numbers are and are not."""
    rows = numbers.to_dict("records")
    measures = _measures(plan)
    several = len(numbers["evaluated_with"].unique()) > 1
    named = _rows_named(plan)
    headings = [
        *(["row"] if named else []),
        *_headings(plan, named=named),
        *(["evaluated with"] if several else []),
        *_measure_headings(measures),
    ]
    lines = []
    for result, row in zip(results, rows, strict=True):
        with_bags = [_bags(result)] if several else []
        name = [str(result.planned.row)] if named else []
        lines.append([*name, *_settings(plan, result.planned, named=named), *with_bags, *_measure_cells(measures, row)])
    notes = [*remarks, *_failures(results), *_about(plan, results, numbers, several=several)]
    return "\n\n".join([markdown(headings, lines), *notes]) + "\n"


def published_text(published: Published) -> str:
    """published.md: figures of others, alone in a file of their own."""
    return "\n\n".join(
        [
            f"# Published figures: {published.title}",
            f"**Not computed here.** Whose: {published.source}. Made with: {published.made_with}.",
            markdown(published.columns, published.rows),
            "They cannot be compared with numbers from planted, simulated or other data, nor from another encoder: "
            "this is why they stand in this file and not in table.md.",
        ]
    ) + "\n"  # fmt: skip


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is aligned as plain text too."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [headings, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headings))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in cells]  # fmt: skip
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _rows_named(plan: Plan) -> bool:
    """Whether the table for people has the names of the recipe's rows; one of given columns has those alone."""
    return not plan.settings.columns and any(planned.row is not None for planned in plan.configurations)


def _headings(plan: Plan, *, named: bool = False) -> list[str]:
    """Of the settings' columns; with neither these nor a row's name, of the configuration's."""
    if plan.settings.columns:
        return list(plan.settings.columns)
    return list(short_names(plan.varying).values()) or ([] if named else ["configuration"])


def _settings(plan: Plan, planned: Planned, *, named: bool = False) -> list[str]:
    keys = list(plan.settings.columns.values()) or list(plan.varying)
    cells = [label(key, planned.setting(key)) if uses(planned.recipe, key) else NONE for key in keys]
    return cells or ([] if named else [planned.name])


def _measures(plan: Plan) -> list[Measure]:
    """Those asked for, without the ones that would repeat another: an ensemble of one, the mean of one fold."""
    one = {"ensemble": all(planned.recipe.fit.n_seeds == 1 for planned in plan.configurations),
           "folds": plan.n_folds == 1}  # fmt: skip
    return [name for name in plan.settings.measures if not one.get(name, False)]


def _measure_headings(measures: Sequence[Measure]) -> list[str]:
    titles = {"networks": "C-index", "ensemble": "ensemble", "folds": "folds"}
    headings = []
    for name in measures:
        if name == "counts":
            headings += ["patients", "events", "seeds", "folds"]
        else:
            headings += [f"{titles[name]} ({level})" for level in LEVEL_NAMES.values()]
    return headings


def _measure_cells(measures: Sequence[Measure], row: Mapping[Any, Any]) -> list[str]:
    cells = []
    for name in measures:
        if name == "counts":
            cells += [_whole(row[key]) for key in ("patients", "events", "seeds", "folds")]
            continue
        for level in LEVEL_NAMES:
            if row["status"] == "failed":
                cells.append("failed")
            elif name == "networks":
                cells.append(_number(row, f"{level}_mean", f"{level}_sd", f"{level}_low", f"{level}_high"))
            elif name == "ensemble":
                at = f"{level}_ensemble"
                cells.append(_number(row, at, None, f"{at}_low", f"{at}_high"))
            else:
                cells.append(_number(row, f"{level}_folds_mean", f"{level}_folds_sd"))
    return cells


def _number(row: Mapping[Any, Any], value: str, sd: str | None, low: str | None = None, high: str | None = None) -> str:
    """Such as "0.612 ± 0.013 (0.551 to 0.671)"; what is missing is left out."""
    if pd.isna(row[value]):
        return NONE
    text = f"{row[value]:.3f}"
    if sd is not None and not pd.isna(row[sd]):
        text += f" ± {row[sd]:.3f}"
    if low is not None and not pd.isna(row[low]):
        text += f" ({row[low]:.3f} to {row[high]:.3f})"
    return text


def _whole(value: Any) -> str:
    return NONE if pd.isna(value) else str(value)


def _bags(result: Result) -> str:
    if not result.planned.recipe.needs_tiles:
        return NONE
    size = result.planned.recipe.bags.size
    return str(size) if result.evaluated_with == "size" and size else "all"


def _failures(results: Sequence[Result]) -> list[str]:
    failed = {result.planned.name: result.reason for result in results if result.metrics is None}
    lines = [f"- {name}: {reason}" for name, reason in failed.items()]
    return ["Failed:\n" + "\n".join(lines)] if lines else []


def _about(plan: Plan, results: Sequence[Result], numbers: pd.DataFrame, *, several: bool) -> list[str]:
    complete = next((result for result in results if result.metrics is not None), None)
    if complete is None or complete.metrics is None:
        return []
    notes = [_of_what(plan, numbers), _how(plan, complete.metrics["method"])]
    if several:
        notes.append(
            "Evaluated with: the same trained networks, once with bags of the training's size and once with all "
            "tiles; the epoch was chosen once, by the recipe's own bags.at_prediction."
        )
    if len(numbers.dropna(subset="patients")[["patients", "slides"]].drop_duplicates()) > 1:
        notes.append(
            "**The rows are not measured on the same patients**, because the models do not need the same data; "
            "--complete-cases keeps only patients whom all can score."
        )
    if len(plan.configurations) > 1:
        notes.append(
            "Choosing the best row of this table and quoting its number is optimistic: the row would be chosen on the "
            "very patients it is measured on. Choose on other patients, or quote all rows."
        )
    return notes


def _of_what(plan: Plan, numbers: pd.DataFrame) -> str:
    patients = " or ".join(str(n) for n in sorted(numbers["patients"].dropna().unique()))
    events = " or ".join(str(n) for n in sorted(numbers["events"].dropna().unique()))
    if plan.n_folds > 1:
        what = (
            f"Out-of-fold: each patient is scored by the networks of the one of {plan.n_folds} folds that never saw "
            "them; risks are standardised by the fold's training part and pooled"
        )
    elif plan.recipe.split.fold is not None:
        what = f"The test part of fold {plan.recipe.split.fold}"
    else:
        what = "The test part of one split"
    return f"{what}. {patients} patients, {events} deaths."


def _how(plan: Plan, method: Mapping[str, Any]) -> str:
    share = f"{100 * float(method['confidence']):g} %"
    counts, measures = {planned.recipe.fit.n_seeds for planned in plan.configurations}, _measures(plan)
    parts = ["C-index: Harrell's, 0.5 is chance."]
    if counts == {1}:
        parts.append("One network per configuration and fold: how much another seed would change it is not known.")
    else:
        parts.append("Mean ± standard deviation over networks that differ in their seed alone.")
    if "ensemble" in measures:
        parts.append("*ensemble*: the C-index of the mean risk of these networks.")
    if method["n_bootstrap"]:
        parts.append(f"In brackets: {share} interval, {method['interval']}, {method['n_bootstrap']} draws.")
    if "folds" in measures:
        parts.append("*folds*: mean ± standard deviation of the folds' own C-indices.")
    return " ".join(parts)
