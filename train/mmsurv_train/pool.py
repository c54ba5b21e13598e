"""Softmax-weighted sums of the tiles of ragged bags: z = Xᵀ a with a = softmax(X u), exactly, and its gradient.

Owns how tiles are read for that: block by block, converted into a buffer that stays in the cache and serves both
products, from whatever holds the bags. Bags are dealt out to threads; the bits do not depend on how many there are.

Shape suffixes: B bags, N tiles of a bag, n tiles of a block, D feature dim, R rows of u for one bag, T rows of u for
all bags, one bag after another, G bags of a group (alike in N and R).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmsurv_train.threads import run_beside, share_out, stop_if_told

BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Feature values converted at a time: 4 MiB of float32 on a CPU, where both products meet them in its cache."""
KEPT_BYTES = 128 << 20
"""Attention weights kept from the forward to the backward pass. Beyond, they are computed again from the logits'
logarithmic sums, so that memory does not grow with the tiles."""
WORTH_THREADS = 1 << 17
"""Feature values of a bag from which on several threads are quicker than one. What is done for a smaller one is mostly
Python, in which threads wait for each other."""
HEADROOM = 20.0
"""By how much a logit may exceed the maximum that its softmax is taken relative to: exp(20) is far from overflow."""


class TileBags(Protocol):
    """Bags of tile features, wherever they are."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tiles of each bag."""

    @property
    def dim(self) -> int: ...

    def pieces(self, order: Sequence[int], *, readers: int = 1) -> Iterator[Sequence[Tensor]]:
        """The rows of each bag, in the order asked for, as one or more tensors (n, D).

        They are valid until the next bag is asked for. ``readers`` says how many such iterators are at work at once.
        """


@dataclass(frozen=True)
class ListedBags:
    """Bags that are tensors (N, D) in memory."""

    bags: Sequence[Tensor]
    lengths: list[int] = field(init=False)
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        for index, bag in enumerate(self.bags):
            if bag.ndim != 2 or bag.shape[1] != self.bags[0].shape[1]:
                raise ValueError(
                    f"bag {index} must have the shape (tiles, {self.bags[0].shape[-1]}), not {tuple(bag.shape)}"
                )
        object.__setattr__(self, "lengths", [len(bag) for bag in self.bags])
        object.__setattr__(self, "dim", self.bags[0].shape[1] if self.bags else 0)

    def pieces(self, order: Sequence[int], *, readers: int = 1) -> Iterator[Sequence[Tensor]]:
        del readers
        return ([self.bags[index]] for index in order)


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
    return _SoftmaxPool.apply(u_TD, _Plan.of(rows, bags, u_TD), keep, weights)


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
    plan = _Plan.of([1] * len(bags.lengths), bags, us_BRD[0])

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


def converted(bags: TileBags, order: Sequence[int], like: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Every bag in blocks: its index, the place of the block's rows and the rows (n, D) in the dtype of ``like``."""
    plan = _Plan(bags=bags, rows=[1] * len(bags.lengths), offsets=[], like=like, groups=[])
    for (index,), blocks in plan.read([[index] for index in order]):
        for place, x_GnD in blocks:
            yield index, place, x_GnD[0]


@dataclass
class _Plan:
    """In which groups bags are read. Small bags that are alike share one product."""

    bags: TileBags
    rows: Sequence[int]
    offsets: Sequence[int]
    """Where each bag's rows of u begin."""
    like: Tensor
    """Says dtype and device."""
    groups: list[list[int]]
    readers: int = 1
    """How many threads read at once."""

    @classmethod
    def of(cls, rows: Sequence[int], bags: TileBags, like: Tensor) -> _Plan:
        alike: dict[tuple[int, int], list[int]] = {}
        for index, (length, n_rows) in enumerate(zip(bags.lengths, rows, strict=True)):
            if n_rows:
                alike.setdefault((length, n_rows), []).append(index)
        groups = []
        for (length, _), indices in alike.items():
            at_once = max(1, _block_elements(like) // (length * bags.dim))
            groups += [indices[start : start + at_once] for start in range(0, len(indices), at_once)]
        groups.sort()  # the order in which the bags lie
        return cls(bags, rows, [0, *accumulate(rows)], like, groups)

    def rows_of(self, group: list[int], values_T: Tensor) -> Tensor:
        """The rows of a group of values (T, …), as (G, R, …); a view where the group's bags follow one another."""
        if group[-1] - group[0] == len(group) - 1:
            rows_T = values_T[self.offsets[group[0]] : self.offsets[group[-1] + 1]]
            return rows_T.unflatten(0, (len(group), -1))
        return torch.stack([values_T[self.offsets[i] : self.offsets[i + 1]] for i in group])

    def put_rows(self, group: list[int], into_T: Tensor, values_GR: Tensor) -> None:
        if group[-1] - group[0] == len(group) - 1:
            into_T[self.offsets[group[0]] : self.offsets[group[-1] + 1]] = values_GR.flatten(0, 1)
            return
        for index, values_R in zip(group, values_GR, strict=True):
            into_T[self.offsets[index] : self.offsets[index + 1]] = values_R

    def run(self, work: Callable[[list[list[int]]], None], groups: list[list[int]] | None = None) -> None:
        """Work on all groups: on a CPU in as many threads as torch would use, where that is worth it."""
        groups = self.groups if groups is None else groups
        if not groups:
            return

        def quietly(share: list[list[int]]) -> None:
            with torch.no_grad():
                work(share)

        if self.like.device.type != "cpu" or torch.get_num_threads() == 1:
            self.readers = 1
            quietly(groups)
            return
        a_bag = sum(map(self._tiles, groups)) * self.bags.dim / sum(map(len, groups))
        shares = share_out(groups, self._tiles, torch.get_num_threads() if a_bag >= WORTH_THREADS else 1)
        self.readers = len(shares)
        run_beside(quietly, shares)

    def _tiles(self, group: list[int]) -> int:
        return len(group) * self.bags.lengths[group[0]]

    def read(self, groups: list[list[int]]) -> Iterator[tuple[list[int], Iterator[tuple[slice, Tensor]]]]:
        """Each group with its blocks (place of the rows, x_GnD), which lie in one buffer that is used again."""
        if not groups:
            return
        longest = max(len(group) * min(self.bags.lengths[group[0]], self._block_rows()) for group in groups)
        buffer_ND = self.like.new_empty(longest, self.bags.dim)
        pieces = iter(self.bags.pieces([i for group in groups for i in group], readers=self.readers))
        try:
            for group in groups:
                stop_if_told()
                if len(group) > 1:
                    yield group, iter([self._together(group, pieces, buffer_ND)])
                else:
                    yield group, self._blocks(next(pieces), buffer_ND)
        finally:
            close = getattr(pieces, "close", None)
            if close:
                close()

    def _block_rows(self) -> int:
        return max(1, _block_elements(self.like) // self.bags.dim)

    def _together(
        self, group: list[int], pieces: Iterator[Sequence[Tensor]], buffer_ND: Tensor
    ) -> tuple[slice, Tensor]:
        length = self.bags.lengths[group[0]]
        start = 0
        for _ in group:
            for piece_ND in next(pieces):
                buffer_ND[start : start + len(piece_ND)].copy_(piece_ND)
                start += len(piece_ND)
        return slice(0, length), buffer_ND[:start].unflatten(0, (len(group), length))

    def _blocks(self, pieces: Sequence[Tensor], buffer_ND: Tensor) -> Iterator[tuple[slice, Tensor]]:
        limit = min(len(buffer_ND), self._block_rows())
        start = filled = 0
        for piece_ND in pieces:
            taken = 0
            while taken < len(piece_ND):
                part_ND = piece_ND[taken : taken + limit - filled]
                buffer_ND[filled : filled + len(part_ND)].copy_(part_ND)
                filled, taken = filled + len(part_ND), taken + len(part_ND)
                if filled == limit:
                    yield slice(start, start + filled), buffer_ND[None, :filled]
                    start, filled = start + filled, 0
        if filled:
            yield slice(start, start + filled), buffer_ND[None, :filled]


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
        ctx: Any, u_TD: Tensor, plan: _Plan, keep: Keep | None, weights: list[Tensor] | None
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
        plan: _Plan = ctx.plan
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
                du_GRD = torch.zeros_like(dz_GRD)
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


def _block_elements(like: Tensor) -> int:
    return BLOCK_ELEMENTS.get(like.device.type, BLOCK_ELEMENTS["cuda"])


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
