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
from mmsurv.errors import RunError
from mmsurv_train import inputs
from mmsurv_train import run as runs
from mmsurv_train.recipe import TrainRecipe

if TYPE_CHECKING:
    from mmsurv.store import FeatureStore
    from mmsurv_train.inputs import Inputs
    from mmsurv_train.run import Run

BagUnit = Literal["case", "slide"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be explained."""

    slides: tuple[str, ...] = ()
    """Ids; empty: all slides of the run."""
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
    heads), and where there are several, weight_SEED_HEAD of each. A gene set's head has its name.

    Raises:
        RunError: not a run, a model without attention, a slide that is not in the store or whose patient lacks what the
            model looks at, or a case that no fold tests.
        StoreError: a record is damaged.
    """
    run = runs.read_run(path)
    members = run.folds() or [run]
    if asked.fold is not None and (run.kind == runs.RUN or asked.fold not in run.config["folds"]):
        raise RunError(f"{path}: there is no fold {asked.fold}. Folds: {run.config.get('folds', 'none')}.")
    recipe = _recipe(members[0])
    _require_attention(run, members[0])
    sources = inputs.read_sources(
        run.config, run=run.path, store=asked.store, clinical=asked.clinical, rna=asked.rna, memory=asked.memory
    )
    data = inputs.join_tables(recipe, sources)
    wanted = _wanted(run, data, asked)
    chosen = _members(run, members, wanted, asked)
    data = inputs.read_features(data, recipe, sources)
    for k, slides in chosen.items():
        fold = None if run.kind == runs.RUN else int(run.config["folds"][k])
        yield from _of_member(members[k], data, slides, asked, fold=fold)


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
    names = asked.slides or tuple(run.provenance["slides"])
    strangers = [name for name in names if name not in set(slides["slide_id"])]
    if strangers:
        raise RunError(
            f"{run.path}: {len(strangers)} slides cannot be explained: {', '.join(strangers[:5])}. They must be in the "
            "store, in the clinical table, and their patients must have what the model looks at (--store, --clinical, "
            "--rna)."
        )
    return slides[slides["slide_id"].isin(set(names))].sort_values(["case_id", "slide_id"])


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


def _of_member(
    member: Run, data: Inputs, wanted: pd.DataFrame, asked: Asked, *, fold: int | None
) -> Iterator[pd.DataFrame]:
    from mmsurv_train.evaluate import load_model
    from mmsurv_train.patients import slides_of
    from mmsurv_train.prepare import known_of

    recipe, (model, preprocess) = _recipe(member), load_model(member)
    assert data.bags is not None
    assert data.store is not None
    owned = slides_of(data.cohort, data.bags)
    unit = asked.bag or recipe.bags.unit
    heads = [str(head) for head in range(model.n_heads)] if preprocess.gene_sets is None else preprocess.gene_sets.names
    for case_id, rows in wanted.groupby("case_id", sort=True):
        names = rows["slide_id"].tolist()
        bags = [owned[str(case_id)]] if unit == "case" else [[name] for name in names]
        known = known_of([str(case_id)] * len(bags), preprocess, recipe, data.cohort, data.bags)
        weights = model.weights(known.for_networks(model.networks), data.bags.draw(bags))
        for bag, weight_MHN in zip(bags, weights, strict=True):
            first = 0
            for name in bag:
                n_tiles = data.bags.n_tiles(name)
                part_MHN = weight_MHN[:, :, first : first + n_tiles].double().numpy()
                first += n_tiles
                if name in names:
                    columns = _weight_columns(part_MHN, recipe.fit.seeds, heads)
                    yield _table(data.store, name, str(case_id), fold, columns)


def _weight_columns(weight_MHN: np.ndarray, seeds: Sequence[int], heads: Sequence[str]) -> dict[str, np.ndarray]:
    columns = {"weight": weight_MHN.mean((0, 1))}
    if weight_MHN.shape[:2] != (1, 1):
        for m, seed in enumerate(seeds):
            columns |= {f"weight_{seed}_{head}": weight_MHN[m, h] for h, head in enumerate(heads)}
    return columns


def _table(
    store: FeatureStore, slide_id: str, case_id: str, fold: int | None, columns: dict[str, np.ndarray]
) -> pd.DataFrame:
    record = store.read(slide_id)
    width = record.coords_attributes.get("patch_size_level0")
    where = {} if fold is None else {"fold": fold}
    return pd.DataFrame(
        {
            "slide_id": slide_id,
            "case_id": case_id,
            **where,
            "row": np.arange(record.n_tiles),
            "x": record.coords[:, 0],
            "y": record.coords[:, 1],
            "tile_level0": float(width) if isinstance(width, int | float) else np.nan,
            **columns,
        }
    )
