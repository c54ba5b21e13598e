"""Which settings a configuration's model uses, and which configurations are one training under several names.

Owns what is known of this before training: settings a model does not have, a batch that holds the whole training
part, a bag that cuts no patient's tiles.
"""

from __future__ import annotations

from mmsurv.config import to_table
from mmsurv.provenance import canonical_json
from mmsurv_train.modalities import ModelName
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.sweep.plan import Plan
from mmsurv_train.sweep.possible import Facts, needs_of
from mmsurv_train.sweep.recipe import setting_keys

CROSS: tuple[ModelName, ...] = ("cross-attention",)
SEES_TILES: tuple[ModelName, ...] = ("tanh-cross-attention", "abmil", "patch-gcn", "co-attention")
OWNERS: dict[str, tuple[ModelName, ...]] = {
    "dim": (*CROSS, *SEES_TILES),
    "heads": (*CROSS, "co-attention"),
    "query": CROSS,
    "query_hidden": CROSS,
    "rna_components": CROSS,
    "tile_components": CROSS,
    "head": CROSS,
    "attention_dropout": (*CROSS, *SEES_TILES),
    "attention_hidden": ("tanh-cross-attention", "abmil", "patch-gcn"),
    "graph_layers": ("patch-gcn",),
    "neighbours": ("patch-gcn",),
    "gene_sets": ("co-attention",),
    "least_genes": ("co-attention",),
    "hidden_widths": ("early", "genomic-cnn"),
}
"""Settings of [model] that only some models have."""


def uses(recipe: TrainRecipe, key: str) -> bool:
    """Whether the dotted setting can change anything in the recipe's model."""
    table, name = key.split(".")
    if table == "bags":
        return recipe.needs_tiles
    if table == "rna":
        return recipe.needs_rna
    if table == "clinical":
        return "clinical" in recipe.inputs
    if key in ("fit.nll_bins", "fit.nll_alpha"):
        return recipe.fit.loss == "nll"
    return table != "model" or _has(recipe, name)


def same_trainings(plan: Plan, facts: Facts) -> list[list[str]]:
    """Names of configurations that are trained alike, in the plan's order; only groups of several."""
    groups: dict[str, list[str]] = {}
    for planned in plan.configurations:
        groups.setdefault(_trained_as(planned.recipe, facts), []).append(planned.name)
    return [names for names in groups.values() if len(names) > 1]


def _has(recipe: TrainRecipe, name: str) -> bool:
    model = recipe.model
    asks = model.name == "cross-attention" and model.query == "relu"
    embeds = recipe.needs_rna and (model.name != "cross-attention" or model.head == "image+rna")
    special = {
        "query_hidden": asks,
        "rna_widths": embeds and model.name != "genomic-cnn",
        "rna_dropout": embeds or asks,
        "clinical_widths": "clinical" in recipe.inputs,
    }
    return special.get(name, model.name in OWNERS.get(name, (model.name,)))


def _trained_as(recipe: TrainRecipe, facts: Facts) -> str:
    """The recipe without what makes no difference."""
    table, needs = to_table(recipe), needs_of(recipe)
    if recipe.fit.batch_size >= facts.training[needs]:
        table["fit"]["batch_size"] = 0
    if recipe.needs_tiles and recipe.bags.size >= facts.whole[needs, recipe.bags.unit]:
        table["bags"]["size"] = 0
    if not table["bags"]["size"]:
        table["bags"] |= {"redraw": True, "at_prediction": "all"}
    for key in setting_keys():
        place, name = key.split(".")
        if not uses(recipe, key):
            table[place].pop(name, None)
    return canonical_json(table)
