"""How the tiles of ragged bags are read: in groups, block by block, by several threads.

Owns the conversion: blocks are converted into a buffer that stays in the cache and is used again, from whatever holds
the bags. What is computed from a bag's blocks does not depend on the number of threads.

Shape suffixes: B bags, N tiles of a bag, n tiles of a block, D feature dim, R rows of u for one bag, T rows of u for
all bags, one bag after another, G bags of a group (alike in N and R).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from mmsurv_train.threads import run_beside, share_out, stop_if_told

BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Feature values converted at a time: 4 MiB of float32 on a CPU, where both products meet them in its cache."""
WORTH_THREADS = 1 << 17
"""Feature values of a bag from which on several threads are quicker than one. What is done for a smaller one is mostly
Python, in which threads wait for each other."""


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


def converted(bags: TileBags, order: Sequence[int], like: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Every bag in blocks: its index, the place of the block's rows and the rows (n, D) in the dtype of ``like``."""
    plan = Plan(bags=bags, rows=[1] * len(bags.lengths), offsets=[], like=like, groups=[])
    for (index,), blocks in plan.read([[index] for index in order]):
        for place, x_GnD in blocks:
            yield index, place, x_GnD[0]


@dataclass
class Plan:
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
    def of(cls, rows: Sequence[int], bags: TileBags, like: Tensor) -> Plan:
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


def _block_elements(like: Tensor) -> int:
    return BLOCK_ELEMENTS.get(like.device.type, BLOCK_ELEMENTS["cuda"])
