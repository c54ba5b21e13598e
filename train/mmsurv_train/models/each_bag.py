"""Models that form something of every tile: bag by bag, with the activations of few bags in memory at a time.

Owns the read: forward, a group of bags is read, seen by all its networks and forgotten; backward, it is read and seen
again with gradients (one recomputation a bag, as the absorbed attention reads twice). So memory does not grow with the
number of patients. A group holds bags of one length that the same networks see.

Shape suffixes: M networks, m networks of a group, B bags, G bags of a group, N tiles of a bag, D feature dim, C numbers
a reader is told of a patient, P pooled numbers, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmsurv_train.blocks import BLOCK_ELEMENTS, TileBags

Keep = Callable[[Sequence[int], int], Tensor]
"""Dropout factors (m, N) of some networks' attention weights over one bag; asked twice, it gives the same."""


class BagReader(nn.Module):
    """What sees the tiles of a bag: a network for each of M, with parameters (M, …)."""

    pooled: int
    """P."""
    k_neighbours: int = 0
    """How many neighbours of each tile it is told; 0: none."""

    def forward(self, x_GND: Tensor, seen: Seen) -> Tensor:
        """What networks ``seen.networks`` make of a group of bags, (m, G, P)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """Who sees a group of bags, and what they are told."""

    networks: Tensor
    """Which of the M, (m,) int64."""
    asked: Tensor
    """(m, G, C)."""
    neighbours: Tensor | None = None
    """Rows of each tile's neighbours in its bag, (G, N, k) int64."""
    keep: Tensor | None = None
    """Dropout factors of attention weights, (m, G, N)."""
    weights: list[Tensor] | None = None
    """Takes the attention weights of the group, (m, G, H, N), each network's and bag's adding up to 1 over tiles."""

    def take(self, parameter: Tensor) -> Tensor:
        """The networks' part of a parameter (M, …)."""
        return parameter if len(parameter) == len(self.networks) else parameter[self.networks]


@dataclass(frozen=True, eq=False)
class Group:
    """Bags of one length that the same networks see."""

    bags: list[int]
    """Among those that are read."""
    networks: list[int]
    places: Tensor
    """Of each network and bag among the flattened (M, B) of what is asked and answered, (m, G)."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which network sees which bag."""

    groups: list[Group]
    shape: tuple[int, int]
    """(M, B) of what is asked and answered."""

    @classmethod
    def of(cls, seen: Sequence[Sequence[tuple[int, int]]], lengths: Sequence[int], dim: int, shape: tuple[int, int],
           device: torch.device) -> Pairs:  # fmt: skip
        """
        Args:
            seen: of each bag: its networks, and the place in which each sees it, a column of (M, B).
            lengths, dim: tiles of each bag, and their width.
            shape: (M, B).
            device: of the networks.
        """
        alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for bag, pairs in enumerate(seen):
            if pairs:
                alike.setdefault((lengths[bag], tuple(m for m, _ in pairs)), []).append(bag)
        groups = []
        most = BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"])
        for (length, networks), bags in alike.items():
            at_once = max(1, most // (length * dim * len(networks)))
            for start in range(0, len(bags), at_once):
                chosen = bags[start : start + at_once]
                places = [[m * shape[1] + seen[bag][i][1] for bag in chosen] for i, m in enumerate(networks)]
                groups.append(Group(chosen, list(networks), torch.tensor(places, device=device)))
        return cls(sorted(groups, key=lambda group: group.bags[0]), shape)

    @classmethod
    def of_all(cls, networks: int, bags: TileBags, device: torch.device | None = None) -> Pairs:
        """Every network sees every bag."""
        n_bags = len(bags.lengths)
        seen = [[(m, bag) for m in range(networks)] for bag in range(n_bags)]
        return cls.of(seen, bags.lengths, bags.dim, (networks, n_bags), device or torch.device("cpu"))


class HasNeighbours(Protocol):
    """Bags that know which tiles are neighbours."""

    def neighbours(self, index: int, k: int) -> Tensor:
        """Rows of the k nearest tiles of each tile of a bag, (N, k) int64."""


def read_each(
    reader: BagReader,
    asked_MBC: Tensor,
    pairs: Pairs,
    bags: TileBags,
    *,
    keep: Callable[[int, Sequence[int]], Tensor | None] = lambda _bag, _networks: None,
    weights: list[Tensor] | None = None,
) -> Tensor:
    """What a reader makes of bags, (M, B, P); 0 where a network sees none.

    Args:
        reader: sees the tiles.
        asked_MBC: what it is told of each patient; C may be 0.
        pairs: which network sees which bag.
        bags: of any floating dtype; no gradient reaches them.
        keep: dropout factors (m, N) of a bag for some networks, or None.
        weights: takes the attention weights of each bag, (m, H, N), in the bags' order.
    """
    found: dict[int, Tensor] | None = None if weights is None else {}
    work = _Work(reader, pairs, bags, keep, found)
    pooled_MBP = _EachBag.apply(work, asked_MBC, *reader.parameters())
    if weights is not None and found is not None:
        weights += [found[bag] for bag in range(len(bags.lengths))]
    return pooled_MBP


@dataclass(frozen=True, eq=False)
class _Work:
    reader: BagReader
    pairs: Pairs
    bags: TileBags
    keep: Callable[[int, Sequence[int]], Tensor | None]
    found: dict[int, Tensor] | None

    def read(self, groups: Sequence[Group], like: Tensor) -> Iterator[tuple[Group, Tensor]]:
        pieces = iter(self.bags.pieces([bag for group in groups for bag in group.bags]))
        try:
            for group in groups:
                x_GND = like.new_empty(len(group.bags), self.bags.lengths[group.bags[0]], self.bags.dim)
                for g in range(len(group.bags)):
                    start = 0
                    for piece_nD in next(pieces):
                        x_GND[g, start : start + len(piece_nD)].copy_(piece_nD)
                        start += len(piece_nD)
                yield group, x_GND
        finally:
            close = getattr(pieces, "close", None)
            if close:
                close()

    def see(self, group: Group, x_GND: Tensor, asked_mGC: Tensor, weights: list[Tensor] | None) -> Tensor:
        keeps = [self.keep(bag, group.networks) for bag in group.bags]
        seen = Seen(
            networks=torch.tensor(group.networks, device=x_GND.device),
            asked=asked_mGC,
            neighbours=self._neighbours(group, x_GND.device),
            keep=None if keeps[0] is None else torch.stack([keep for keep in keeps if keep is not None], 1),
            weights=weights,
        )
        return self.reader(x_GND, seen)

    def _neighbours(self, group: Group, device: torch.device) -> Tensor | None:
        k = self.reader.k_neighbours
        if not k:
            return None
        ask = getattr(self.bags, "neighbours", None)
        if ask is None:
            raise ValueError("this model needs bags that know which tiles are neighbours")
        return torch.stack([ask(bag, k) for bag in group.bags]).to(device)


class _EachBag(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, asked_MBC: Tensor, *parameters: Tensor) -> Tensor:
        networks, n_bags = work.pairs.shape
        asked_XC = asked_MBC.flatten(0, 1)
        pooled_XP = asked_MBC.new_zeros(networks * n_bags, work.reader.pooled)
        for group, x_GND in work.read(work.pairs.groups, asked_MBC):
            weights: list[Tensor] | None = None if work.found is None else []
            pooled_XP[group.places.flatten()] = work.see(group, x_GND, asked_XC[group.places], weights).flatten(0, 1)
            if weights and work.found is not None:
                work.found.update({bag: weights[0][:, g] for g, bag in enumerate(group.bags)})
        ctx.work = work
        ctx.save_for_backward(asked_MBC, *parameters)
        return pooled_XP.view(networks, n_bags, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (dpooled_MBP,) = gradients
        work: _Work = ctx.work
        asked_MBC, *parameters = ctx.saved_tensors
        asked_XC, dpooled_XP = asked_MBC.flatten(0, 1), dpooled_MBP.flatten(0, 1)
        dasked_XC = torch.zeros_like(asked_XC)
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        groups = [group for group in reversed(work.pairs.groups) if bool(dpooled_XP[group.places].any())]
        for group, x_GND in work.read(groups, asked_MBC):
            with torch.enable_grad():
                asked_mGC = asked_XC[group.places].detach().requires_grad_()
                pooled_mGP = work.see(group, x_GND, asked_mGC, None)
            found = torch.autograd.grad(
                pooled_mGP, [asked_mGC, *parameters], dpooled_XP[group.places], allow_unused=True
            )
            if found[0] is not None:
                dasked_XC[group.places.flatten()] = found[0].flatten(0, 1)
            for total, gradient in zip(totals, found[1:], strict=True):
                if gradient is not None:
                    total += gradient
        return None, dasked_XC.view_as(asked_MBC), *totals
