"""From a cohort to what networks are given: scales fitted on the training part, and values of patients on these scales.

Shape suffixes: P patients, G genes, C clinical columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmsurv_train.bags import Bags
from mmsurv_train.clinical import ClinicalCoding
from mmsurv_train.discrete import time_edges
from mmsurv_train.gene_sets import read_gene_sets
from mmsurv_train.models.known import Known
from mmsurv_train.patients import modalities_of
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort


def fit_scales(
    recipe: TrainRecipe, train: list[str], cohort: Cohort, bags: Bags | None, slides: dict[str, list[str]]
) -> Preprocess:
    """Everything that is fitted on the training patients before any network is.

    Args:
        recipe: says what the model looks at.
        train: the training patients.
        cohort, bags: their data.
        slides: slides with features of each case.
    """
    features = clinical = rna = None
    if recipe.needs_tiles and bags is not None:
        features = bags.statistics([slide for case in train for slide in slides.get(case, [])])
    if "clinical" in recipe.inputs:
        clinical = ClinicalCoding.fit(cohort.cases.loc[train, list(recipe.clinical.columns)], rare=recipe.clinical.rare)
    if recipe.needs_rna and cohort.rna is not None:
        rna = cohort.rna.loc[[case for case in train if case in cohort.rna.index]]
    found = Preprocess.fit(rna, recipe.rna, features=features, clinical=clinical)
    if recipe.model.name == "co-attention":
        sets = read_gene_sets(Path(str(recipe.model.gene_sets))).matched(found.genes, least=recipe.model.least_genes)
        found = dataclasses.replace(found, gene_sets=sets)
    if recipe.fit.loss == "nll":
        outcomes = cohort.cases.loc[train]
        edges = time_edges(outcomes["time"].to_numpy(float), outcomes["event"].to_numpy(bool), recipe.fit.nll_bins)
        found = dataclasses.replace(found, time_edges=edges)
    return found


def known_of(
    case_ids: Sequence[str],
    preprocess: Preprocess,
    recipe: TrainRecipe,
    cohort: Cohort,
    bags: Bags | None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Known:
    """What a network knows of some patients besides their tiles, (1, P, …).

    Args:
        case_ids: of the cohort; one may stand several times.
        preprocess: the network's scales.
        recipe: says what it looks at, and whether patients may lack it.
        cohort, bags: the data.
        dtype, device: of the values.

    Returns:
        Values with zeros for patients without, and who has what where patients may lack something.
    """
    having = modalities_of(recipe, cohort, bags)
    rna = clinical = None
    if preprocess.n_genes and cohort.rna is not None:
        with_rna = [row for row, case in enumerate(case_ids) if case in having["rna"]]
        rna = torch.zeros(len(case_ids), preprocess.n_genes, dtype=dtype)
        scaled = preprocess.rna(cohort.rna.loc[[case_ids[row] for row in with_rna]])
        rna[with_rna] = torch.from_numpy(scaled).to(dtype)
        rna = rna[None].to(device)
    if preprocess.clinical is not None:
        table = cohort.cases.loc[list(case_ids), list(recipe.clinical.columns)]
        clinical = torch.from_numpy(preprocess.clinical.matrix(table)).to(dtype)[None].to(device)
    has = {}
    if recipe.may_lack:
        has = {name: torch.tensor([[case in ids for case in case_ids]]).to(device) for name, ids in having.items()}
    return Known(rna=rna, clinical=clinical, has=has)
