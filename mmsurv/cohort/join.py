"""The join: clinical table, RNA and slides by id, into one cohort.

Owns which records belong together and which are left over. Nothing is joined by row position, and nothing is dropped
without a line in the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mmsurv.cohort.clinical import Clinical, read_clinical
from mmsurv.cohort.ids import case_id_of
from mmsurv.cohort.options import CohortOptions
from mmsurv.cohort.report import JoinReport
from mmsurv.cohort.rna import Rna, read_rna, read_rna_of_clinical
from mmsurv.errors import CohortError


@dataclass(frozen=True)
class Cohort:
    """Cases with an outcome (or all, where outcomes are optional), and what else is known of them."""

    cases: pd.DataFrame
    """Index case_id (sorted): time (months, > 0), event (bool), then the clinical columns asked for. Where outcomes are
    optional, a case without one has time NaN, and its event says nothing."""
    slides: pd.DataFrame
    """Columns slide_id, case_id, sorted by slide_id; slides of ``cases`` only, and in the store where one was given."""
    rna: pd.DataFrame | None
    """Index case_id in the order of ``cases``, but only those with RNA; columns genes; float64, NaN is missing."""
    report: JoinReport
    """Of the whole join, also after :meth:`restrict`."""
    histology: pd.Series | None = None
    """GBM, LGG or None of each of ``cases``, named as the clinical table's column; None where it has no such column."""

    def restrict(self, *, case_ids: Iterable[str] | None = None, slide_ids: Iterable[str] | None = None) -> Cohort:
        """The part of the cohort with these cases, and of their slides these ones; None keeps all.

        Raises:
            CohortError: an id is not of this cohort, or no case is left.
        """
        cases, slides, rna, histology = self.cases, self.slides, self.rna, self.histology
        if case_ids is not None:
            wanted = set(case_ids)
            _refuse_strangers(wanted, cases.index, "case")
            cases = cases[cases.index.isin(wanted)]
            slides = slides[slides["case_id"].isin(wanted)].reset_index(drop=True)
            rna = None if rna is None else rna[rna.index.isin(wanted)]
        if slide_ids is not None:
            wanted = set(slide_ids)
            _refuse_strangers(wanted, self.slides["slide_id"], "slide")
            slides = slides[slides["slide_id"].isin(wanted)].reset_index(drop=True)
        if cases.empty:
            raise CohortError("No case is left in the cohort. Name at least one.")
        histology = None if histology is None else histology.loc[cases.index]
        return replace(self, cases=cases, slides=slides, rna=rna, histology=histology)


def load_cohort(
    options: CohortOptions,
    *,
    store_slides: Iterable[str] | None = None,
    outcome_optional: bool = False,
    named_by: Mapping[str, str] | None = None,
) -> Cohort:
    """Read the tables and join them.

    Args:
        options: which tables, and what their columns mean.
        store_slides: ids of the slides that have features. Where the clinical table lists slides, those of them in
            the store are kept; where it does not, a slide's case follows from its id by ``options.id_rule``.
        outcome_optional: for patients to predict: keep cases without an outcome, and read a table without outcomes.
        named_by: who asks for a further column, where no option does: for the message where it is not there.

    Raises:
        CohortError: a table cannot be believed (the message has file, row and column), no RNA profile belongs to a
            case, or no slide of the store does.
    """
    clinical = read_clinical(options, outcome_optional=outcome_optional, named_by=named_by)
    rna = read_rna(options) if options.rna else read_rna_of_clinical(clinical, options)
    in_store = None if store_slides is None else set(store_slides)
    listed, strangers = _listed_slides(clinical, in_store, options)
    has_outcome = listed["case_id"].isin(clinical.cases.index)
    slides = listed[has_outcome]
    if in_store is not None:
        slides = slides[slides["slide_id"].isin(in_store)]
    slides = slides.reset_index(drop=True)
    if in_store is not None and slides.empty:
        raise _no_slide_joins(clinical, in_store, options)
    profiles = None if rna is None else _profiles(clinical, rna, options)
    report = _Join(clinical, rna, profiles, listed, slides, in_store, strangers).report(options)
    return Cohort(clinical.cases, slides, profiles, report, clinical.histology)


def _listed_slides(
    clinical: Clinical, in_store: set[str] | None, options: CohortOptions
) -> tuple[pd.DataFrame, list[str]]:
    """Slides whose case is known (with or without outcome), and slides of the store whose case is not."""
    if clinical.slides is not None:
        return clinical.slides, sorted((in_store or set()) - set(clinical.slides["slide_id"]))
    pairs, strangers = [], []
    for slide_id in sorted(in_store or ()):
        case_id = case_id_of(slide_id, options.id_rule)
        if case_id in clinical.rows:
            pairs.append((slide_id, case_id))
        else:
            strangers.append(slide_id)
    return pd.DataFrame(pairs, columns=["slide_id", "case_id"], dtype=object), strangers


def _profiles(clinical: Clinical, rna: Rna, options: CohortOptions) -> pd.DataFrame:
    """The profiles of the cohort's cases, in the order of its cases."""
    found = clinical.cases.index[clinical.cases.index.isin(rna.profiles.index)]
    if len(found):
        return rna.profiles.loc[found]
    table = options.rna or options.clinical
    cases, genes = clinical.cases.index, rna.profiles.columns
    message = f"{table}: no RNA profile belongs to a case of {options.clinical}: cases are named {cases[0]!r}"
    if genes.isin(cases).any():
        raise CohortError(f"{message}, and so are columns of the RNA table. Transpose it: one row per case.")
    if rna.profiles.empty:
        raise CohortError(f"{message}, but every profile of the table is without values.")
    raise CohortError(
        f"{message}, RNA rows {rna.profiles.index[0]!r}. Use the same ids in both, name the column of the ids with "
        f"--rna-case-column, or for TCGA barcodes say --id-rule tcga."
    )


def _no_slide_joins(clinical: Clinical, in_store: set[str], options: CohortOptions) -> CohortError:
    if not in_store:
        return CohortError("The store holds no slide yet. Run `mmsurv extract` first.")
    named = clinical.slides["slide_id"].iloc[0] if clinical.slides is not None and len(clinical.slides) else None
    expected = f"slides such as {named!r}" if named else f"cases such as {clinical.cases.index[0]!r}"
    remedy = "Name the column of slide ids with --slide-column."
    if options.id_rule == "none" and named is None:
        remedy += " For TCGA slide names, say --id-rule tcga."
    return CohortError(
        f"{options.clinical}: no slide of the store belongs to a case with outcome: the table has {expected}, the "
        f"store {min(in_store)!r}. {remedy}"
    )


def _refuse_strangers(wanted: set[str], known: Iterable[str], kind: str) -> None:
    strangers = sorted(wanted - set(known))
    if strangers:
        raise CohortError(f"{len(strangers)} {kind} ids are not of this cohort, the first {strangers[0]!r}.")


@dataclass(frozen=True)
class _Join:
    """The parts of a join, for its report."""

    clinical: Clinical
    rna: Rna | None
    profiles: pd.DataFrame | None
    listed: pd.DataFrame
    slides: pd.DataFrame
    in_store: set[str] | None
    strangers: list[str]

    @property
    def slides_known(self) -> bool:
        return self.clinical.slides is not None or self.in_store is not None

    def report(self, options: CohortOptions) -> JoinReport:
        cases, columns = self.clinical.cases, self.clinical.columns
        return JoinReport(
            clinical=options.clinical,
            rna=None if self.rna is None else options.rna or options.clinical,
            reading={
                "case": columns.case,
                "slide": columns.slide,
                **self._reading_of_outcome(options),
                "id_rule": options.id_rule,
            },
            n_cases=len(cases),
            n_events=int(cases["event"].sum()),
            months=_months(cases["time"].dropna()),
            cases_without_outcome=self.clinical.without_outcome,
            **self._of_slides(),
            **self._of_rna(),
        )

    def _reading_of_outcome(self, options: CohortOptions) -> dict[str, str | None]:
        outcome = self.clinical.columns.outcome
        if outcome is None:
            return {"time": None, "event": None, "event_coding": None, "time_unit": None}
        return {
            "time": outcome.time,
            "event": outcome.event,
            "event_coding": options.event_coding,
            "time_unit": options.time_unit,
        }

    def _of_slides(self) -> dict[str, Any]:
        if not self.slides_known:
            return {}
        case_ids, with_slides = set(self.clinical.cases.index), set(self.slides["case_id"])
        listed = self.listed["slide_id"]
        return {
            "n_slides": len(self.slides),
            "n_cases_with_slides": len(with_slides),
            "cases_without_slides": _sorted(case_ids - with_slides),
            "slides_without_outcome": _sorted(listed[~self.listed["case_id"].isin(case_ids)]),
            "slides_not_in_store": () if self.in_store is None else _sorted(set(listed) - self.in_store),
            "store_slides_without_case": _sorted(self.strangers),
        }

    def _of_rna(self) -> dict[str, Any]:
        if self.rna is None or self.profiles is None:
            return {}
        case_ids, with_rna = set(self.clinical.cases.index), set(self.profiles.index)
        with_slides = set(self.slides["case_id"])
        missing = self.profiles.isna().sum(axis=0)
        return {
            "n_cases_with_rna": len(with_rna),
            "n_cases_with_both": len(with_slides & with_rna) if self.slides_known else None,
            "n_genes": self.profiles.shape[1],
            "missing_values": int(missing.sum()),
            "genes_with_missing_values": {str(gene): int(n) for gene, n in missing[missing > 0].items()},
            "genes_without_values": tuple(missing.index[missing == len(with_rna)]),
            "cases_without_rna": _sorted(case_ids - with_rna),
            "slides_without_rna": _sorted(self.slides["slide_id"][~self.slides["case_id"].isin(with_rna)]),
            "rna_without_case": _sorted(set(self.rna.profiles.index) - case_ids),
            "rna_without_slides": _sorted(with_rna - with_slides) if self.slides_known else (),
            "rna_without_values": self.rna.without_values,
        }


def _months(time: pd.Series) -> dict[str, float]:
    if time.empty:
        return {}
    return {"least": float(time.min()), "median": float(time.median()), "greatest": float(time.max())}


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids))
