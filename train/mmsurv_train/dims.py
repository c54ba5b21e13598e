"""What a network is built for. Owns the sizes; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from mmsurv_train.modalities import Modality


@dataclass(frozen=True, kw_only=True)
class Dims:
    """What a network is built for, as ``Preprocess`` found it."""

    features: int = 0
    """Width of a tile's features; 0 for a model without tiles."""
    genes: int = 0
    """Genes kept; 0 for a model without RNA."""
    clinical: int = 0
    """Columns of the coded clinical variables; 0 for a model without."""
    outputs: int = 1
    """1, the risk; or the logits of the hazards of so many time intervals."""
    base: bool = False
    """Whether there is a base to add to."""
    gene_sets: tuple[tuple[int, ...], ...] = ()
    """Places of the genes of each set among those kept."""

    def of(self, modality: Modality) -> int:
        return {"wsi": self.features, "rna": self.genes, "clinical": self.clinical}[modality]
