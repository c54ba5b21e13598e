"""Risks of cases and slides from fitted models.

Owns how slides' risks become a case's, and networks' risks a model's. A case's risk is that of its own bag where bags
are cases, and the mean of its slides' risks where bags are slides. A model's risk is the mean of its networks'.

Shape suffixes: M networks, B bags, D feature dim, R rows of u.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmsurv.errors import ConfigError
from mmsurv_train.bags import Bags
from mmsurv_train.modalities import Modality
from mmsurv_train.models import Known, Pooled, SurvivalModel
from mmsurv_train.models.each_bag import Pairs, read_each
from mmsurv_train.patients import scorable_cases, slides_of
from mmsurv_train.pool import softmax_pool_each
from mmsurv_train.prepare import known_of
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
    members: Sequence[tuple[SurvivalModel, Preprocess, TrainRecipe]],
    cohort: Cohort,
    bags: Bags | None,
    *,
    only: Collection[Modality] | None = None,
) -> list[RiskTables]:
    """Risks by many models; those that see the same bags, such as the folds of a cross-validation, in one read of them.

    The bits of a model's risks do not depend on which others are asked with it.

    Args:
        members: models, each with its scales and the recipe it was fitted by.
        cohort, bags: as for ``predict``, which says what is raised.
        only: hide all other modalities from models whose patients may lack some; who has none of these is left out.
    """
    alike: dict[Any, list[int]] = {}
    for index, (_, _, recipe) in enumerate(members):
        key = (recipe.model, recipe.bags, recipe.fit.device, recipe.inputs, recipe.clinical)
        alike.setdefault(key, []).append(index)
    found: dict[int, RiskTables] = {}
    for indices in alike.values():
        together = [Member(*members[index]) for index in indices]
        found |= dict(zip(indices, _predict_alike(together, cohort, bags, only), strict=True))
    return [found[index] for index in range(len(members))]


def _predict_alike(
    members: Sequence[Member], cohort: Cohort, bags: Bags | None, only: Collection[Modality] | None
) -> list[RiskTables]:
    """Risks by models of one name and one [bags] table."""
    recipe = members[0].recipe
    if only is not None and not recipe.may_lack:
        raise ValueError(f"model {recipe.model.name} was not trained for patients who lack a modality")
    device = find_device(recipe.fit.device)
    bags = bags.to(device) if bags is not None and recipe.needs_tiles else None
    cases = scorable_cases(recipe, cohort, bags, only=only)
    asked = _Asked.of(cases, cohort, bags if only is None or "wsi" in only else None, recipe)
    risks = _risks(members, cohort, bags, asked, device, only)
    return [asked.tables(risk_MB.double(), cohort) for risk_MB in risks]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Whose risk is asked: the bags of cases, then those of slides that are not a case's only ones."""

    cases: list[str]
    owner: list[str]
    """Case of each bag."""
    slides: list[list[str]]
    """Slides of each bag; none of a case without tiles."""
    size: int
    case_places: list[list[int]]
    """Bags whose mean risk is a case's."""
    slide_places: dict[str, int]
    """Bag of each slide; empty without tiles."""

    @classmethod
    def of(cls, cases: list[str], cohort: Cohort, bags: Bags | None, recipe: TrainRecipe) -> _Asked:
        size = recipe.bags.size_at_prediction
        if bags is None:
            return cls(cases, cases, [[] for _ in cases], size, [[place] for place in range(len(cases))], {})
        owned: dict[str, list[str]] = {case: [] for case in cases} | slides_of(cohort, bags)
        owner, slides, case_places, slide_places = list[str](), list[list[str]](), list[list[int]](), dict[str, int]()
        for case in cases:
            first = len(slides)
            whole = len(owned[case]) != 1 and (recipe.bags.unit == "case" or not owned[case])
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
    members: Sequence[Member],
    cohort: Cohort,
    bags: Bags | None,
    asked: _Asked,
    device: torch.device,
    only: Collection[Modality] | None,
) -> list[Tensor]:
    """Risks (M, B) of each member, without dropout, on the CPU."""
    models = [copy.deepcopy(member.model).to(device).eval() for member in members]
    knowns = [_known(member, model, cohort, bags, asked, device, only)
              for member, model in zip(members, models, strict=True)]  # fmt: skip
    pooled = _pooled(models, knowns, bags, asked)
    return [model.risks(known, found).cpu() for model, known, found in zip(models, knowns, pooled, strict=True)]


def _known(
    member: Member,
    model: SurvivalModel,
    cohort: Cohort,
    bags: Bags | None,
    asked: _Asked,
    device: torch.device,
    only: Collection[Modality] | None,
) -> Known:
    known = known_of(asked.owner, member.preprocess, member.recipe, cohort, bags, device=device)
    if only is not None:
        known = known.with_only(only)
    return known.for_networks(model.networks)


def _pooled(models: Sequence[SurvivalModel], knowns: Sequence[Known], bags: Bags | None, asked: _Asked) -> list[Pooled]:
    """What each model is told of the bags; those without slides are answered with zeros, which no one looks at."""
    if models[0].pools == "none":
        return [None for _ in models]
    having = [place for place, slides in enumerate(asked.slides) if slides]
    if not having or bags is None:
        return [_nothing(model, len(asked.slides)) for model in models]
    slides = [asked.slides[place] for place in having]
    if models[0].pools == "mean":
        if asked.size:
            mean_BD = bags.draw(slides, size=asked.size).means()
        else:
            mean_BD = torch.cat([bags.mean(one) for one in slides])
        return [_spread(mean_BD[None], having, len(asked.slides)) for _ in models]
    read, n_bags = bags.draw(slides, size=asked.size), len(asked.slides)
    askeds = [model.ask(known) for model, known in zip(models, knowns, strict=True)]
    askeds = [one.expand(-1, n_bags, *one.shape[2:])[:, having] for one in askeds]
    pooled: list[Pooled] = []
    if models[0].pools == "tiles":
        for model, asked_MBC in zip(models, askeds, strict=True):
            pairs = Pairs.of_all(model.networks, read, asked_MBC.device)
            pooled.append(_spread(read_each(model.reader, asked_MBC, pairs, read), having, n_bags))
        return pooled
    us_BMRD = [u_MBRD.transpose(0, 1) for u_MBRD in askeds]
    zs_BXD = softmax_pool_each([u_BMRD.flatten(1, 2) for u_BMRD in us_BMRD], read)
    for z_BXD, u_BMRD in zip(zs_BXD, us_BMRD, strict=True):
        z_MBRD = _spread(z_BXD.view(u_BMRD.shape).transpose(0, 1), having, n_bags)
        pooled.append((z_MBRD, z_MBRD.new_ones(z_MBRD.shape[:3])))
    return pooled


def _nothing(model: SurvivalModel, n_bags: int) -> Pooled:
    """What a model is told of tiles where no one has any."""
    like, shape = model.like, (model.networks, n_bags)
    if model.pools == "attention":
        return like.new_zeros(*shape, model.rows, model.dims.features), like.new_ones(*shape, model.rows)
    return like.new_zeros(*shape, model.dims.features if model.pools == "mean" else model.reader.pooled)


def _spread(values_MB: Tensor, having: Sequence[int], n_bags: int) -> Tensor:
    """Values of the bags with slides among all, (M, n_bags, …); 0 for the others."""
    if len(having) == n_bags:
        return values_MB
    places = torch.tensor(having, device=values_MB.device, dtype=torch.int64)
    all_MB = values_MB.new_zeros(len(values_MB), n_bags, *values_MB.shape[2:])
    return all_MB.index_copy_(1, places, values_MB)


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
