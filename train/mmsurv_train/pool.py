"""Softmax-weighted sums of the tiles of ragged bags: z = Xᵀ a with a = softmax(X u), exactly, and its gradient.

Each block of tiles serves both products of a pass while it is in the cache (``blocks``). The bits do not depend on the
number of threads.

Shape suffixes: B bags, N tiles of a bag, n tiles of a block, D feature dim, R rows of u for one bag, T rows of u for
all bags, one bag after another, G bags of a group (alike in N and R).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmsurv_train.blocks import Plan, TileBags

KEPT_BYTES = 128 << 20
"""Attention weights kept from the forward to the backward pass. Beyond, they are computed again from the logits'
logarithmic sums, so that memory does not grow with the tiles."""
HEADROOM = 20.0
"""By how much a logit may exceed the maximum that its softmax is taken relative to: exp(20) is far from overflow."""


Keep = Callable[[int], Tensor]
"""Dropout factors (N, R) of a bag's attention weights: 0 or 1 / (1 − rate). Asked twice, it gives the same."""


def softmax_pool(
    u_TD: Tensor,
    rows: Sequence[int],
    bags: TileBags,
    *,
    keep: Keep | None = None,
    weights: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Pool every bag by each of its rows of u.

    Args:
        u_TD: what tiles are compared with: the rows of the first bag, then those of the next; float32 or float64.
        rows: R of each bag; 0 leaves a bag out, and it is not read.
        bags: B bags, of any floating dtype; no gradient reaches them.
        keep: dropout of the weights.
        weights: takes the weights (R, N) of each bag, before dropout, in the bags' order.

    Returns:
        z (T, D), the weighted sum of tiles of each row, and s (T,), the sum of its weights: 1 without dropout.

    Raises:
        ValueError: an empty bag with rows, tiles of another width, or not one number of rows for each bag.
    """
    _check(u_TD, rows, bags)
    return _SoftmaxPool.apply(u_TD, Plan.of(rows, bags, u_TD), keep, weights)


@torch.no_grad()
def softmax_pool_each(us_BRD: Sequence[Tensor], bags: TileBags) -> list[Tensor]:
    """Pool every bag by the rows of several models, in one read of the bags and without a gradient.

    Each model's rows are multiplied on their own, so that not a bit of its z depends on who else is asked.

    Args:
        us_BRD: R rows for each bag, R its own for each model.

    Returns:
        z of each model, shaped as its u.
    """
    for u_BRD in us_BRD:
        _check(u_BRD.flatten(0, 1), [u_BRD.shape[1]] * len(u_BRD), bags)
    zs_BRD = [torch.empty_like(u_BRD) for u_BRD in us_BRD]
    plan = Plan.of([1] * len(bags.lengths), bags, us_BRD[0])

    def work(groups: list[list[int]]) -> None:
        for group, blocks in plan.read(groups):
            running = [_Running(u_BRD[group], plan.bags.lengths[group[0]]) for u_BRD in us_BRD]
            for place, x_GnD in blocks:
                for one in running:
                    one.add(place, x_GnD)
            for z_BRD, one in zip(zs_BRD, running, strict=True):
                z_BRD[group] = one.finish()[0]

    plan.run(work)
    return zs_BRD


class _Running:
    """Softmax and weighted sum of a group of bags, taken block by block."""

    def __init__(self, u_GRD: Tensor, n_tiles: int, keep_GNR: Tensor | None = None) -> None:
        groups, rows, _ = u_GRD.shape
        self.u_GDR, self.keep_GNR = u_GRD.mT, keep_GNR
        self.z_GRD = torch.zeros_like(u_GRD)
        self.e_GNR = u_GRD.new_empty(groups, n_tiles, rows)
        """exp(logit − top) of the blocks so far."""
        self.top_G1R: Tensor | None = None

    def add(self, place: slice, x_GnD: Tensor) -> None:
        e_GnR = self.e_GNR[:, place]
        _product(x_GnD, self.u_GDR, out=e_GnR)
        if self.top_G1R is None:
            self.top_G1R = e_GnR.amax(1, keepdim=True)
            e_GnR -= self.top_G1R
        else:
            e_GnR -= self.top_G1R
            if not float(e_GnR.amax()) <= HEADROOM:  # also where a row is not a number: the others are not to suffer
                self._raise_top(place, e_GnR)
        e_GnR.exp_()
        kept_GnR = e_GnR if self.keep_GNR is None else e_GnR * self.keep_GNR[:, place]
        _add_product(self.z_GRD, kept_GnR.mT, x_GnD)

    def _raise_top(self, place: slice, e_GnR: Tensor) -> None:
        """Take the softmax relative to the greater maximum of this block."""
        assert self.top_G1R is not None
        rise_G1R = e_GnR.amax(1, keepdim=True).clamp_min_(0)
        shrink_G1R = torch.exp(-rise_G1R)
        self.e_GNR[:, : place.start] *= shrink_G1R
        self.z_GRD *= shrink_G1R.mT
        self.top_G1R = self.top_G1R + rise_G1R
        e_GnR -= rise_G1R

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """z (G, R, D), the weights before dropout (G, N, R), and the logarithm of each softmax's sum (G, 1, R)."""
        assert self.top_G1R is not None
        total_G1R = self.e_GNR.sum(1, keepdim=True)
        self.e_GNR /= total_G1R
        self.z_GRD /= total_G1R.mT
        return self.z_GRD, self.e_GNR, self.top_G1R + total_G1R.log()


class _SoftmaxPool(torch.autograd.Function):
    """With t = X · dz + ds and the softmax's rule: du = Xᵀ (a′ ⊙ t − a (z · dz + s ds)), a′ the weights after dropout.

    One fused read forward, one backward; backward goes through the bags from the last, which the system's file cache
    may still hold where not all fit.
    """

    @staticmethod
    def forward(
        ctx: Any, u_TD: Tensor, plan: Plan, keep: Keep | None, weights: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        z_TD, s_T = torch.zeros_like(u_TD), u_TD.new_ones(len(u_TD))
        lengths = plan.bags.lengths
        elements = sum(lengths[i] * plan.rows[i] for group in plan.groups for i in group)
        kept = ctx.needs_input_grad[0] and elements * u_TD.element_size() <= KEPT_BYTES
        memory: dict[int, tuple[Tensor | None, Tensor]] = {}

        def work(groups: list[list[int]]) -> None:
            for group, blocks in plan.read(groups):
                keep_GNR = _factors(keep, group)
                running = _Running(plan.rows_of(group, u_TD), lengths[group[0]], keep_GNR)
                for place, x_GnD in blocks:
                    running.add(place, x_GnD)
                z_GRD, a_GNR, log_sum_G1R = running.finish()
                plan.put_rows(group, z_TD, z_GRD)
                if keep_GNR is not None:
                    plan.put_rows(group, s_T, (a_GNR * keep_GNR).sum(1))
                if ctx.needs_input_grad[0] or weights is not None:
                    memory[group[0]] = (a_GNR if kept or weights is not None else None, log_sum_G1R)

        plan.run(work)
        ctx.plan, ctx.keep = plan, keep
        if weights is not None:
            found = dict[int, Tensor]()
            for group in plan.groups:
                a_GNR = memory[group[0]][0]
                assert a_GNR is not None
                found |= {i: a_NR.T for i, a_NR in zip(group, a_GNR, strict=True)}
            weights += [found.get(i, u_TD.new_empty(0, length)) for i, length in enumerate(lengths)]
        ctx.memory = {first: (a if kept else None, log_sum) for first, (a, log_sum) in memory.items()}
        ctx.save_for_backward(None if kept else u_TD, z_TD, s_T)
        return z_TD, s_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        dz_TD, ds_T = gradients
        u_TD, z_TD, s_T = ctx.saved_tensors
        plan: Plan = ctx.plan
        # Products and norms without another tensor of their size, which is what grows with the patients.
        mean_T = torch.bmm(z_TD[:, None], dz_TD[:, :, None])[:, 0, 0] + s_T * ds_T
        du_TD = torch.zeros_like(z_TD)
        moved_T = (torch.linalg.vector_norm(dz_TD, dim=1) != 0) | (ds_T != 0)

        def work(groups: list[list[int]]) -> None:
            for group, blocks in plan.read(groups):
                a_GNR, log_sum_G1R = ctx.memory[group[0]]
                dz_GRD, keep_GNR = plan.rows_of(group, dz_TD), _factors(ctx.keep, group)
                ds_G1R = plan.rows_of(group, ds_T)[:, None]
                mean_G1R = plan.rows_of(group, mean_T)[:, None]
                u_GDR = plan.rows_of(group, u_TD).mT if a_GNR is None else None
                du_GRD, rest_GR = torch.zeros_like(dz_GRD), torch.zeros_like(mean_G1R[:, 0])
                for place, x_GnD in blocks:
                    t_GnR = _product(x_GnD, dz_GRD.mT)
                    if keep_GNR is None:
                        t_GnR -= mean_G1R - ds_G1R
                    else:
                        t_GnR = (t_GnR + ds_G1R) * keep_GNR[:, place] - mean_G1R
                    if u_GDR is None:
                        t_GnR *= a_GNR[:, place]
                    else:
                        t_GnR *= torch.exp(_product(x_GnD, u_GDR) - log_sum_G1R)
                    _add_product(du_GRD, t_GnR.mT, x_GnD)
                    rest_GR += t_GnR.sum(1)
                if keep_GNR is None:
                    # Gradients of a bag's logits add up to 0. What rounding left is taken back: where features are far
                    # from 0, it would be multiplied by all of their mean.
                    du_GRD -= rest_GR[..., None] * plan.rows_of(group, z_TD)
                plan.put_rows(group, du_TD, du_GRD)

        moved = [group for group in reversed(plan.groups) if bool(plan.rows_of(group, moved_T).any())]
        plan.run(work, moved)
        return du_TD, None, None, None


def _product(a_Gnk: Tensor, b_Gkm: Tensor, out: Tensor | None = None) -> Tensor:
    """Matrix products; of one bag as one plain product, for which the libraries are quicker than for a batch of one."""
    if len(a_Gnk) == 1:
        return torch.mm(a_Gnk[0], b_Gkm[0], out=None if out is None else out[0])[None]
    return torch.bmm(a_Gnk, b_Gkm, out=out)


def _add_product(to_Gnm: Tensor, a_Gnk: Tensor, b_Gkm: Tensor) -> None:
    if len(a_Gnk) == 1:
        to_Gnm[0].addmm_(a_Gnk[0], b_Gkm[0])
    else:
        to_Gnm.baddbmm_(a_Gnk, b_Gkm)


def _factors(keep: Keep | None, group: list[int]) -> Tensor | None:
    return None if keep is None else torch.stack([keep(index) for index in group])


def _check(u_TD: Tensor, rows: Sequence[int], bags: TileBags) -> None:
    if len(rows) != len(bags.lengths) or sum(rows) != len(u_TD):
        raise ValueError(
            f"{len(bags.lengths)} bags need as many numbers of rows, together {len(u_TD)}, "
            f"not {len(rows)}, together {sum(rows)}"
        )
    if len(rows) and u_TD.shape[1] != bags.dim:
        raise ValueError(f"bags of {bags.dim} features cannot be asked with {u_TD.shape[1]} numbers")
    for index, (length, n_rows) in enumerate(zip(bags.lengths, rows, strict=True)):
        if n_rows and not length:
            raise ValueError(f"bag {index} has no tiles: attention over nothing is undefined. Leave the case out.")
