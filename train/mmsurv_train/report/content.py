"""What the report says: from run folders to plain values, in the order of the page.

Owns the selection and the words. Numbers are read from metrics.json and the predictions and never computed anew,
except the Kaplan–Meier curves, which are drawn from the predictions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from mmsurv.provenance import differences
from mmsurv_train import metrics, summary
from mmsurv_train import run as runs
from mmsurv_train.compare import differences as paired
from mmsurv_train.report import figures, floors
from mmsurv_train.report import survival as survivals
from mmsurv_train.run import Run

LEVELS = ("case", "wsi")

JOIN_COUNTS = {
    "n_cases": "cases with an outcome",
    "n_events": "of them with an event (death observed)",
    "n_slides": "slides with a case",
    "n_cases_with_slides": "cases with slides",
    "n_cases_with_rna": "cases with RNA",
    "n_cases_with_both": "cases with both",
    "n_genes": "genes",
    "missing_values": "missing RNA values, imputed by the training part's median",
    "cases_without_outcome": "cases without outcome, left out",
    "cases_without_slides": "cases without slides",
    "cases_without_rna": "cases without RNA",
    "slides_without_outcome": "slides whose case has no outcome, left out",
    "slides_without_rna": "slides whose case has no RNA",
    "rna_without_case": "RNA profiles without a case, left out",
    "rna_without_slides": "cases with RNA and no slide",
    "rna_without_values": "RNA profiles without any value, left out",
    "slides_not_in_store": "slides of the table that are not in the store",
    "store_slides_without_case": "slides of the store without a case, left out",
}
"""Fields of the join report, in words; lists are shown by their length, and not at all when empty."""

METHODS = {
    "c_index": "C-index",
    "c_index_ipcw": "Uno’s C-index",
    "auc": "AUC",
    "brier": "Brier score",
    "survival": "predicted survival",
    "no_model": "no model",
    "calibration": "groups of calibration",
    "d_calibration": "D-calibration",
    "tau_months": "τ, to which Uno’s C-index and the integrated Brier score look",
    "censoring_reference": "censoring estimated from",
    "interval": "interval",
    "confidence": "confidence",
    "n_bootstrap": "resamples",
    "seed": "seed of the resamples",
    "risk_groups": "risk groups",
    "pooling": "pooling of folds",
}
"""Fields of a run's method, in words."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One run, as the page shows it."""

    label: str
    name: str
    folder: str
    part: str
    row: dict[str, str]
    """Cells of the table of results."""
    curves: Markup
    curves_caption: str
    training: Markup
    settings: list[tuple[str, str]]
    command: str
    selection: str
    """How its settings were chosen, where that was done inside the training parts; else empty."""
    made: str
    features: str
    """How tile features were read; empty where none were."""
    versions: str


def describe(found: Sequence[Run], notes: Sequence[str]) -> dict[str, Any]:
    """Everything the template shows."""
    labels = _labels(found)
    models = [_model(run, label, f"m{i}") for i, (run, label) in enumerate(zip(found, labels, strict=True))]
    return {
        "banner": [*notes, *_warnings(found)],
        "parts": sorted({model.part for model in models}),
        "models": models,
        "has_folds": any(run.kind == runs.CROSS_VALIDATION for run in found),
        "has_seeds": any(summary.n_seeds(run.metrics) > 1 for run in found),
        "comparison": _comparison(found, labels),
        **floors.sections(found, labels),
        **survivals.sections(found, labels),
        "paired": paired.of_report(found, labels),
        "cohorts": _grouped(found, labels, _cohort),
        "stores": _grouped(found, labels, _store),
        "methods": _grouped(found, labels, _methods),
        "reasons": [reason for run, label in zip(found, labels, strict=True) for reason in _reasons(run, label)],
    }


def risk_groups(run: Run) -> tuple[Any, np.ndarray]:
    """Cases of the main part, and which of them are in the high-risk group."""
    cases = run.predictions.part(run.reported_part).cases.reset_index(drop=True)
    if "high_risk" in cases:
        return cases, cases["high_risk"].to_numpy(bool)
    return cases, metrics.high_risk(cases["risk"], run.metrics["risk_cut"])


def _labels(found: Sequence[Run]) -> list[str]:
    """The model's name, with the run's where two runs have the same model."""
    counts = Counter(run.metrics["model"] for run in found)
    return [
        run.metrics["model"] if counts[run.metrics["model"]] == 1 else f"{run.metrics['model']} ({run.name})"
        for run in found
    ]


def _model(run: Run, label: str, key: str) -> Model:
    part = run.reported_part
    cases, high = risk_groups(run)
    groups = run.metrics["parts"][part]["case"]["risk_groups"]
    p = summary.p_value(groups["log_rank"]["p"])
    caption = (
        f"{label}: {groups['n_high']} {part} cases with high risk ({groups['events_high']} events), "
        f"{groups['n_low']} with low risk ({groups['events_low']} events); log-rank p {_equals(p)}."
    )
    histories = [network for fold in run.folds() or [run] for _, network in fold.history.groupby("seed")]
    record = run.provenance
    return Model(
        label=label,
        name=run.metrics["model"],
        folder=str(run.path),
        part=_part_name(run),
        row=_cells(run, part),
        curves=figures.survival_curves(
            cases,
            high,
            key=f"{key}-km",
            title=f"Kaplan–Meier curves, {label}",
            description=caption,
            predicted=survivals.predicted_curves(run, cases, high),
        ),
        curves_caption=caption,
        training=figures.training_curves(
            histories,
            key=f"{key}-loss",
            title=f"Training curves, {label}",
            description=f"Training and validation loss of {len(histories)} fitted network(s) by epoch.",
        ),
        settings=_flat(run.config["recipe"]),
        command=record["command"],
        selection=_selection(record.get("selection")),
        made=record["made"],
        features=_features(record.get("features")),
        versions=", ".join(f"{name} {version}" for name, version in sorted(record["versions"].items())),
    )


def _cells(run: Run, part: str) -> dict[str, str]:
    cells = {}
    for level in LEVELS:
        measured = run.metrics["parts"][part][level]
        cells[f"{level}_n"] = f"{measured['n']} ({measured['events']})"
        for name, key in (("c_index", "c"), ("c_index_ipcw", "uno")):
            cells[f"{level}_{key}"] = summary.number(measured[name]["value"])
            cells[f"{level}_{key}_interval"] = summary.interval(measured[name])
        cells[f"{level}_folds"] = summary.fold_mean(run.metrics, level)
        cells[f"{level}_seeds"] = summary.seed_mean(run.metrics, level)
        cells[f"{level}_seeds_interval"] = summary.seed_interval(run.metrics, level)
    return cells


def _comparison(found: Sequence[Run], labels: Sequence[str]) -> Markup:
    bars = []
    for run, label in zip(found, labels, strict=True):
        for level in LEVELS:
            estimate = run.metrics["parts"][run.reported_part][level]["c_index"]
            bars.append(
                figures.Bar(
                    model=label, level=summary.LEVEL_NAMES[level], value=estimate["value"],
                    low=estimate.get("low"), high=estimate.get("high"),
                )
            )  # fmt: skip
    said = "; ".join(f"{bar.model}, {bar.level} level: {summary.number(bar.value)}" for bar in bars)
    return figures.comparison(bars, key="ci", title="C-index of every model with its interval", description=said)


def _warnings(found: Sequence[Run]) -> list[str]:
    """What a reader must know before any number."""
    warnings = []
    stores = [run.provenance.get("store_recipe") or {} for run in found]
    if any(_encoder(store).get("weights") == "random" for store in stores):
        warnings.append(
            "The encoder's weights are random: the tile features were not learnt from any image, "
            "and these numbers say nothing about what slides can tell."
        )
    if len({tuple(run.provenance["cases"]) for run in found}) > 1:
        warnings.append(
            "The runs were not measured on the same patients, so their numbers cannot be compared row by row. "
            "Train with --complete-cases to give every model the same ones."
        )
    elif len({tuple(run.predictions.part(run.reported_part).cases["case_id"]) for run in found}) > 1:
        warnings.append("The runs were measured on different parts of the cohort: their splits differ.")
    if len({run.provenance["digests"].get("store") for run in found} - {None}) > 1:
        warnings.append("The runs read stores of different recipes.")
    return warnings


def _grouped(
    found: Sequence[Run], labels: Sequence[str], describe: Callable[[Run], dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """What runs have in common, once, with the models that share it."""
    groups: dict[str, dict[str, Any]] = {}
    for run, label in zip(found, labels, strict=True):
        described = describe(run)
        if described is not None:
            groups.setdefault(repr(described), {**described, "models": []})["models"].append(label)
    return list(groups.values())


def _cohort(run: Run) -> dict[str, Any]:
    join = run.provenance["join"]
    lines = [(words, _count(join.get(name))) for name, words in JOIN_COUNTS.items()]
    used = [("cases used", len(run.provenance["cases"])), ("slides used", len(run.provenance["slides"]))]
    return {"counts": [*((words, count) for words, count in lines if count), *used]}


def _store(run: Run) -> dict[str, Any] | None:
    recipe = run.provenance.get("store_recipe")
    if not recipe:
        return None
    digest = run.provenance["digests"]["store"]
    return {"path": run.config["data"].get("store", ""), "digest": digest, "recipe": _flat(recipe)}


def _methods(run: Run) -> dict[str, Any]:
    method = {**run.metrics["method"], "tau_months": f"{run.metrics['method']['tau_months']:.1f} months"}
    return {"lines": [(words, method[name]) for name, words in METHODS.items() if name in method]}


def _reasons(run: Run, label: str) -> list[str]:
    """Why a number of the main part is missing."""
    part = run.metrics["parts"][run.reported_part]
    found = [
        (f"{summary.LEVEL_NAMES[level]}-level {words}", part[level][name].get("reason"))
        for level in LEVELS
        for name, words in (("c_index", "C-index"), ("c_index_ipcw", "Uno’s C-index"))
    ]
    found.append(("log-rank test", part["case"]["risk_groups"]["log_rank"].get("reason")))
    return [f"{label}, {name}: {reason}" for name, reason in found if reason]


def _part_name(run: Run) -> str:
    folds = run.kind == runs.CROSS_VALIDATION
    part = f"out-of-fold, {len(run.config['folds'])} folds" if folds else "test part"
    n_seeds = summary.n_seeds(run.metrics)
    return part if n_seeds == 1 else f"{part}, ensemble of {n_seeds} seeds"


def _selection(record: Mapping[str, Any] | None) -> str:
    if not record:
        return ""
    chosen = ", ".join(f"{name} (fold {fold})" for fold, name in record["chosen"].items())
    return (
        f"{record['n_settings_tried']} settings were tried on {record['inner_folds']} inner folds of each training "
        f"part, by the {record['measure']}; no test part was looked at. Chosen: {chosen}."
    )


def _features(record: Mapping[str, Any] | None) -> str:
    if not record:
        return ""
    gigabytes = [f"{record[name] / 1e9:.2f} GB" if record.get(name) else "" for name in ("bytes", "memory")]
    return f"{record['reading']}, {gigabytes[0]}" + (f" in a budget of {gigabytes[1]}" if gigabytes[1] else "")


def _encoder(store: Mapping[str, Any]) -> Mapping[str, Any]:
    encoder = store.get("encoder")
    return encoder if isinstance(encoder, Mapping) else {}


def _flat(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, _text(value)) for key, value, _ in differences(table, {}) if value is not None]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _count(value: Any) -> str:
    if isinstance(value, list | tuple):
        value = len(value)
    return "" if value in (None, 0) else str(value)


def _equals(p: str) -> str:
    return p if p.startswith("<") else "is not defined" if p == summary.NONE else f"= {p}"
