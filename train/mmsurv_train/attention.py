"""Exact cross-attention over all tiles of ragged bags, without forming keys or values.

With X a bag's frozen tile features, a query q sees logit_i = q · (W_k x_i) / √d = x_i · u for u = W_kᵀ q / √d, and
Σ a_i W_v x_i = W_v (Xᵀ a). So a bag costs two thin products with X (``pool``), and what is left is reading it. A key
bias would shift all logits of a bag alike and drop out of the softmax: there is none.

Shape suffixes: M networks, B bags, N tiles of a bag, D feature dim, E attention dim, Q queries, H heads, F = E / H,
R = Q × H rows of u.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.blocks import ListedBags, TileBags, converted
from mmsurv_train.layers import Linear, linear
from mmsurv_train.pool import softmax_pool


class CrossAttention(nn.Module):
    """Scaled dot-product attention: queries from elsewhere, keys and values from frozen tile features.

    The same function as ``torch.nn.MultiheadAttention`` with its query and output projections left out (compared in
    tests/reference/test_attention.py), for M networks at once, which read a bag together. Features are standardised by
    ``feature_mean`` and ``feature_sd`` on the way; set them from the training part with ``standardise_by``.
    """

    feature_mean: Tensor
    feature_sd: Tensor
    basis: Tensor | None
    """What keys and values see of standardised features, (M, K, D); None: the features themselves."""

    def __init__(
        self,
        *,
        feature_dim: int,
        dim: int,
        heads: int = 1,
        networks: int = 1,
        dropout: float = 0.0,
        components: int = 0,
    ) -> None:
        """
        Args:
            feature_dim: width of a tile's features.
            dim: width of queries, keys and values, all heads together.
            heads: parts of ``dim`` that attend for themselves.
            networks: how many attend beside one another, each with parameters of its own.
            dropout: rate at which attention weights are dropped by ``forward`` while training, from torch's global
                random state. Survival models drop by seeds of their own instead.
            components: K of the features' components that keys and values are made of (``basis``, which is set from
                outside); 0: of the features.
        """
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.heads, self.dropout = heads, dropout
        self.key = Linear(networks, components or feature_dim, dim, bias=False)
        self.value = Linear(networks, components or feature_dim, dim)
        self.feature_dim = feature_dim
        self.register_buffer("basis", torch.zeros(networks, components, feature_dim) if components else None)
        self.register_buffer("feature_mean", torch.zeros(networks, feature_dim))
        self.register_buffer("feature_sd", torch.ones(networks, feature_dim))
        for layer in (self.key, self.value):
            layer.initialise_as_torch()

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        """Take mean and standard deviation (all above zero) of the training part's tiles; (D,) for all networks."""
        self.feature_mean.copy_(mean_MD)
        self.feature_sd.copy_(sd_MD)

    def _of_features(self, layer: Linear) -> Tensor:
        """The weights of a layer as it sees standardised features, (M, E, D)."""
        return layer.weight if self.basis is None else torch.bmm(layer.weight, self.basis)

    def absorbs(self, n_queries: int) -> bool:
        """Whether keys and values are left unformed; with many queries or heads forming them is less work."""
        return self.heads * n_queries < self.key.weight.shape[1] / 2

    def ask(self, query_MBQE: Tensor) -> Tensor:
        """u of every query and head for raw features, (M, B, R, D). The mean shifts a bag's logits alike: it drops out.

        What the tiles answer, z and s of ``pool.softmax_pool``, goes to ``answer``.
        """
        query_MBQHF = query_MBQE.unflatten(3, (self.heads, -1))
        key_MED = self._of_features(self.key) / (math.sqrt(query_MBQHF.shape[4]) * self.feature_sd[:, None])
        if self.heads == 1:
            query_MXE = query_MBQE.flatten(1, 2)
            u_MXD = torch.bmm(query_MXE, key_MED) if len(key_MED) > 1 else (query_MXE[0] @ key_MED[0])[None]
            return u_MXD.view(*query_MBQE.shape[:3], -1)
        key_MHFD = key_MED.unflatten(1, (self.heads, -1))
        return torch.einsum("mbqhf,mhfd->mbqhd", query_MBQHF, key_MHFD).flatten(2, 3)

    def answer(self, z_MBRD: Tensor, s_MBR: Tensor) -> Tensor:
        """Weighted means of the values, (M, B, Q, E), from the weighted sums of the raw features."""
        value_MHFD = (self._of_features(self.value) / self.feature_sd[:, None]).unflatten(1, (self.heads, -1))
        shift_MHF = torch.einsum("mhfd,md->mhf", value_MHFD, self.feature_mean)
        assert self.value.bias is not None
        bias_MHF = self.value.bias.unflatten(1, (self.heads, -1)) - shift_MHF
        z_MBQHD = z_MBRD.unflatten(2, (-1, self.heads))
        s_MBQH1 = s_MBR.unflatten(2, (-1, self.heads))[..., None]
        if self.heads == 1:
            out_MXF = linear(z_MBRD.flatten(1, 2), value_MHFD[:, 0])
            out_MBQHF = out_MXF.unflatten(1, z_MBRD.shape[1:3])[:, :, :, None]
        else:
            out_MBQHF = torch.einsum("mbqhd,mhfd->mbqhf", z_MBQHD, value_MHFD)
        return (out_MBQHF + s_MBQH1 * bias_MHF[:, None, None]).flatten(3)

    def forward(
        self, query_MBQE: Tensor, bags: TileBags | Sequence[Tensor], *, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query_MBQE: queries of each network and bag.
            bags: B bags, or tensors (N, D), N at least 1 and its own in each bag, of any floating dtype; no gradient
                reaches them.
            weights: takes the attention weights of each bag, before dropout: tensors (M, Q, H, N) that sum to 1 over
                tiles. They fall out of the one read.

        Returns:
            Weighted means of the values, (M, B, Q, E), dtype of the queries.

        Raises:
            ValueError: an empty bag, a bag of another width, or not one bag for each row of queries.
        """
        bags = as_bags(bags, feature_dim=self.feature_dim)
        networks, batch, queries, _ = query_MBQE.shape
        if len(bags.lengths) != batch:
            raise ValueError(f"{batch} rows of queries need as many bags, not {len(bags.lengths)}")
        if weights is None and not self.absorbs(queries):
            return self._with_keys(query_MBQE, bags)
        u_BMRD = self.ask(query_MBQE).transpose(0, 1)
        rows = [u_BMRD.shape[1] * u_BMRD.shape[2]] * batch
        rate = self.dropout if self.training else 0.0
        factors = {i: _factors(u_BMRD, bags.lengths[i], rows[i], rate) for i in range(batch)} if rate else None
        found: list[Tensor] | None = None if weights is None else []
        z_TD, s_T = softmax_pool(
            u_BMRD.flatten(0, 2), rows, bags, keep=factors.__getitem__ if factors else None, weights=found
        )
        if weights is not None and found is not None:
            weights += [a_RN.unflatten(0, (networks, queries, self.heads)) for a_RN in found]
        z_BMRD, s_BMR = z_TD.view_as(u_BMRD), s_T.view(u_BMRD.shape[:3])
        return self.answer(z_BMRD.transpose(0, 1), s_BMR.transpose(0, 1))

    def _with_keys(self, query_MBQE: Tensor, bags: TileBags) -> Tensor:
        """The textbook way, bag by bag, for when it is less arithmetic."""
        outs = []
        for b, bag_ND in _whole(bags, query_MBQE):
            x_MND = (bag_ND - self.feature_mean[:, None]) / self.feature_sd[:, None]
            if self.basis is not None:
                x_MND = torch.bmm(x_MND, self.basis.mT)
            query_MHQF, key_MHNF, value_MHNF = (
                part_MXE.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for part_MXE in (query_MBQE[:, b], self.key(x_MND), self.value(x_MND))
            )
            out_MHQF = nn.functional.scaled_dot_product_attention(
                query_MHQF, key_MHNF, value_MHNF, dropout_p=self.dropout if self.training else 0.0
            )
            outs.append(out_MHQF.transpose(1, 2).flatten(2))
        return torch.stack(outs, 1)


class AttentionPooling(CrossAttention):
    """Attention with learnt queries, the same for every bag: pooling of tiles without RNA."""

    def __init__(self, *, feature_dim: int, dim: int, queries: int = 1, heads: int = 1, networks: int = 1) -> None:
        super().__init__(feature_dim=feature_dim, dim=dim, heads=heads, networks=networks)
        self.query = nn.Parameter(torch.randn(networks, 1, queries, dim))

    def pool(self, bags: TileBags | Sequence[Tensor], *, weights: list[Tensor] | None = None) -> Tensor:
        """Weighted means of the values by each learnt query, (M, B, Q, E); raises as ``forward`` does."""
        bags = as_bags(bags, feature_dim=self.feature_dim)
        return self(self.query.expand(-1, len(bags.lengths), -1, -1), bags, weights=weights)


def as_bags(bags: TileBags | Sequence[Tensor], *, feature_dim: int) -> TileBags:
    """Bags with tiles of a known width.

    Raises:
        ValueError: an empty bag, or one of another width.
    """
    if isinstance(bags, Sequence):
        for index, bag in enumerate(bags):
            if bag.ndim != 2 or bag.shape[1] != feature_dim:
                raise ValueError(f"bag {index} must have the shape (tiles, {feature_dim}), not {tuple(bag.shape)}")
        bags = ListedBags(bags)
    if len(bags.lengths) and bags.dim != feature_dim:
        raise ValueError(f"bags of {bags.dim} features were given to a model of {feature_dim}")
    for index, length in enumerate(bags.lengths):
        if not length:
            raise ValueError(f"bag {index} has no tiles: attention over nothing is undefined. Leave the case out.")
    return bags


def _whole(bags: TileBags, like: Tensor) -> list[tuple[int, Tensor]]:
    parts: dict[int, list[Tensor]] = {}
    for index, _, x_nD in converted(bags, range(len(bags.lengths)), like):
        parts.setdefault(index, []).append(x_nD.clone())
    return [(index, torch.cat(found)) for index, found in parts.items()]


def _factors(like: Tensor, n_tiles: int, n_rows: int, rate: float) -> Tensor:
    return like.new_empty(n_tiles, n_rows).bernoulli_(1 - rate).div_(1 - rate)
