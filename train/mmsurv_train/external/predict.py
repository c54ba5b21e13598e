"""From a run and another cohort to risks: join, align, check, read, predict, measure.

Owns the order of these steps and what is refused before any feature is read. Nothing is fitted here: scales, baseline
hazards, the cut of the risk groups and the reference of Uno's C-index are the run's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmsurv import provenance
from mmsurv.config import from_table, replace
from mmsurv.errors import RecipeMismatchError, RunError
from mmsurv_train import inputs, metrics, scores, seeds, strata, survival
from mmsurv_train import run as runs
from mmsurv_train.evaluate import load_model
from mmsurv_train.external import risks
from mmsurv_train.external.genes import Aligned, align
from mmsurv_train.external.seen import seen_cases
from mmsurv_train.inputs import Inputs, Sources
from mmsurv_train.level import measure_survival
from mmsurv_train.predict import RiskTables, predict_many
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.run import Run
from mmsurv_train.unfinished import threads

if TYPE_CHECKING:
    from mmsurv_train.models import SurvivalModel
    from mmsurv_train.preprocess import Preprocess

PART = "external"


@dataclass(frozen=True, kw_only=True, eq=False)
class External:
    """What the run's models say of another cohort."""

    run: Run
    recipe: TrainRecipe
    sources: Sources
    data: Inputs
    risks: RiskTables
    survival: pd.DataFrame
    """Index case_id, columns survival_12, …"""
    seen: dict[str, str]
    """Cases the models know already, with how that is known; not in the metrics."""
    genes: Aligned | None
    """None for models without RNA."""
    metrics: dict[str, Any] | None
    """None where no unseen case has an outcome."""
    warnings: list[str]

    @property
    def has_outcomes(self) -> bool:
        return bool(self.data.cohort.cases["time"].notna().any())


def predict_external(
    path: Path,
    sources: Sources,
    *,
    least_genes: float = 0.9,
    device: str | None = None,
    stratum: str | None = None,
    on_slide: Callable[[int], None] = lambda _n_slides: None,
) -> External:
    """Predict the patients of another cohort.

    Args:
        path: run folder of one split or of a cross-validation.
        sources, least_genes: its tables and store; the share of a model's genes that must be in its RNA table.
        device, on_slide: another device than the run's; told of every slide read.
        stratum: a column of the clinical table: case-level results also for each of its values.

    Raises:
        RunError, RecipeMismatchError: not a run; the store's features were made by another recipe.
        CohortError: the tables cannot be believed, lack genes, or have no case with what the model needs.
    """
    asked = _Asked.open(path, device)
    _check_store(asked, sources)
    evaluate = dataclasses.replace(asked.recipe.evaluate, stratum=None)
    evaluate = replace(evaluate, "--stratum", stratum=stratum)
    sources = dataclasses.replace(sources, cohort=strata.reading(sources.cohort, [evaluate]))
    data = inputs.join_tables(asked.recipe, sources, predicted_by=path)
    chosen = strata.stratifications(data.cohort, evaluate)  # refused now, before any feature is read
    _check_clinical(asked, data, sources)
    data, genes = _with_genes(data, asked, least_genes, sources)
    with threads(asked.run.provenance["threads"]):  # as in training: another number may sum in another order
        data = inputs.read_features(data, asked.recipe, sources, on_slide=on_slide)
        tables = predict_many(asked.models, data.cohort, data.bags)
    found = risks.one_scale(asked.run, tables)
    curves = risks.curves(asked.members, tables)
    seen = _seen(asked.run, data, found)
    return External(
        run=asked.run,
        recipe=asked.recipe,
        sources=sources,
        data=data,
        risks=found,
        survival=risks.survival(curves, found.cases),
        seen=seen,
        genes=genes,
        metrics=_measure(asked, data, found, curves, seen, chosen),
        warnings=_warnings(asked.run, asked.recipe, sources, genes, data),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """A run, and the models that predict: its own, or one of each fold."""

    run: Run
    members: Sequence[Run]
    models: Sequence[tuple[SurvivalModel, Preprocess, TrainRecipe]]

    @classmethod
    def open(cls, path: Path, device: str | None) -> _Asked:
        run = runs.read_run(path)
        members = run.folds() or [run]
        models = [(*load_model(member), _on(device, _recipe(member))) for member in members]
        return cls(run=run, members=members, models=models)

    @property
    def recipe(self) -> TrainRecipe:
        return self.models[0][2]

    @property
    def scales(self) -> list[Preprocess]:
        return [scale for _, scale, _ in self.models]


def _recipe(run: Run) -> TrainRecipe:
    return from_table(TrainRecipe, run.config["recipe"], source=str(run.path / runs.CONFIG), where="recipe.")


def _on(device: str | None, recipe: TrainRecipe) -> TrainRecipe:
    if device is None:
        return recipe
    return dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, device=device))


def _check_store(asked: _Asked, sources: Sources) -> None:
    """Refuse features that the model would take for others."""
    if not asked.recipe.needs_tiles or sources.store is None:
        return
    from mmsurv.store import open_store

    run, scale, store = asked.run, asked.scales[0], open_store(sources.store)
    if store.recipe_sha256 != run.provenance["digests"].get("store"):
        difference = provenance.difference_table(run.provenance.get("store_recipe") or {}, store.recipe)
        raise RecipeMismatchError(
            f"{sources.store} was made by another recipe than the store of {run.path} (run's → this one):\n"
            f"{difference}\n"
            "The model knows no such features. Encode the slides by the run's recipe: mmsurv extract --recipe …"
        )
    if store.dim != scale.feature_dim:
        raise RunError(
            f"{run.path}: the model takes {scale.feature_dim} features per tile, and those of {sources.store} have "
            f"{store.dim}. Encode the slides by the run's recipe."
        )


def _check_clinical(asked: _Asked, data: Inputs, sources: Sources) -> None:
    """Raises CohortError: the clinical table has text where the training part had numbers; names table and case."""
    for scale in asked.scales:
        if scale.clinical is not None:
            scale.clinical.check(data.cohort.cases, source=sources.cohort.clinical)


def _with_genes(data: Inputs, asked: _Asked, least: float, sources: Sources) -> tuple[Inputs, Aligned | None]:
    """The data with the models' genes only, where the models see genes."""
    if data.cohort.rna is None or not any(scale.n_genes for scale in asked.scales):
        return data, None
    source = sources.cohort.rna or sources.cohort.clinical
    genes = align(data.cohort.rna, asked.scales, least=least, source=source)
    return dataclasses.replace(data, cohort=dataclasses.replace(data.cohort, rna=genes.profiles)), genes


def _seen(run: Run, data: Inputs, found: RiskTables) -> dict[str, str]:
    """Of the predicted cases those that the models know."""
    records = data.digests.get("records", {})
    return seen_cases(run, found.cases["case_id"].tolist(), found.slides, records)


def _measure(
    asked: _Asked,
    data: Inputs,
    found: RiskTables,
    curves: metrics.SurvivalCurves,
    seen: Mapping[str, str],
    chosen: Sequence[strata.Stratification],
) -> dict[str, Any] | None:
    """metrics.json: of the cases with an outcome that the models do not know."""
    run, recipe, cases = asked.run, asked.recipe, data.cohort.cases
    known = cases.loc[found.cases["case_id"]]
    judged = [case for case in known.index[known["time"].notna()] if case not in seen]
    if not judged:
        return None
    predictions = scores.with_outcomes(found, cases, pd.Series(PART, index=judged))
    compared, cut = _reference(run, recipe), risks.risk_cut(run)
    high = predictions.cases["risk"].to_numpy(float) > cut
    folds = run.kind == runs.CROSS_VALIDATION
    rows = pd.Index(found.cases["case_id"]).get_indexer(pd.Index(predictions.cases["case_id"]))
    predicted = _predicted(run, curves.take(rows))
    part = scores.measure_part(predictions, high, compared, recipe.evaluate)
    part["case"] |= measure_survival(predictions.cases, predicted, compared, recipe.evaluate)
    group = (
        "mean of the folds' standardised training medians" if folds else "median case-level risk of the training part"
    )
    return {
        "format": scores.FORMAT,
        "kind": PART,
        "model": recipe.model.name,
        "method": {
            **scores.method(compared, recipe.evaluate, cut=group, scale=recipe.fit.risk_scale),
            "no_model": "Kaplan-Meier of the run's training part (of folds, of all its patients), also in a stratum",
        },
        "risk_cut": cut,
        "parts": {PART: part},
        "strata": strata.measure_strata(chosen, predictions.cases, predicted, compared, recipe.evaluate),
        "seeds": seeds.measure_seeds(predictions, recipe.fit.seeds, recipe.evaluate),
        "left_out": {"seen": len(seen), "without_outcome": len(known) - len(seen) - len(judged)},
    }


def _training(run: Run) -> pd.DataFrame:
    """The run's patients, to whom the new ones are compared; all of them trained some fold of a cross-validation."""
    return run.predictions.cases if run.kind == runs.CROSS_VALIDATION else run.predictions.part("train").cases


def _reference(run: Run, recipe: TrainRecipe) -> metrics.Reference:
    """Censoring and τ of the run's patients: the cohort's own have no part in them."""
    folds = run.kind == runs.CROSS_VALIDATION
    name = "all patients of the run's cross-validation" if folds else "training part of the run"
    return scores.reference(_training(run), recipe.evaluate, name=name)


def _predicted(run: Run, curves: metrics.SurvivalCurves) -> survival.Predicted:
    training, n_cases = _training(run), len(curves.ends())
    nothing = metrics.kaplan_meier_baseline(training["time"], training["event"])
    without = metrics.Curves([nothing], np.zeros(n_cases, dtype=np.int64), np.zeros(n_cases))
    return survival.Predicted(curves, without, [])  # of the run's patients the strata are not known


WORDS = {"wsi": "slides (--store)", "rna": "RNA profiles (--rna)", "clinical": "clinical variables"}


def _warnings(run: Run, recipe: TrainRecipe, sources: Sources, genes: Aligned | None, data: Inputs) -> list[str]:
    lines = [] if genes is None else genes.warnings()
    absent = inputs.absent(data.cohort, recipe, data.store) if recipe.may_lack else []
    lines += [f"There are no {WORDS[name]}: every patient is predicted as one who has none." for name in absent]
    if genes is not None:
        for name in ("rna_log2", "strip_ensembl_versions"):
            before, now = bool(run.config["cohort"].get(name, False)), getattr(sources.cohort, name)
            if before != now:
                flag, did = f"--{name.replace('_', '-')}", "with" if before else "without"
                lines.append(f"The run's RNA was read {did} {flag}, and this table otherwise. Is that meant?")
    if data.cohort.cases["time"].isna().all():
        lines.append("No case has an outcome, so nothing is measured. See --time-column and --event-column.")
    return lines
