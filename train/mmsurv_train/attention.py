"""Exact cross-attention over all tiles of ragged bags, without forming keys or values.

With X a bag's frozen tile features, a query q sees logit_i = q · (W_k x_i) / √d = x_i · u for u = W_kᵀ q / √d, and
Σ a_i W_v x_i = W_v (Xᵀ a). So a bag costs two thin products with X, and what is left is reading it. A key bias would
shift all logits of a bag alike and drop out of the softmax: there is none.

Shape suffixes: B bags, N tiles of a bag, D feature dim, E attention dim, Q queries, H heads, R = Q × H rows of u.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

BLOCK_ELEMENTS = 1 << 20
"""Feature values converted to the computing dtype at a time: 4 MiB of float32, so that both products meet in cache."""


class CrossAttention(nn.Module):
    """Scaled dot-product attention: queries from elsewhere, keys and values from frozen tile features.

    The same function as ``torch.nn.MultiheadAttention`` with its query and output projections left out (compared in
    tests/reference/test_attention.py). Features are standardised by ``feature_mean`` and ``feature_sd`` on the way;
    set them from the training part with ``standardise_by``.
    """

    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(self, *, feature_dim: int, dim: int, heads: int = 1, dropout: float = 0.0) -> None:
        """
        Args:
            feature_dim: width of a tile's features.
            dim: width of queries, keys and values, all heads together.
            heads: parts of ``dim`` that attend for themselves.
            dropout: rate at which attention weights are dropped while training.
        """
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim ({dim}) must be a multiple of heads ({heads})")
        self.heads, self.dropout = heads, dropout
        self.key = nn.Linear(feature_dim, dim, bias=False)
        self.value = nn.Linear(feature_dim, dim)
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_sd", torch.ones(feature_dim))

    def standardise_by(self, mean_D: Tensor, sd_D: Tensor) -> None:
        """Take the mean and the standard deviation (all above zero) of the training part's tiles."""
        self.feature_mean.copy_(mean_D)
        self.feature_sd.copy_(sd_D)

    def absorbs(self, n_queries: int) -> bool:
        """Whether keys and values are left unformed; with many queries or heads forming them is less work."""
        return self.heads * n_queries < self.key.out_features / 2

    def forward(self, query_BQE: Tensor, bags: Sequence[Tensor]) -> Tensor:
        """Attend.

        Args:
            query_BQE: queries of each bag.
            bags: B tensors (N, D), N at least 1 and its own in each bag, of any floating dtype; no gradient
                reaches them.

        Returns:
            Weighted means of the values, shape (B, Q, E), dtype of the queries.

        Raises:
            ValueError: an empty bag, a bag of another width, or not one bag for each row of queries.
        """
        _check(query_BQE, bags, self.key.in_features)
        if not self.absorbs(query_BQE.shape[1]):
            return self._with_keys(query_BQE, bags)
        z_BRD, s_BR = _Pool.apply(self._absorbed(query_BQE), bags, self.dropout if self.training else 0.0)
        batch, queries, width = query_BQE.shape
        z_BQHD = ((z_BRD - s_BR[..., None] * self.feature_mean) / self.feature_sd).unflatten(1, (queries, -1))
        out_BQHF = torch.einsum("bqhd,hfd->bqhf", z_BQHD, self.value.weight.unflatten(0, (self.heads, -1)))
        bias_HF = self.value.bias.unflatten(0, (self.heads, -1))
        return (out_BQHF + s_BR.view(batch, queries, -1, 1) * bias_HF).reshape(batch, queries, width)

    @torch.no_grad()
    def weights(self, query_BQE: Tensor, bags: Sequence[Tensor]) -> list[Tensor]:
        """Attention weights of each bag, without dropout: tensors (Q, H, N) that sum to 1 over tiles."""
        _check(query_BQE, bags, self.key.in_features)
        shape = (query_BQE.shape[1], self.heads)
        return [
            torch.softmax(torch.cat([u_RD @ block.T for block in _row_blocks(bag, u_RD)], 1), 1).unflatten(0, shape)
            for bag, u_RD in zip(bags, self._absorbed(query_BQE), strict=True)
        ]

    def _absorbed(self, query_BQE: Tensor) -> Tensor:
        """u of every query and head, for raw features. The mean shifts all logits of a bag alike: it drops out."""
        query_BQHF = query_BQE.unflatten(2, (self.heads, -1))
        key_HFD = self.key.weight.unflatten(0, (self.heads, -1))
        u_BQHD = torch.einsum("bqhf,hfd->bqhd", query_BQHF, key_HFD)
        return (u_BQHD / (math.sqrt(key_HFD.shape[1]) * self.feature_sd)).flatten(1, 2)

    def _with_keys(self, query_BQE: Tensor, bags: Sequence[Tensor]) -> Tensor:
        """The textbook way, bag by bag, for when it is less arithmetic."""
        outs = []
        for query_QE, bag in zip(query_BQE, bags, strict=True):
            x_ND = (bag.to(query_QE.dtype) - self.feature_mean) / self.feature_sd
            query_HQF, key_HNF, value_HNF = (
                part.unflatten(1, (self.heads, -1)).transpose(0, 1)
                for part in (query_QE, self.key(x_ND), self.value(x_ND))
            )
            out_HQF = nn.functional.scaled_dot_product_attention(
                query_HQF, key_HNF, value_HNF, dropout_p=self.dropout if self.training else 0.0
            )
            outs.append(out_HQF.transpose(0, 1).flatten(1))
        return torch.stack(outs)


class _Pool(torch.autograd.Function):
    """z = Xᵀ a′ and s = Σ a′ of every bag and row of u, where a = softmax(X u) and a′ is a after dropout.

    Forward and backward read each bag once, block by block: the softmax is carried along as running maximum and sum.
    Backward, with t = X · dz + ds and the softmax's rule: du = Xᵀ (a′ ⊙ t − a (z · dz + s ds)).
    """

    @staticmethod
    def forward(ctx: Any, u_BRD: Tensor, bags: Sequence[Tensor], dropout: float) -> tuple[Tensor, Tensor]:
        z_BRD, s_BR = torch.empty_like(u_BRD), u_BRD.new_empty(u_BRD.shape[:2])
        ctx.bags, ctx.groups = bags, []
        for rows in _groups(bags):
            z_BRD[rows], s_BR[rows], a_GRN, kept_GRN = _pool_group([bags[i] for i in rows], u_BRD[rows], dropout)
            ctx.groups.append((rows, a_GRN, kept_GRN))
        ctx.save_for_backward(z_BRD, s_BR)
        return z_BRD, s_BR

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        dz_BRD, ds_BR = gradients
        z_BRD, s_BR = ctx.saved_tensors
        mean_BR = (z_BRD * dz_BRD).sum(2) + s_BR * ds_BR
        du_BRD = torch.zeros_like(z_BRD)
        for rows, a_GRN, kept_GRN in ctx.groups:
            start = 0
            dz_GRD, ds_GR1, mean_GR1 = dz_BRD[rows], ds_BR[rows, :, None], mean_BR[rows, :, None]
            du_GRD = torch.zeros_like(dz_GRD)
            for x_GND in _blocks([ctx.bags[i] for i in rows], dz_GRD):
                here = slice(start, start + x_GND.shape[1])
                t_GRN = dz_GRD @ x_GND.mT + ds_GR1
                if kept_GRN is not None:
                    t_GRN *= kept_GRN[..., here]
                du_GRD += (a_GRN[..., here] * (t_GRN - mean_GR1)) @ x_GND
                start = here.stop
            du_BRD[rows] = du_GRD
        return du_BRD, None, None


def _pool_group(bags: list[Tensor], u_GRD: Tensor, dropout: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """z, s, the attention weights and the dropout factors of G bags of one length."""
    z_GRD = torch.zeros_like(u_GRD)
    top_GR1 = u_GRD.new_full((*u_GRD.shape[:2], 1), torch.finfo(u_GRD.dtype).min)
    total_GR1, s_GR1 = torch.zeros_like(top_GR1), torch.zeros_like(top_GR1)
    logits, kept = [], []
    for x_GND in _blocks(bags, u_GRD):
        logit_GRN = u_GRD @ x_GND.mT
        new_top_GR1 = torch.maximum(top_GR1, logit_GRN.amax(2, keepdim=True))
        shrink_GR1 = torch.exp(top_GR1 - new_top_GR1)
        e_GRN = torch.exp(logit_GRN - new_top_GR1)
        total_GR1 = total_GR1 * shrink_GR1 + e_GRN.sum(2, keepdim=True)
        if dropout:
            kept.append(torch.empty_like(e_GRN).bernoulli_(1 - dropout) / (1 - dropout))
            e_GRN = e_GRN * kept[-1]
        s_GR1 = s_GR1 * shrink_GR1 + e_GRN.sum(2, keepdim=True)
        z_GRD = z_GRD * shrink_GR1 + e_GRN @ x_GND
        top_GR1 = new_top_GR1
        logits.append(logit_GRN)
    a_GRN = torch.exp(torch.cat(logits, 2) - top_GR1) / total_GR1
    return z_GRD / total_GR1, (s_GR1 / total_GR1)[..., 0], a_GRN, torch.cat(kept, 2) if kept else None


def _groups(bags: Sequence[Tensor]) -> list[list[int]]:
    """Indices of bags of one length, together as long as their features fit a block."""
    by_length: dict[int, list[int]] = {}
    for index, bag in enumerate(bags):
        by_length.setdefault(len(bag), []).append(index)
    groups = []
    for length, indices in by_length.items():
        at_once = max(1, BLOCK_ELEMENTS // (length * bags[0].shape[1]))
        groups += [indices[i : i + at_once] for i in range(0, len(indices), at_once)]
    return groups


def _blocks(bags: list[Tensor], like: Tensor) -> Iterator[Tensor]:
    """Blocks (G, n, D) of the rows of G bags of one length, in the dtype of ``like``."""
    if len(bags) > 1:
        yield torch.stack(bags).to(like.dtype)
    else:
        for block_ND in _row_blocks(bags[0], like):
            yield block_ND[None]


def _row_blocks(bag_ND: Tensor, like: Tensor) -> Iterator[Tensor]:
    for block_ND in bag_ND.split(max(1, BLOCK_ELEMENTS // bag_ND.shape[1])):
        yield block_ND.to(like.dtype)


def _check(query_BQE: Tensor, bags: Sequence[Tensor], feature_dim: int) -> None:
    if len(bags) != len(query_BQE):
        raise ValueError(f"{len(query_BQE)} rows of queries need as many bags, not {len(bags)}")
    for index, bag in enumerate(bags):
        if bag.ndim != 2 or bag.shape[1] != feature_dim:
            raise ValueError(f"bag {index} must have the shape (tiles, {feature_dim}), not {tuple(bag.shape)}")
        if not len(bag):
            raise ValueError(f"bag {index} has no tiles: attention over nothing is undefined. Leave the case out.")
