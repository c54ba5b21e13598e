"""From a cohort to what networks are given: scales fitted on the training part, and values of patients on these scales.

Shape suffixes: P patients, G genes, C clinical columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmsurv_train.bags import Bags
from mmsurv_train.clinical import ClinicalCoding
from mmsurv_train.dims import Dims
from mmsurv_train.discrete import time_edges
from mmsurv_train.floors.stacked import fit_stack
from mmsurv_train.frozen import Frozen, principal_components, tile_components
from mmsurv_train.gene_sets import read_gene_sets
from mmsurv_train.modalities import Modality
from mmsurv_train.models.known import Known
from mmsurv_train.patients import modalities_of, slides_of
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


COVARIANCE_TILES = 50_000
"""Tiles from which components are made: a thousand times as many as components, in a second."""


def dims_of(recipe: TrainRecipe, preprocess: Preprocess) -> Dims:
    """What a network of the recipe is built for on these scales."""
    return Dims(
        features=preprocess.feature_dim,
        genes=preprocess.n_genes,
        clinical=0 if preprocess.clinical is None else len(preprocess.clinical.names),
        outputs=1 if preprocess.time_edges is None else len(preprocess.time_edges) - 1,
        base=recipe.has_base or recipe.model.name == "late",
        gene_sets=() if preprocess.gene_sets is None else preprocess.gene_sets.places,
    )


def fit_frozen(
    recipe: TrainRecipe, train: Sequence[str], preprocess: Preprocess, cohort: Cohort, bags: Bags | None
) -> Frozen:
    """What is fitted on the training patients and does not move with the networks.

    Raises:
        SplitError: too few deaths for a penalised regression.
    """
    components = base = None
    if recipe.model.name == "cross-attention" and recipe.model.rna_components:
        values, has = values_of(train, ("rna",), preprocess, recipe, cohort, bags)
        k = min(recipe.model.rna_components, preprocess.n_genes)
        components = principal_components(values["rna"][has["rna"]], k)
    of_tiles = None
    if recipe.model.name == "cross-attention" and recipe.model.tile_components:
        assert bags is not None
        slides = slides_of(cohort, bags)
        covariance_DD = _tile_covariance([one for case in train for one in slides.get(case, [])], preprocess, bags)
        of_tiles = tile_components(covariance_DD, min(recipe.model.tile_components, preprocess.feature_dim))
    late = recipe.model.name == "late"
    if late or recipe.has_base:
        modalities = [name for name in recipe.inputs if late or name != "wsi"]
        values, has = values_of(train, modalities, preprocess, recipe, cohort, bags)
        outcomes = cohort.cases.loc[list(train)]
        time_B, event_B = outcomes["time"].to_numpy(float), outcomes["event"].to_numpy(bool)
        base = fit_stack(values, time_B, event_B, train, has)
    return Frozen(components=components, tile_components=of_tiles, base=base)


def _tile_covariance(slides: Sequence[str], preprocess: Preprocess, bags: Bags) -> np.ndarray:
    """Covariance (D, D) of standardised features over the first rows of each slide, a uniform sample of it."""
    drawn = bags.draw([[slide] for slide in slides], size=max(1, COVARIANCE_TILES // len(slides)))
    total_DD, n_tiles = torch.zeros(bags.dim, bags.dim, dtype=torch.float64), 0
    mean_D, sd_D = (torch.from_numpy(value).float() for value in (preprocess.feature_mean, preprocess.feature_sd))
    for pieces in drawn.pieces(range(len(slides))):
        for piece_nD in pieces:
            x_nD = (piece_nD.cpu().float() - mean_D) / sd_D
            total_DD += (x_nD.T @ x_nD).double()
            n_tiles += len(x_nD)
    return (total_DD / n_tiles).numpy()


def values_of(
    case_ids: Sequence[str],
    modalities: Sequence[Modality],
    preprocess: Preprocess,
    recipe: TrainRecipe,
    cohort: Cohort,
    bags: Bags | None,
) -> tuple[dict[Modality, np.ndarray], dict[Modality, np.ndarray]]:
    """Scaled values of some patients, (B, C) float64 each, and who has them, (B,) bool: RNA, coded clinical variables,
    and as "wsi" the mean tile; zeros where a patient has none."""
    having = modalities_of(recipe, cohort, bags)
    values, has = dict[Modality, np.ndarray](), dict[Modality, np.ndarray]()
    for modality in modalities:
        has[modality] = np.array([case in having[modality] for case in case_ids])
        those = [case for case in case_ids if case in having[modality]]
        found: np.ndarray
        if modality == "rna":
            assert cohort.rna is not None
            found = preprocess.rna(cohort.rna.loc[those])
        elif modality == "clinical":
            assert preprocess.clinical is not None
            found = preprocess.clinical.matrix(cohort.cases.loc[those, list(recipe.clinical.columns)])
        else:
            assert bags is not None
            slides = slides_of(cohort, bags)
            means = torch.cat([bags.mean(slides[case]) for case in those]).cpu().numpy()
            found = (means - preprocess.feature_mean) / preprocess.feature_sd
        all_BC = np.zeros((len(case_ids), found.shape[1]))
        all_BC[has[modality]] = found
        values[modality] = all_BC
    return values, has


def base_of(
    frozen: Frozen,
    case_ids: Sequence[str],
    train: Sequence[int] | np.ndarray,
    preprocess: Preprocess,
    recipe: TrainRecipe,
    cohort: Cohort,
    bags: Bags | None,
) -> tuple[np.ndarray, dict[Modality, np.ndarray]] | None:
    """The base's risks (P,) of all patients, and each modality's share of them: of the training patients (rows
    ``train``, in the order of the fit) those out of fold. None where there is no base."""
    if frozen.base is None or not recipe.has_base:
        return None
    modalities = list(frozen.base.stack.parts)
    values, has = values_of(case_ids, modalities, preprocess, recipe, cohort, bags)
    risk_P = frozen.base.stack.risk(values, has)
    risk_P[train] = frozen.base.out_of_fold
    shares = {}
    for modality, part in frozen.base.stack.parts.items():
        shares[modality] = np.where(has[modality], part.risk(values[modality]), 0.0)
        shares[modality][train] = frozen.base.shares[modality]
    return risk_P, shares


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
    if preprocess.n_genes:
        rna = torch.zeros(len(case_ids), preprocess.n_genes, dtype=dtype)
        with_rna = [row for row, case in enumerate(case_ids) if case in having["rna"]]
        if cohort.rna is not None:
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
