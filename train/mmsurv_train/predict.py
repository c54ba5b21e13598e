"""Risks of cases and slides from fitted models.

Owns how slides' risks become a case's, and networks' risks a model's. A case's risk is that of its own bag where bags
are cases, and the mean of its slides' risks where bags are slides. A model's risk is the mean of its networks'.

Shape suffixes: M networks, B bags, D feature dim, R rows of u.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmsurv.errors import ConfigError
from mmsurv_train.bags import Bags
from mmsurv_train.fusion import Pooled, SurvivalModel
from mmsurv_train.patients import scorable_cases, slides_of
from mmsurv_train.pool import softmax_pool_each
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv_train.fit import Fitted


@dataclass(frozen=True, kw_only=True)
class RiskTables:
    """Risks of a cohort; higher means an earlier death. ``risk_0``, … are its networks', if it has several."""

    slides: pd.DataFrame
    """slide_id, case_id, risk[, risk_0, …]: of a slide's own bag."""
    cases: pd.DataFrame
    """case_id, risk[, risk_0, …]: of the case's own bag, or the mean of its slides' risks where bags are slides."""


@dataclass(frozen=True)
class Member:
    """A model that predicts, with its scales and the recipe that says which bags it sees."""

    model: SurvivalModel
    preprocess: Preprocess
    recipe: TrainRecipe


def predict(
    fitted: Fitted | tuple[SurvivalModel, Preprocess], recipe: TrainRecipe, cohort: Cohort, bags: Bags | None
) -> RiskTables:
    """Risks of all cases and slides of a cohort that have what the model needs.

    Args:
        fitted: from ``fit``, or a model and its preprocessing.
        recipe: the one it was fitted by: which bags, how many tiles, which device.
        cohort: patients; those without RNA or slides the model needs are left out, with a warning.
        bags: features of the cohort's slides; may be None for the model ``rna``, which gives each slide the risk of
            its case.

    Raises:
        CohortError: genes of the model are missing, or no case has what it needs.
        ValueError: features of another width than the model's.
    """
    model, preprocess = fitted if isinstance(fitted, tuple) else (fitted.model, fitted.preprocess)
    return predict_many([(model, preprocess, recipe)], cohort, bags)[0]


def predict_many(
    members: Sequence[tuple[SurvivalModel, Preprocess, TrainRecipe]], cohort: Cohort, bags: Bags | None
) -> list[RiskTables]:
    """Risks by many models; those that see the same bags, such as the folds of a cross-validation, in one read of them.

    The bits of a model's risks do not depend on which others are asked with it.

    Args:
        members: models, each with its scales and the recipe it was fitted by.
        cohort, bags: as for ``predict``, which says what is raised.
    """
    alike: dict[Any, list[int]] = {}
    for index, (_, _, recipe) in enumerate(members):
        alike.setdefault((recipe.model.name, recipe.bags, recipe.fit.device), []).append(index)
    found: dict[int, RiskTables] = {}
    for indices in alike.values():
        together = [Member(*members[index]) for index in indices]
        found |= dict(zip(indices, _predict_alike(together, cohort, bags), strict=True))
    return [found[index] for index in range(len(members))]


def _predict_alike(members: Sequence[Member], cohort: Cohort, bags: Bags | None) -> list[RiskTables]:
    """Risks by models of one name and one [bags] table."""
    recipe = members[0].recipe
    device = find_device(recipe.fit.device)
    bags = bags.to(device) if bags is not None and recipe.model.needs_tiles else None
    cases = scorable_cases(recipe.model, cohort, bags)
    asked = _Asked.of(cases, cohort, bags, recipe)
    risks = _risks(members, cohort, bags, asked, device)
    return [asked.tables(risk_MB.double(), cohort) for risk_MB in risks]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Whose risk is asked: the bags of cases, then those of slides that are not a case's only ones."""

    cases: list[str]
    owner: list[str]
    """Case of each bag."""
    slides: list[list[str]]
    """Slides of each bag."""
    size: int
    case_places: list[list[int]]
    """Bags whose mean risk is a case's."""
    slide_places: dict[str, int]
    """Bag of each slide; empty without tiles."""

    @classmethod
    def of(cls, cases: list[str], cohort: Cohort, bags: Bags | None, recipe: TrainRecipe) -> _Asked:
        size = recipe.bags.size if recipe.bags.at_prediction == "size" else 0
        if bags is None:
            return cls(cases, cases, [[] for _ in cases], size, [[place] for place in range(len(cases))], {})
        owned = slides_of(cohort, bags)
        owner, slides, case_places, slide_places = list[str](), list[list[str]](), list[list[int]](), dict[str, int]()
        for case in cases:
            first = len(slides)
            whole = recipe.bags.unit == "case" and len(owned[case]) > 1
            slides += ([owned[case]] if whole else []) + [[slide] for slide in owned[case]]
            owner += [case] * (len(slides) - first)
            case_places.append([first] if whole else list(range(first, len(slides))))
            slide_places |= {slide: first + whole + place for place, slide in enumerate(owned[case])}
        return cls(cases, owner, slides, size, case_places, slide_places)

    def tables(self, risk_MB: Tensor, cohort: Cohort) -> RiskTables:
        by_case = torch.stack([risk_MB[:, places].mean(1) for places in self.case_places], 1)
        cases = pd.DataFrame({"case_id": self.cases, **_columns(by_case)})
        if not self.slide_places:
            slides = cohort.slides[cohort.slides["case_id"].isin(self.cases)]
            return RiskTables(slides=slides.merge(cases, on="case_id", how="left"), cases=cases)
        names = sorted(self.slide_places)
        places = [self.slide_places[name] for name in names]
        owners = [self.owner[place] for place in places]
        slides = pd.DataFrame({"slide_id": names, "case_id": owners, **_columns(risk_MB[:, places])})
        return RiskTables(slides=slides, cases=cases)


def _columns(risk_MB: Tensor) -> dict[str, np.ndarray]:
    columns = {"risk": risk_MB.mean(0).numpy()}
    if len(risk_MB) > 1:
        columns |= {f"risk_{m}": risk_B.numpy() for m, risk_B in enumerate(risk_MB)}
    return columns


@torch.no_grad()
def _risks(
    members: Sequence[Member], cohort: Cohort, bags: Bags | None, asked: _Asked, device: torch.device
) -> list[Tensor]:
    """Risks (M, B) of each member, without dropout, on the CPU."""
    models = [copy.deepcopy(member.model).to(device).eval() for member in members]
    rnas = [_rna(member, model, cohort, asked.owner, device) for member, model in zip(members, models, strict=True)]
    pooled = _pooled(models, rnas, bags, asked)
    return [model.answer(rna_MBG, found).cpu() for model, rna_MBG, found in zip(models, rnas, pooled, strict=True)]


def _rna(member: Member, model: SurvivalModel, cohort: Cohort, owner: list[str], device: torch.device) -> Tensor | None:
    if not member.preprocess.n_genes or cohort.rna is None:
        return None
    rna_BG = torch.from_numpy(member.preprocess.rna(cohort.rna.loc[owner])).to(device)
    return rna_BG.expand(model.networks, -1, -1)


def _pooled(
    models: Sequence[SurvivalModel], rnas: Sequence[Tensor | None], bags: Bags | None, asked: _Asked
) -> list[Pooled]:
    if bags is None:
        return [None for _ in models]
    if models[0].pools == "mean":
        if asked.size:
            mean_BD = bags.draw(asked.slides, size=asked.size).means()
        else:
            mean_BD = torch.cat([bags.mean(slides) for slides in asked.slides])
        return [mean_BD[None] for _ in models]
    us_BMRD = [model.ask(rna).transpose(0, 1) for model, rna in zip(models, rnas, strict=True)]
    zs_BXD = softmax_pool_each([u_BMRD.flatten(1, 2) for u_BMRD in us_BMRD], bags.draw(asked.slides, size=asked.size))
    pooled: list[Pooled] = []
    for z_BXD, u_BMRD in zip(zs_BXD, us_BMRD, strict=True):
        z_MBRD = z_BXD.view(u_BMRD.shape).transpose(0, 1)
        pooled.append((z_MBRD, z_MBRD.new_ones(z_MBRD.shape[:3])))
    return pooled


def find_device(name: str) -> torch.device:
    """The device a recipe names; ``auto`` is CUDA where there is one. Raises ConfigError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"fit.device is {name}, and this machine offers none. Use cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"fit.device is {name}, and the last one here is cuda:{torch.cuda.device_count() - 1}.")
    return device


def device_text(device: torch.device) -> str:
    """The device for the record: "cpu", or such as "cuda (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
