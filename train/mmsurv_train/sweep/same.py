"""Which settings a configuration's model uses, and which configurations are one training under several names.

Owns what is known of this before training: settings a model does not have, a batch that holds the whole training
part, a bag that cuts no patient's tiles.
"""

from __future__ import annotations

from mmsurv.config import to_table
from mmsurv.provenance import canonical_json
from mmsurv_train.recipe import ModelSettings, TrainRecipe
from mmsurv_train.sweep.plan import Plan
from mmsurv_train.sweep.possible import Facts
from mmsurv_train.sweep.recipe import setting_keys

ATTENTION = ("dim", "heads", "query", "query_hidden", "head", "attention_dropout")
"""Settings of [model] that only cross-attention has."""


def uses(recipe: TrainRecipe, key: str) -> bool:
    """Whether the dotted setting can change anything in the recipe's model."""
    model = recipe.model
    table, name = key.split(".")
    if table == "bags":
        return model.needs_tiles
    if table == "rna":
        return model.needs_rna
    return table != "model" or _has(model, name)


def same_trainings(plan: Plan, facts: Facts) -> list[list[str]]:
    """Names of configurations that are trained alike, in the plan's order; only groups of several."""
    groups: dict[str, list[str]] = {}
    for planned in plan.configurations:
        groups.setdefault(_trained_as(planned.recipe, facts), []).append(planned.name)
    return [names for names in groups.values() if len(names) > 1]


def _has(model: ModelSettings, name: str) -> bool:
    attends = model.name == "cross-attention"
    asks = attends and model.query == "relu"
    embeds = model.name in ("joint", "rna") or (attends and model.head == "image+rna")
    special = {"query_hidden": asks, "rna_widths": embeds, "rna_dropout": embeds or asks}
    return special.get(name, attends or name not in ATTENTION)


def _trained_as(recipe: TrainRecipe, facts: Facts) -> str:
    """The recipe without what makes no difference."""
    table, model = to_table(recipe), recipe.model.name
    if recipe.fit.batch_size >= facts.training[model]:
        table["fit"]["batch_size"] = 0
    if recipe.model.needs_tiles and recipe.bags.size >= facts.whole[model, recipe.bags.unit]:
        table["bags"]["size"] = 0
    if not table["bags"]["size"]:
        table["bags"] |= {"redraw": True, "at_prediction": "all"}
    for key in setting_keys():
        place, name = key.split(".")
        if not uses(recipe, key):
            table[place].pop(name, None)
    return canonical_json(table)
