"""Models that see the mean of a bag's tiles: joint and early fusion, genomic-cnn, and the image alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.dims import Dims
from mmsurv_train.layers import Dropout, Linear, Noise
from mmsurv_train.models.base import MeanPooling, Pooled
from mmsurv_train.models.known import Known
from mmsurv_train.models.parts import Beside, Head, StandIn, may_lack
from mmsurv_train.recipe import ModelSettings


class _Means(MeanPooling):
    """The mean tile, or what stands in for it."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        lacks = may_lack(settings) and dims.features
        self.image_stand_in = StandIn(len(settings), dims.features, "wsi") if lacks else None

    def image(self, known: Known, pooled: Pooled) -> list[Tensor]:
        """The mean tile in a list, (M, B, D); empty for a model without tiles."""
        if not self.dims.features:
            return []
        image_MBD = self.standardised(pooled)
        return [image_MBD if self.image_stand_in is None else self.image_stand_in(image_MBD, known)]


class JointFusion(_Means):
    """Mean of tile features ⊕ embedded RNA (⊕ clinical variables) → dropout → linear layer.

    Source: Steyaert et al. 2023, Communications Medicine 3:44 (joint fusion).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        self.beside = Beside(settings, dims, self.noise)
        self.head = Head(
            settings, dims, self.noise,
            dropped=dims.features + self.beside.rna_width, kept=self.beside.clinical_width,
        )  # fmt: skip

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        dropped, kept = self.beside(known)
        return self.head([*self.image(known, pooled), *dropped], kept)


class WsiMean(JointFusion):
    """Mean of tile features → dropout → linear layer.

    Source: Steyaert et al. 2023 (the unimodal image model).
    """


class EarlyFusion(_Means):
    """Case features side by side → dropout and a ReLU layer for each of ``hidden_widths`` → dropout → linear layer.

    The features are the mean tile, the embedded RNA and the clinical variables. Steyaert et al. take theirs from
    unimodal networks that were trained before; here everything is trained together.

    Source: Steyaert et al. 2023 (early fusion).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        self.beside = Beside(settings, dims, self.noise)
        width = dims.features + self.beside.rna_width + self.beside.clinical_width
        self.hidden, width = relu_layers(settings, width, self.noise)
        self.head = Head(settings, dims, self.noise, dropped=width)

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        dropped, kept = self.beside(known)
        return self.head([self.hidden(torch.cat([*self.image(known, pooled), *dropped, *kept], 2))])


class GenomicCnn(_Means):
    """Mean of tile features → ReLU layers; then ⊕ genomic (and clinical) variables as they are → one Cox layer.

    Their convolutional network is trained with the loss; here its place is taken by the frozen encoder.

    Source: Mobadersany et al. 2018, PNAS 115:E2970 (genomic survival convolutional neural network).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        self.hidden, width = relu_layers(settings, dims.features, self.noise)
        self.n_genes = 0 if dims.base else dims.genes  # a base has them already
        self.genes = Dropout([one.rna_dropout for one in settings], self.noise)
        lacks = may_lack(settings) and self.n_genes
        self.genes_stand_in = StandIn(len(settings), dims.genes, "rna") if lacks else None
        self.beside = Beside(settings, dims, self.noise, rna=False)
        self.head = Head(settings, dims, self.noise, dropped=width, kept=self.n_genes + self.beside.clinical_width)

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        _, kept = self.beside(known)
        if self.n_genes:
            genes_MBG = self.genes(known.need("rna"))
            kept = [genes_MBG if self.genes_stand_in is None else self.genes_stand_in(genes_MBG, known), *kept]
        return self.head([self.hidden(part) for part in self.image(known, pooled)], kept)


def relu_layers(settings: Sequence[ModelSettings], width: int, noise: Noise) -> tuple[nn.Module, int]:
    """Dropout, a linear layer and a ReLU for each of ``hidden_widths``, and the width of what comes out."""
    layers: list[nn.Module] = []
    for next_width in settings[0].hidden_widths:
        layers += [
            Dropout([one.dropout for one in settings], noise),
            Linear(len(settings), width, next_width),
            nn.ReLU(),
        ]
        width = next_width
    return nn.Sequential(*layers), width
