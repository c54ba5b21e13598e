"""Attention weights of tiles, slide by slide, from a run and its store.

Owns which model explains which slide, and the table. No slide is opened; bags are read one after another, so memory
does not grow with the number of slides.

Shape suffixes: M networks, H heads, N tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from mmsurv.config import from_table
from mmsurv.errors import ConfigError, RunError
from mmsurv_train import inputs
from mmsurv_train import run as runs
from mmsurv_train.digits import counted
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.store import FeatureStore
    from mmsurv_train.inputs import Inputs
    from mmsurv_train.models import SurvivalModel
    from mmsurv_train.preprocess import Preprocess
    from mmsurv_train.run import Run

BagUnit = Literal["case", "slide"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be explained."""

    slides: tuple[str, ...] = ()
    """Ids; with ``cases`` empty as well: all slides of the run."""
    cases: tuple[str, ...] = ()
    """Ids whose slides are explained, beside ``slides``."""
    fold: int | None = None
    """Which fold's model of a cross-validation; None: for each slide the one that had its case in the test part."""
    bag: BagUnit | None = None
    """Over which tiles weights add up to 1: the case's, or the slide's; None: as the run's bags are."""
    store: str | None = None
    clinical: str | None = None
    rna: str | None = None
    memory: int | None = None


def tile_weights(path: Path, asked: Asked) -> Iterator[pd.DataFrame]:
    """A table for each slide, in the order of the cases: one row a tile, in the order of the record's rows.

    Columns: slide_id, case_id, fold (of a cross-validation), row, x, y (level-0 pixels of the tile's top-left corner),
    tile_level0 (its width in level-0 pixels; blank where the record does not say), weight (the mean over networks and
    heads), and where there are several, weight_SEED_HEAD of each. A gene set's head has its name. Where folds have
    other heads, the columns are those of all, blank where a fold has no such head.

    Weights are those of the prediction: of a run that predicts from the first tiles only (``bags.at_prediction``), the
    table has these tiles.

    Raises:
        ConfigError: a fold the run does not have.
        RunError: not a run, a model without attention, a slide that is not in the store or whose patient lacks what the
            model looks at, or a case that no fold tests.
        StoreError: a record is damaged.
    """
    run = runs.read_run(path)
    members = run.folds() or [run]
    _check_fold(run, asked.fold)
    recipe = _recipe(members[0])
    _require_attention(run, members[0])
    sources = inputs.read_sources(
        run.config, run=run.path, store=asked.store, clinical=asked.clinical, rna=asked.rna, memory=asked.memory
    )
    data = inputs.join_tables(recipe, sources)
    wanted = _wanted(run, data, asked)
    chosen = _members(run, members, wanted, asked)
    data = inputs.read_features(data, recipe, sources)
    models = {k: _Member.open(members[k]) for k in chosen}
    # Each fold chooses its own settings where they are nested, and knows the genes that vary in its training part.
    names = dict.fromkeys(name for model in models.values() for name in model.head_names)
    for k, slides in chosen.items():
        fold = None if run.kind == runs.RUN else int(run.config["folds"][k])
        yield from _of_member(models[k], data, slides, asked, fold=fold, names=list(names) if len(names) > 1 else [])


def _check_fold(run: Run, fold: int | None) -> None:
    if fold is None:
        return
    if run.kind == runs.RUN:
        raise ConfigError(f"--fold {fold}: {run.path} is of one split and has no folds. Leave --fold out.")
    if fold not in run.config["folds"]:
        folds = ", ".join(map(str, run.config["folds"]))
        raise ConfigError(f"--fold {fold}: there is no such fold of {run.path}. It has {folds}.")


def _recipe(run: Run) -> TrainRecipe:
    return from_table(TrainRecipe, run.config["recipe"], source=str(run.path / runs.CONFIG), where="recipe.")


def _require_attention(run: Run, member: Run) -> None:
    from mmsurv_train.evaluate import load_model

    model, _ = load_model(member)
    if model.pools in ("mean", "none"):
        raise RunError(
            f"{run.path}: the model {_recipe(member).model.name} weighs all tiles alike, so it has no attention. "
            "Models with attention: cross-attention, tanh-cross-attention, co-attention, abmil, patch-gcn."
        )


def _wanted(run: Run, data: Inputs, asked: Asked) -> pd.DataFrame:
    """slide_id and case_id of what is to be explained."""
    slides = data.cohort.slides
    known = {"slide": set(slides["slide_id"]), "case": set(slides["case_id"])}
    for kind, ids in (("slide", asked.slides), ("case", asked.cases)):
        _refuse_strangers(run, kind, [name for name in ids if name not in known[kind]])
    names = {*asked.slides, *slides["slide_id"][slides["case_id"].isin(asked.cases)]}
    if not names:
        names = set(run.provenance["slides"])
        _refuse_strangers(run, "slide", sorted(names - known["slide"]))
    return slides[slides["slide_id"].isin(names)].sort_values(["case_id", "slide_id"])


def _refuse_strangers(run: Run, kind: str, strangers: Sequence[str]) -> None:
    if strangers:
        raise RunError(
            f"{run.path}: {counted(len(strangers), kind)} cannot be explained: {', '.join(strangers[:5])}. "
            "Slides must be in the store and in the clinical table, and their patients must have what the model looks "
            "at (--store, --clinical, --rna)."
        )


def _members(run: Run, members: Sequence[Run], wanted: pd.DataFrame, asked: Asked) -> dict[int, pd.DataFrame]:
    """Slides by the index of the member that explains them."""
    from mmsurv.split import read_split

    if run.kind == runs.RUN:
        return {0: wanted}
    folds = list(run.config["folds"])
    if asked.fold is not None:
        return {folds.index(asked.fold): wanted}
    tested: dict[str, int] = {}
    for place, member in enumerate(members):
        tested |= dict.fromkeys(read_split(member.path / runs.SPLIT).cases("test"), place)
    strangers = sorted(set(wanted["case_id"]) - set(tested))
    if strangers:
        raise RunError(f"{run.path}: no fold tests case {strangers[0]} ({len(strangers)} such): say which with --fold.")
    explained_by = wanted["case_id"].map(tested)
    return {int(k): wanted[explained_by == k] for k in sorted(set(explained_by))}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Member:
    """One model that explains."""

    recipe: TrainRecipe
    model: SurvivalModel
    preprocess: Preprocess

    @classmethod
    def open(cls, member: Run) -> _Member:
        from mmsurv_train.evaluate import load_model

        model, preprocess = load_model(member)
        return cls(recipe=_recipe(member), model=model, preprocess=preprocess)

    @property
    def head_names(self) -> list[str]:
        """Of the columns of its weights, networks outermost."""
        sets = self.preprocess.gene_sets
        heads = [str(head) for head in range(self.model.n_heads)] if sets is None else sets.names
        return [f"weight_{seed}_{head}" for seed in self.recipe.fit.seeds for head in heads]


def _of_member(
    member: _Member, data: Inputs, wanted: pd.DataFrame, asked: Asked, *, fold: int | None, names: Sequence[str]
) -> Iterator[pd.DataFrame]:
    from mmsurv_train.patients import slides_of
    from mmsurv_train.prepare import known_of

    recipe, model = member.recipe, member.model
    assert data.bags is not None
    assert data.store is not None
    owned = slides_of(data.cohort, data.bags)
    unit = asked.bag or recipe.bags.unit
    size = recipe.bags.size_at_prediction
    for case_id, rows in wanted.groupby("case_id", sort=True):
        slides = rows["slide_id"].tolist()
        bags = [owned[str(case_id)]] if unit == "case" else [[name] for name in slides]
        known = known_of([str(case_id)] * len(bags), member.preprocess, recipe, data.cohort, data.bags)
        _require_drawn(asked, data, bags, size)
        weights = model.weights(known.for_networks(model.networks), data.bags.draw(bags, size=size))
        for bag, weight_MHN in zip(bags, weights, strict=True):
            first = 0
            for slide_id, n_tiles in data.bags.drawn_tiles(bag, size=size).items():  # its first rows
                part_MHN = weight_MHN[:, :, first : first + n_tiles].double().numpy()
                first += n_tiles
                if slide_id in slides:
                    columns = _weight_columns(part_MHN, member.head_names, names)
                    yield _table(data.store, slide_id, str(case_id), fold, columns, n_tiles)


def _require_drawn(asked: Asked, data: Inputs, bags: Sequence[Sequence[str]], size: int) -> None:
    """Raises RunError: a slide that was asked for by name has no tile among those of the prediction."""
    assert data.bags is not None
    for bag in bags:
        without = set(bag) & set(asked.slides) - set(data.bags.drawn_tiles(bag, size=size))
        if without:
            raise RunError(
                f"slide {min(without)} has no weight: the run predicts from the first {size} tiles of a bag, which has "
                f"{len(bag)} slides, and none is of this one (bags.at_prediction). Say --bag slide, or train with all."
            )


def _weight_columns(weight_MHN: np.ndarray, own: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The mean and, where there are several, the weights of each network's heads, NaN for those of other folds."""
    mine = dict(zip(own, weight_MHN.reshape(-1, weight_MHN.shape[2]), strict=True))
    nothing = np.full(weight_MHN.shape[2], np.nan)
    return {"weight": weight_MHN.mean((0, 1)), **{name: mine.get(name, nothing) for name in names}}


def _table(
    store: FeatureStore, slide_id: str, case_id: str, fold: int | None, columns: dict[str, np.ndarray], n_tiles: int
) -> pd.DataFrame:
    """Of the first ``n_tiles`` rows of a record."""
    record = store.read(slide_id)
    width = record.coords_attributes.get("patch_size_level0")
    where = {} if fold is None else {"fold": fold}
    return pd.DataFrame(
        {
            "slide_id": slide_id,
            "case_id": case_id,
            **where,
            "row": np.arange(n_tiles),
            "x": record.coords[:n_tiles, 0],
            "y": record.coords[:n_tiles, 1],
            "tile_level0": float(width) if isinstance(width, int | float) else np.nan,
            **columns,
        }
    )
