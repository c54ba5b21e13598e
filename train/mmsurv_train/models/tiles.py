"""Models that form something of every tile before they pool: abmil, tanh-cross-attention, co-attention.

Their attention cannot be absorbed into the features (a tanh, a gate or a softmax over gene sets stands between), so
they are read by ``each_bag``.

Shape suffixes: M networks, m networks of a group, B patients, G bags of a group, N tiles, D feature dim, E width, A
width of an attention network, S gene sets, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.dims import Dims
from mmsurv_train.layers import Dropout, Linear
from mmsurv_train.models.base import Pooled, SurvivalModel
from mmsurv_train.models.each_bag import BagReader, Seen
from mmsurv_train.models.known import Known
from mmsurv_train.models.parts import Beside, Head, StandIn, may_lack
from mmsurv_train.recipe import ModelSettings


class TileReader(BagReader):
    """A reader that standardises features on the way into its first layer."""

    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(self, networks: int, features: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(networks, features))
        self.register_buffer("feature_sd", torch.ones(networks, features))

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        """Take mean and standard deviation of the training part's tiles; (D,) for all networks."""
        self.feature_mean.copy_(mean_MD)
        self.feature_sd.copy_(sd_MD)

    def first(self, layer: Linear, x_GND: Tensor, seen: Seen) -> Tensor:
        """A linear layer of the standardised features, (m, G, N, O). The scales go into its weights."""
        weight_mOD = seen.take(layer.weight) / seen.take(self.feature_sd)[:, None]
        shift_mO = torch.einsum("mod,md->mo", weight_mOD, seen.take(self.feature_mean))
        bias_mO = -shift_mO if layer.bias is None else seen.take(layer.bias) - shift_mO
        return torch.matmul(x_GND[None], weight_mOD.mT[:, None]) + bias_mO[:, None, None]


def apply(layer: Linear, x_mGNI: Tensor, seen: Seen) -> Tensor:
    """A linear layer of a group's networks, (m, G, N, O)."""
    y_mGNO = torch.matmul(x_mGNI, seen.take(layer.weight).mT[:, None])
    return y_mGNO if layer.bias is None else y_mGNO + seen.take(layer.bias)[:, None, None]


def weighted(logit_mGHN: Tensor, value_mGNE: Tensor, seen: Seen) -> Tensor:
    """Softmax-weighted sums of values over tiles, (m, G, H, E); tells the weights to whoever asked for them."""
    a_mGHN = torch.softmax(logit_mGHN, 3)
    if seen.weights is not None:
        seen.weights.append(a_mGHN)
    if seen.keep is not None:
        a_mGHN = a_mGHN * seen.keep[:, :, None]
    return torch.matmul(a_mGHN, value_mGNE)


class GatedAttention(nn.Module):
    """Logits w · (tanh(V h) ⊙ σ(U h)) of tiles, a head's each, (m, G, H, N).

    Source: Ilse et al. 2018 (ABMIL), in the gated form that CLAM uses (Lu et al. 2021).
    """

    def __init__(self, networks: int, width: int, hidden: int, heads: int = 1) -> None:
        super().__init__()
        self.tanh, self.gate = Linear(networks, width, hidden), Linear(networks, width, hidden)
        self.logit = Linear(networks, hidden, heads, bias=False)

    def forward(self, h_mGNE: Tensor, seen: Seen) -> Tensor:
        gated_mGNA = torch.tanh(apply(self.tanh, h_mGNE, seen)) * torch.sigmoid(apply(self.gate, h_mGNE, seen))
        return apply(self.logit, gated_mGNA, seen).mT


class AbmilReader(TileReader):
    """Tiles → a ReLU layer → gated attention → their weighted mean."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        first, networks = settings[0], len(settings)
        super().__init__(networks, dims.features)
        self.embed = Linear(networks, dims.features, first.dim)
        self.attention = GatedAttention(networks, first.dim, first.attention_hidden)
        self.pooled = first.dim

    def forward(self, x_GND: Tensor, seen: Seen) -> Tensor:
        h_mGNE = torch.relu(self.first(self.embed, x_GND, seen))
        return weighted(self.attention(h_mGNE, seen), h_mGNE, seen)[:, :, 0]


class TileModel(SurvivalModel):
    """What a reader makes of a bag's tiles ⊕ RNA and clinical variables → dropout → linear layer."""

    pools = "tiles"

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims, reader: TileReader) -> None:
        super().__init__(settings, dims)
        self.tiles = reader
        self.image_stand_in = StandIn(len(settings), reader.pooled, "wsi") if may_lack(settings) else None
        self.beside = Beside(settings, dims, self.noise)
        self.head = Head(
            settings, dims, self.noise, dropped=reader.pooled + self.beside.rna_width, kept=self.beside.clinical_width
        )

    @property
    def reader(self) -> TileReader:
        return self.tiles

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        self.tiles.standardise_by(mean_MD, sd_MD)

    def ask(self, known: Known) -> Tensor:
        """Nothing: the reader is told of no patient, (M, 1, 0)."""
        del known
        return next(self.parameters()).new_zeros(self.networks, 1, 0)

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        assert isinstance(pooled, Tensor)
        image_MBE = pooled if self.image_stand_in is None else self.image_stand_in(pooled, known)
        dropped, kept = self.beside(known)
        return self.head([image_MBE, *dropped], kept)


class Abmil(TileModel):
    """Gated attention over tiles, without RNA in it; RNA and clinical variables beside it where the inputs have them.

    Source: Ilse et al. 2018; CLAM's pooling (Lu et al. 2021, Nature Biomedical Engineering 5:555); AMIL in MCAT.
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims, AbmilReader(settings, dims))


class TanhReader(TileReader):
    """Tiles weighed by tanh(W x) · g, g told of the patient; their weighted mean as it is."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(len(settings), dims.features)
        self.key = Linear(len(settings), dims.features, settings[0].attention_hidden)
        self.pooled = dims.features

    def forward(self, x_GND: Tensor, seen: Seen) -> Tensor:
        key_mGNA = torch.tanh(self.first(self.key, x_GND, seen))
        logit_mGHN = torch.matmul(seen.asked[:, :, None], key_mGNA.mT)
        mean_mGD = weighted(logit_mGHN, x_GND[None].expand(len(key_mGNA), -1, -1, -1), seen)[:, :, 0]
        if seen.keep is None:
            total_mG1: Tensor | float = 1.0
        else:
            total_mG1 = (torch.softmax(logit_mGHN[:, :, 0], 2) * seen.keep).sum(2, keepdim=True)
        mu_m1D, sd_m1D = seen.take(self.feature_mean)[:, None], seen.take(self.feature_sd)[:, None]
        return (mean_mGD - total_mG1 * mu_m1D) / sd_m1D


class TanhCrossAttention(TileModel):
    """The fork's attention: logit = tanh(W x) · (G r), one head, no 1/√d, no values; beside the embedded RNA.

    Source: the code of the paper's fork of Steyaert et al. 2023, restated (docs/recipes.md).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims, TanhReader(settings, dims))
        first, networks = settings[0], len(settings)
        self.query = nn.Sequential(
            Dropout([one.rna_dropout for one in settings], self.noise),
            Linear(networks, dims.genes, first.attention_hidden),
        )
        self.query_stand_in = StandIn(networks, first.attention_hidden, "rna") if may_lack(settings) else None

    def ask(self, known: Known) -> Tensor:
        query_MBA = self.query(known.need("rna"))
        return query_MBA if self.query_stand_in is None else self.query_stand_in(query_MBA, known)


class CoAttentionReader(TileReader):
    """Gene sets attend to tiles and tiles to gene sets, one layer; the mean of what either found."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        first, networks = settings[0], len(settings)
        super().__init__(networks, dims.features)
        self.n_sets, self.width = len(dims.gene_sets), first.dim
        self.embed = Linear(networks, dims.features, first.dim)
        for name in ("set_query", "tile_key", "tile_value", "tile_query", "set_key", "set_value"):
            self.add_module(name, Linear(networks, first.dim, first.dim, bias=False))
        self.pooled = 2 * first.dim

    def forward(self, x_GND: Tensor, seen: Seen) -> Tensor:
        h_mGNE = torch.relu(self.first(self.embed, x_GND, seen))
        token_mGSE = seen.asked.unflatten(2, (self.n_sets, self.width))

        def made(name: str, of: Tensor) -> Tensor:
            return apply(getattr(self, name), of, seen)

        scale = 1 / math.sqrt(self.width)
        logit_mGSN = torch.matmul(made("set_query", token_mGSE), made("tile_key", h_mGNE).mT) * scale
        found_mGSE = weighted(logit_mGSN, made("tile_value", h_mGNE), seen)
        logit_mGNS = torch.matmul(made("tile_query", h_mGNE), made("set_key", token_mGSE).mT) * scale
        # The mean over tiles of what they found is one product with the mean weights: no (N, E) is formed.
        mean_mG1S = torch.softmax(logit_mGNS, 3).mean(2, keepdim=True)
        heard_mGE = torch.matmul(mean_mG1S, made("set_value", token_mGSE))[:, :, 0]
        return torch.cat([found_mGSE.mean(2), heard_mGE], 2)


class GeneSetTokens(nn.Module):
    """One vector for each gene set: a ReLU layer of its genes' own, (M, B, S, E)."""

    def __init__(self, networks: int, sets: Sequence[Sequence[int]], width: int) -> None:
        super().__init__()
        self.sets = [list(places) for places in sets]
        self.layers = nn.ModuleList(Linear(networks, len(places), width) for places in sets)

    def forward(self, rna_MBG: Tensor) -> Tensor:
        tokens = [layer(rna_MBG[:, :, places]) for layer, places in zip(self.layers, self.sets, strict=True)]
        return torch.relu(torch.stack(tokens, 2))


class CoAttention(TileModel):
    """Co-attention between gene sets and tiles, one layer, both directions; RNA also beside it.

    Attention weights shown are the tiles', one row for each gene set.

    Source: MCAT (Chen et al. 2021: genes attend to tiles) and SurvPath (Jaume et al. 2024: pathways and tiles attend to
    each other, without attention among tiles).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims, CoAttentionReader(settings, dims))
        first, networks = settings[0], len(settings)
        self.genes = Dropout([one.rna_dropout for one in settings], self.noise)
        self.tokens = GeneSetTokens(networks, dims.gene_sets, first.dim)
        width = len(dims.gene_sets) * first.dim
        self.token_stand_in = StandIn(networks, width, "rna") if may_lack(settings) else None

    @property
    def n_heads(self) -> int:
        return len(self.dims.gene_sets)

    def ask(self, known: Known) -> Tensor:
        token_MBX = self.tokens(self.genes(known.need("rna"))).flatten(2)
        return token_MBX if self.token_stand_in is None else self.token_stand_in(token_MBX, known)
