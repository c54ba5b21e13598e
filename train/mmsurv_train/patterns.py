"""What a model comes to when patients lack modalities: one model, asked with every combination of its inputs.

Owns the combinations. A patient is scored under one if they have all of its modalities, as if they had nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from typing import TYPE_CHECKING

import pandas as pd

from mmsurv_train.bags import Bags
from mmsurv_train.modalities import Modality
from mmsurv_train.patients import modalities_of
from mmsurv_train.predict import predict_many
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.risk_columns import RiskColumns

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.split import Split
    from mmsurv_train.models import SurvivalModel
    from mmsurv_train.preprocess import Preprocess


def patterns_of(recipe: TrainRecipe) -> dict[str, tuple[Modality, ...]]:
    """Combinations of a recipe's inputs by name, such as "wsi+rna"; none where patients may not lack any."""
    if not recipe.may_lack:
        return {}
    inputs = recipe.inputs
    chosen = chain.from_iterable(combinations(inputs, n) for n in range(1, len(inputs) + 1))
    return {"+".join(modalities): modalities for modalities in chosen}


def predict_patterns(
    members: Sequence[tuple[SurvivalModel, Preprocess, TrainRecipe]],
    splits: Sequence[Split],
    cohort: Cohort,
    bags: Bags | None,
) -> list[RiskColumns | None]:
    """The risks of each member under every combination; None where it has none.

    Args:
        members: models of one kind, each with its scales and recipe, as the folds of a cross-validation are.
        splits: of each.
        cohort, bags: the data.
    """
    patterns = patterns_of(members[0][2])
    if not patterns:
        return [None for _ in members]
    found: list[dict[str, pd.Series]] = [{} for _ in members]
    having = modalities_of(members[0][2], cohort, bags)
    for name, modalities in patterns.items():
        if not set.intersection(*(having[one] for one in modalities)):
            for columns in found:
                columns[name] = pd.Series(dtype=float)  # nobody has all of these
            continue
        for columns, tables in zip(found, predict_many(members, cohort, bags, only=modalities), strict=True):
            columns[name] = tables.cases.set_index("case_id")["risk"]
    return [_columns(columns, split, patterns) for columns, split in zip(found, splits, strict=True)]


def _columns(risks: dict[str, pd.Series], split: Split, patterns: dict[str, tuple[Modality, ...]]) -> RiskColumns:
    table = pd.DataFrame(risks)
    table = table[table.index.isin(split.parts.index)].sort_index()
    parts = split.parts.loc[table.index].to_numpy()
    frame = pd.DataFrame({"case_id": table.index.to_numpy(), "part": parts})
    return RiskColumns(predictions=pd.concat([frame, table.reset_index(drop=True)], axis=1), inputs=patterns)
