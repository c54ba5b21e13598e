"""Cross-attention fusion: RNA asks, tiles answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.attention import CrossAttention
from mmsurv_train.dims import Dims
from mmsurv_train.frozen import Frozen
from mmsurv_train.layers import Dropout, Linear
from mmsurv_train.models.base import Pooled, SurvivalModel
from mmsurv_train.models.known import Known
from mmsurv_train.models.parts import Beside, Head, StandIn, may_lack
from mmsurv_train.recipe import ModelSettings


class CrossAttentionFusion(SurvivalModel):
    """RNA asks, tiles answer: the attended mean of the tiles, alone or beside RNA and clinical variables, → linear.

    Source: the paper this project implements (``query = "linear"``, ``head = "image"``, one head); scaled dot-product
    attention, Vaswani et al. 2017.
    """

    pools = "attention"
    components: Tensor | None
    """What turns RNA into its principal components, (M, K, G)."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        first, networks = settings[0], len(settings)
        width = min(first.rna_components, dims.genes) if first.rna_components else dims.genes
        self.register_buffer("components", torch.zeros(networks, width, dims.genes) if first.rna_components else None)
        # Components are few, and no noise to be drowned out: genes are dropped, they are not.
        rates = [0.0 if first.rna_components else one.rna_dropout for one in settings]
        if first.query == "linear":
            self.query: nn.Module = Linear(networks, width, first.dim)
        else:
            self.query = nn.Sequential(
                Dropout(rates, self.noise),
                Linear(networks, width, first.query_hidden),
                nn.ReLU(),
                Linear(networks, first.query_hidden, first.dim),
            )
        self.query_stand_in = StandIn(networks, first.dim, "rna") if may_lack(settings) else None
        self.cross_attention = CrossAttention(
            feature_dim=dims.features,
            dim=first.dim,
            heads=first.heads,
            networks=networks,
            components=min(first.tile_components, dims.features),
        )
        self.image_stand_in = StandIn(networks, first.dim, "wsi") if may_lack(settings) else None
        self.beside = Beside(settings, dims, self.noise, rna=first.head == "image+rna")
        self.head = Head(
            settings, dims, self.noise, dropped=first.dim + self.beside.rna_width, kept=self.beside.clinical_width
        )

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        self.cross_attention.standardise_by(mean_MD, sd_MD)

    def take_frozen(self, frozen: Sequence[Frozen]) -> None:
        super().take_frozen(frozen)
        for m, one in enumerate(frozen):
            if self.components is not None and one.components is not None:
                self.components[m] = torch.from_numpy(one.components)
            basis = self.cross_attention.basis
            if basis is not None and one.tile_components is not None:
                basis[m] = torch.from_numpy(one.tile_components)

    @property
    def rows(self) -> int:
        return self.cross_attention.heads

    def ask(self, known: Known) -> Tensor:
        rna_MBX = known.need("rna")
        if self.components is not None:
            rna_MBX = torch.bmm(rna_MBX, self.components.mT)
        query_MBE = self.query(rna_MBX)
        if self.query_stand_in is not None:
            query_MBE = self.query_stand_in(query_MBE, known)
        return self.cross_attention.ask(query_MBE[:, :, None])

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        assert isinstance(pooled, tuple)
        image_MBE = self.cross_attention.answer(*pooled)[:, :, 0]
        if self.image_stand_in is not None:
            image_MBE = self.image_stand_in(image_MBE, known)
        dropped, kept = self.beside(known)
        return self.head([image_MBE, *dropped], kept)
