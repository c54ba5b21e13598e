"""What a model may know of a patient, and which models there are.

Owns the names of modalities and models, and what each model looks at; imports no torch. The networks are in ``models``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Modality = Literal["wsi", "rna", "clinical"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

ModelName = Literal[
    "cross-attention",
    "tanh-cross-attention",
    "co-attention",
    "joint",
    "early",
    "late",
    "genomic-cnn",
    "abmil",
    "patch-gcn",
    "wsi-mean",
    "rna",
    "clinical",
]
MODELS: tuple[ModelName, ...] = get_args(ModelName)


@dataclass(frozen=True)
class Looks:
    """What a model looks at."""

    own: tuple[Modality, ...]
    """Unless the recipe says otherwise."""
    needs: tuple[Modality, ...]
    """What it makes no sense without."""
    tiles: bool = True
    """Whether it can look at tiles."""


LOOKS: dict[ModelName, Looks] = {
    "cross-attention": Looks(("wsi", "rna"), ("wsi", "rna")),
    "tanh-cross-attention": Looks(("wsi", "rna"), ("wsi", "rna")),
    "co-attention": Looks(("wsi", "rna"), ("wsi", "rna")),
    "joint": Looks(("wsi", "rna"), ("wsi",)),
    "early": Looks(("wsi", "rna"), ()),
    "late": Looks(("wsi", "rna"), ()),
    "genomic-cnn": Looks(("wsi", "rna"), ("wsi",)),
    "abmil": Looks(("wsi",), ("wsi",)),
    "patch-gcn": Looks(("wsi",), ("wsi",)),
    "wsi-mean": Looks(("wsi",), ("wsi",)),
    "rna": Looks(("rna",), ("rna",), tiles=False),
    "clinical": Looks(("clinical",), ("clinical",), tiles=False),
}


def in_order(modalities: set[str]) -> tuple[Modality, ...]:
    """Modalities in the one order in which they are written."""
    return tuple(name for name in MODALITIES if name in modalities)
