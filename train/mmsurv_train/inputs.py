"""What a run reads: tables joined to a cohort, tiles from a store, and the digests that tell whether they changed.

Owns the choice of patients a model can score and the identity of the data. Training loads inputs and records their
digests; evaluation loads them again and refuses others.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsurv import provenance
from mmsurv.cohort.options import CohortOptions
from mmsurv.config import from_table, to_table
from mmsurv.errors import CohortError, ConfigError, RunError
from mmsurv_train.modalities import LOOKS, Modality
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.store import FeatureStore
    from mmsurv_train.bags import Bags


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a run's data are."""

    cohort: CohortOptions
    store: str | None = None
    complete_cases: bool = False
    """Keep only the cases with slides and RNA, whatever the model needs, so that models meet the same patients."""
    memory: int | None = None
    """Most bytes of tile features held at once; None: half of what is free. It changes no number."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A run's data: only cases the model can score."""

    cohort: Cohort
    store: FeatureStore | None
    bags: Bags | None
    """None before :func:`read_features`, and for a model without tiles."""
    digests: dict[str, Any]
    """clinical and rna (SHA-256 of the files), store (its recipe's), records (features_sha256 by slide)."""
    join: dict[str, Any]
    """The cohort's join report, and how many cases the model cannot score."""
    left_out: dict[str, list[str]]
    """Cases with an outcome that are not used, by what they lack."""
    floors: dict[str, Any] = field(default_factory=dict, compare=False)
    """Floors that were fitted on these data (``results``), so that configurations share them."""

    def notices(self, model: str) -> list[str]:
        """Lines for people: what did not join, and which cases the model cannot use."""
        report = self.cohort.report.to_text().splitlines()
        lines = list(dropwhile(lambda line: not line.startswith("not joined"), report))
        return lines + [
            f"left out  {len(ids)} of {self.join['n_cases']} cases, not used for {model}: no {what} ({_some(ids)})"
            for what, ids in self.left_out.items()
        ]


def join_tables(
    recipe: TrainRecipe,
    sources: Sources,
    *,
    only: Mapping[str, list[str]] | None = None,
    predicted_by: Path | None = None,
) -> Inputs:
    """Join the tables and keep what the model can score; no feature is read yet.

    Args:
        recipe: says what the model looks at.
        sources: tables and store.
        only: ``slides`` and ``cases`` of an earlier run, to which the cohort is restricted.
        predicted_by: the run whose models are to predict these patients. Then cases without an outcome are kept; and
            where patients may lack modalities, a table or store that is not given is what nobody has.

    Raises:
        ConfigError: the model needs RNA or tiles, and there is no table or store.
        CohortError: the tables cannot be believed, or no case is left.
        StoreError: no store.
        RunError: a slide or case of ``only`` is gone.
    """
    from mmsurv.cohort import load_cohort
    from mmsurv.cohort.reading import read_columns
    from mmsurv.store import open_store

    recipe.require_complete()
    may_be_absent = predicted_by is not None and recipe.may_lack and not sources.complete_cases
    if sources.store is None and not may_be_absent and (recipe.needs_tiles or sources.complete_cases):
        raise ConfigError(
            f"the model {recipe.model.name!r} needs tile features: name their store with --store"
            f"{_or_leave(recipe, 'wsi')}."
        )
    store = open_store(sources.store) if sources.store is not None else None
    columns = recipe.clinical.columns
    without = may_be_absent and columns and not set(columns) & set(read_columns(Path(sources.cohort.clinical)))
    whole = load_cohort(
        with_columns(sources.cohort, () if without else columns),
        store_slides=None if store is None else store.slide_ids(),
        outcome_optional=predicted_by is not None,
        named_by={} if predicted_by is None else dict.fromkeys(columns, f"the models of {predicted_by} look at"),
    )
    if without:
        whole = dataclasses.replace(whole, cases=whole.cases.assign(**dict.fromkeys(columns)))
    if may_be_absent:
        if store is None:
            whole = whole.restrict(slide_ids=())  # the table may name slides, of which nothing is known
        _require_something(whole, recipe, store)
    left_out = {} if only else _left_out(whole, recipe, sources, rna_may_be_absent=may_be_absent)
    cohort = _restrict_to_earlier(whole, only, sources) if only else _scorable(whole, recipe, left_out)
    join = {**whole.report.to_table(), "cases_without_what_the_model_needs": len(whole.cases) - len(cohort.cases)}
    records = cohort.slides["slide_id"].tolist() if recipe.needs_tiles else []
    digests = _digests(sources, store, records)
    return Inputs(cohort=cohort, store=store, bags=None, digests=digests, join=join, left_out=left_out)


def read_features(
    data: Inputs, recipe: TrainRecipe, sources: Sources, *, on_slide: Callable[[int], None] = lambda _n_slides: None
) -> Inputs:
    """The inputs with the tiles of their slides, if the model needs them.

    Args:
        data: from :func:`join_tables`, for the same recipe and sources.
        recipe, sources: as there.
        on_slide: called after every slide read, with how many there are to read.

    Raises:
        StoreError: a record that is damaged.
        MmsurvError: features that are not finite, or a memory budget that cannot hold one bag.
    """
    if not recipe.needs_tiles or data.store is None:
        return data
    from mmsurv_train.bags import Bags
    from mmsurv_train.bags.neighbours import warn_of_samples

    if recipe.model.name == "patch-gcn":
        warn_of_samples(data.store, data.cohort.slides["slide_id"])
    n_slides = len(data.cohort.slides)
    bags = Bags.for_cohort(
        data.store, data.cohort, memory=sources.memory, on_slide=lambda _slide_id: on_slide(n_slides)
    )
    return dataclasses.replace(data, bags=bags)


def check_tables(sources: Sources, recorded: Mapping[str, Any], *, run: Path) -> None:
    """Refuse tables that are not those of the run, before they are joined: what would not join is then no riddle.

    Raises:
        RunError: names the table that changed.
    """
    for name in ("clinical", "rna"):
        path = getattr(sources.cohort, name)
        found = None if path is None else provenance.file_digest(Path(path))
        if found != recorded.get(name):
            raise RunError(
                f"{run}: the {name} table is not the one the run was made from "
                f"({path}, SHA-256 {_short(recorded.get(name))} → {_short(found)}). "
                f"Give the original with --{name}, or train again."
            )


def check_digests(inputs: Inputs, recorded: Mapping[str, Any], *, run: Path) -> None:
    """Refuse features that are not those of the run.

    Raises:
        RunError: names the store or the record that changed.
    """
    found = inputs.digests
    if found.get("store") != recorded.get("store"):
        raise RunError(
            f"{run}: the store was made by another recipe than the run's "
            f"({_short(recorded.get('store'))} → {_short(found.get('store'))}). "
            "Give the run's store with --store, or train again."
        )
    before, now = recorded.get("records", {}), found.get("records", {})
    changed = [slide for slide in sorted(before) if now.get(slide) != before[slide]]
    if changed:
        raise RunError(
            f"{run}: {len(changed)} of {len(before)} slide records are not those the run was made from: "
            f"{_some(changed)}. Train again on the store as it is now."
        )


def sources_table(sources: Sources, *, run: Path) -> dict[str, Any]:
    """The ``[cohort]`` and ``[data]`` tables of config.toml: each path absolute, and relative to the run's place."""
    cohort = dataclasses.replace(
        sources.cohort,
        clinical=str(Path(sources.cohort.clinical).absolute()),
        rna=None if sources.cohort.rna is None else str(Path(sources.cohort.rna).absolute()),
    )
    store = None if sources.store is None else str(Path(sources.store).absolute())
    paths = {"clinical": cohort.clinical, "rna": cohort.rna, "store": store}
    from_run = {name: os.path.relpath(path, run.absolute()) for name, path in paths.items() if path is not None}
    data: dict[str, Any] = {"complete_cases": sources.complete_cases, "from_run": from_run}
    if store is not None:
        data["store"] = store
    return {"cohort": to_table(cohort), "data": data}


def read_sources(
    config: Mapping[str, Any],
    *,
    run: Path,
    store: str | None,
    clinical: str | None,
    rna: str | None,
    memory: int | None = None,
) -> Sources:
    """The sources of a recorded run, with other places for them where given.

    A recorded path that is gone is looked for at the same place relative to the run, so a folder that holds both
    may be moved.

    Raises:
        RunError: a table or the store is at neither place.
    """
    data = config["data"]
    given = {"clinical": clinical, "rna": rna, "store": store}
    recorded = {**config["cohort"], "store": data.get("store")}
    found: dict[str, str | None] = {}
    for name, option in given.items():
        if recorded.get(name) is None:
            if option is not None:
                raise RunError(f"{run} was made without --{name}.")
            found[name] = None
        else:
            found[name] = option or _find(Path(recorded[name]), data["from_run"].get(name), name, run)
    table = {**config["cohort"], **{key: found[key] for key in ("clinical", "rna") if found[key] is not None}}
    cohort = from_table(CohortOptions, table, source=str(run / "config.toml"), where="cohort.")
    return Sources(cohort=cohort, store=found["store"], complete_cases=data["complete_cases"], memory=memory)


def _find(absolute: Path, from_run: str | None, name: str, run: Path) -> str:
    relative = absolute if from_run is None else (run / from_run).resolve()
    for path in (absolute, relative):
        if path.exists():
            return str(path)
    raise RunError(f"{run}: the run's {name} is neither at {absolute} nor at {relative}. Say where with --{name}.")


def gene_sets_digest(recipe: TrainRecipe) -> str | None:
    """SHA-256 of the file of gene sets, where the model takes any: a training is not gone on with by another.

    Raises:
        CohortError: it cannot be read.
    """
    path = recipe.model.gene_sets
    if recipe.model.name != "co-attention" or path is None:
        return None
    try:
        return provenance.file_digest(Path(path))
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error.strerror}).") from error


def with_columns(options: CohortOptions, columns: Sequence[str]) -> CohortOptions:
    """The options with further clinical columns to be read."""
    further = [name for name in columns if name not in options.clinical_columns]
    return dataclasses.replace(options, clinical_columns=(*options.clinical_columns, *further))


def absent(cohort: Cohort, recipe: TrainRecipe, store: FeatureStore | None) -> list[Modality]:
    """The recipe's inputs of which nothing at all was given."""
    clinical = cohort.cases[list(recipe.clinical.columns)]
    there = {"wsi": store is not None, "rna": cohort.rna is not None, "clinical": bool(clinical.notna().any(axis=None))}
    return [name for name in recipe.inputs if not there[name]]


def _require_something(cohort: Cohort, recipe: TrainRecipe, store: FeatureStore | None) -> None:
    """Raises ConfigError: patients may lack what the model looks at, but nothing at all of it was given."""
    if len(absent(cohort, recipe, store)) == len(recipe.inputs):
        columns = ", ".join(map(repr, recipe.clinical.columns))
        words = {"wsi": "--store", "rna": "--rna", "clinical": f"a clinical table with {columns}"}
        raise ConfigError(
            f"the model {recipe.model.name!r} can do without one input, not without all: give "
            f"{' or '.join(words[name] for name in recipe.inputs)}."
        )


def _or_leave(recipe: TrainRecipe, modality: Modality) -> str:
    """A further remedy where the model can do without: patients may lack it, but someone must have it to learn from."""
    if not recipe.may_lack or modality not in recipe.inputs or modality in LOOKS[recipe.model.name].needs:
        return ""
    others = " ".join(f"--input {name}" for name in recipe.inputs if name != modality)
    return f", or look at the others only ({others})"


def _left_out(
    cohort: Cohort, recipe: TrainRecipe, sources: Sources, *, rna_may_be_absent: bool
) -> dict[str, list[str]]:
    """Cases without what the model (or ``complete_cases``) asks for, by what it is; a case may lack both."""
    import pandas as pd

    asked: dict[str, Any] = {}
    if recipe.needs_tiles or sources.complete_cases:
        asked["slide in the store"] = cohort.slides["case_id"]
    if recipe.needs_rna or sources.complete_cases:
        if cohort.rna is None and not rna_may_be_absent:
            raise ConfigError(
                f"the model {recipe.model.name!r} needs RNA: name the table with --rna{_or_leave(recipe, 'rna')}."
            )
        asked["RNA"] = pd.Index([]) if cohort.rna is None else cohort.rna.index
    if "clinical" in recipe.inputs:
        asked["clinical variable"] = cohort.cases.index[cohort.cases[list(recipe.clinical.columns)].notna().any(axis=1)]
    cases = cohort.cases.index
    if recipe.may_lack and not sources.complete_cases:  # one input is enough
        having = pd.Index(sorted(set().union(*map(set, asked.values()))))
        asked = {" or ".join(asked): having}
    lacking = {what: cases[~cases.isin(having)].tolist() for what, having in asked.items()}
    return {what: ids for what, ids in lacking.items() if ids}


def _scorable(cohort: Cohort, recipe: TrainRecipe, left_out: Mapping[str, list[str]]) -> Cohort:
    gone = {case for ids in left_out.values() for case in ids}
    keep = [case for case in cohort.cases.index if case not in gone]
    if not keep:
        raise CohortError(
            f"no case has what the model {recipe.model.name!r} needs.\n{cohort.report.to_text()}\n"
            "Do the ids of the tables and the store agree? See --id-rule."
        )
    return cohort.restrict(case_ids=keep)


def _restrict_to_earlier(cohort: Cohort, only: Mapping[str, list[str]], sources: Sources) -> Cohort:
    clinical = (sources.cohort.clinical, "clinical")
    slides_in = clinical if sources.store is None else (sources.store, "store")
    for name, found, (place, option) in (
        ("slide", set(cohort.slides["slide_id"]), slides_in),
        ("case", set(cohort.cases.index), clinical),
    ):
        earlier = only[f"{name}s"]
        gone = sorted(set(earlier) - found)
        if gone:
            raise RunError(
                f"{place}: {len(gone)} of the run's {len(earlier)} {name}s are no longer there: {_some(gone)}. "
                f"Give the data it was made from with --{option}, or train again."
            )
    return cohort.restrict(case_ids=only["cases"], slide_ids=only["slides"])


def _digests(sources: Sources, store: FeatureStore | None, slide_ids: list[str]) -> dict[str, Any]:
    digests: dict[str, Any] = {"clinical": provenance.file_digest(Path(sources.cohort.clinical))}
    if sources.cohort.rna is not None:
        digests["rna"] = provenance.file_digest(Path(sources.cohort.rna))
    if store is not None:
        digests["store"] = store.recipe_sha256
        digests["records"] = {slide_id: str(store.attributes(slide_id)["features_sha256"]) for slide_id in slide_ids}
    return digests


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")


def _short(digest: Any) -> str:
    return "none" if digest is None else f"{str(digest)[:12]}…"
