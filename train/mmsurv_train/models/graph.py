"""patch-gcn: tiles hear their neighbours on the slide before they are pooled.

Shape suffixes: m networks of a group, G bags of a group, N tiles, k neighbours, E width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.dims import Dims
from mmsurv_train.layers import Linear
from mmsurv_train.models.each_bag import Seen
from mmsurv_train.models.tiles import GatedAttention, TileModel, TileReader, apply, weighted
from mmsurv_train.recipe import ModelSettings


class GraphReader(TileReader):
    """A ReLU layer, graph convolutions over neighbouring tiles, gated attention over what all layers made."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        first, networks = settings[0], len(settings)
        super().__init__(networks, dims.features)
        width = first.dim
        self.k_neighbours = first.neighbours
        self.embed = Linear(networks, dims.features, width)
        self.layers = nn.ModuleList(Linear(networks, width, width) for _ in range(first.graph_layers))
        self.temperature = nn.Parameter(torch.ones(networks, first.graph_layers))
        self.merge = Linear(networks, width * (1 + first.graph_layers), width)
        self.attention = GatedAttention(networks, width, first.attention_hidden)
        self.pooled = width

    def forward(self, x_GND: Tensor, seen: Seen) -> Tensor:
        assert seen.neighbours is not None
        h_mGNE = torch.relu(self.first(self.embed, x_GND, seen))
        depths = [h_mGNE]
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Linear)
            warmth_m = seen.take(self.temperature)[:, index]
            h_mGNE = h_mGNE + torch.relu(apply(layer, h_mGNE + _heard(h_mGNE, seen.neighbours, warmth_m), seen))
            depths.append(h_mGNE)
        merged_mGNE = torch.relu(apply(self.merge, torch.cat(depths, 3), seen))
        return weighted(self.attention(merged_mGNE, seen), merged_mGNE, seen)[:, :, 0]


def _heard(h_mGNE: Tensor, neighbours_GNk: Tensor, warmth_m: Tensor) -> Tensor:
    """What each tile hears of its neighbours: channel by channel a softmax-weighted mean, (m, G, N, E)."""
    parts = [h_mNE[:, places_Nk] for h_mNE, places_Nk in zip(h_mGNE.unbind(1), neighbours_GNk, strict=True)]
    near_mGNkE = torch.stack(parts, 1)
    weight_mGNkE = torch.softmax(near_mGNkE * warmth_m[:, None, None, None, None], 3)
    return (weight_mGNkE * near_mGNkE).sum(3)


class PatchGcn(TileModel):
    """Graph convolutions over the tiles' neighbours on the slide, then gated attention. No edge crosses slides.

    Convolutions are of the generalised form with softmax aggregation (Li et al. 2020) and residual; all depths are
    merged. Without the paper's layer norms and edge features.

    Source: Chen et al. 2021, MICCAI (Patch-GCN).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims, GraphReader(settings, dims))
