"""Cross-attention fusion: RNA asks, tiles answer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmsurv_train.attention import CrossAttention
from mmsurv_train.dims import Dims
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

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        first, networks = settings[0], len(settings)
        if first.query == "linear":
            self.query: nn.Module = Linear(networks, dims.genes, first.dim)
        else:
            self.query = nn.Sequential(
                Dropout([one.rna_dropout for one in settings], self.noise),
                Linear(networks, dims.genes, first.query_hidden),
                nn.ReLU(),
                Linear(networks, first.query_hidden, first.dim),
            )
        self.query_stand_in = StandIn(networks, first.dim, "rna") if may_lack(settings) else None
        self.cross_attention = CrossAttention(
            feature_dim=dims.features, dim=first.dim, heads=first.heads, networks=networks
        )
        self.image_stand_in = StandIn(networks, first.dim, "wsi") if may_lack(settings) else None
        self.beside = Beside(settings, dims, self.noise, rna=first.head == "image+rna")
        self.head = Head(
            settings, dims, self.noise, dropped=first.dim + self.beside.rna_width, kept=self.beside.clinical_width
        )

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        self.cross_attention.standardise_by(mean_MD, sd_MD)

    @property
    def rows(self) -> int:
        return self.cross_attention.heads

    def ask(self, known: Known) -> Tensor:
        query_MBE = self.query(known.need("rna"))
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
