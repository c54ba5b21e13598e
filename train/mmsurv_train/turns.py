"""Who sees which bags in one step, and how what many networks look for is brought together to one read of the bags.

Shape suffixes: M networks of a stack, B bags of a network (padded to the most), D feature dim, R rows of u, T rows of u
of all networks and stacks, ordered by bag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mmsurv_train.bags import Bags, Draw
from mmsurv_train.blocks import TileBags
from mmsurv_train.models import Known, Pooled, SurvivalModel
from mmsurv_train.models.each_bag import Pairs, read_each
from mmsurv_train.pool import Keep, softmax_pool
from mmsurv_train.stack import Stack


@dataclass(frozen=True, eq=False)
class Turn:
    """The bags of one step, and which of them each network sees."""

    slides: list[list[str]]
    """Slides of each bag."""
    patient: np.ndarray
    """Whose bag it is: a row of all patients."""
    names: list[str]
    """Name of each bag's patient, which fixes its dropout."""
    seen: list[list[np.ndarray]]
    """Of each stack and network: its bags, those it trains on first."""
    n_train: list[list[int]]
    """Of each stack and network: how many of these it trains on; the others are only scored."""
    size: int = 0
    """Tiles of a bag; 0 = all."""
    draw: Draw | None = None
    _rows: dict[int, Tensor] = field(default_factory=dict)

    def rows(self, stack: int) -> Tensor:
        """Bags of a stack's networks, (M, B); places that hold none repeat the first."""
        if stack not in self._rows:
            seen = self.seen[stack]
            width = max(len(bags) for bags in seen)
            rows = np.zeros((len(seen), width), np.int64)
            for m, bags in enumerate(seen):
                rows[m, : len(bags)] = bags
            self._rows[stack] = torch.from_numpy(rows)
        return self._rows[stack]

    @cached_property
    def with_tiles(self) -> list[int]:
        """Bags that have tiles; the others are of patients without slides."""
        return [bag for bag, slides in enumerate(self.slides) if slides]

    @cached_property
    def place_read(self) -> np.ndarray:
        """Where each bag is among those that have tiles; -1 where it has none."""
        place = np.full(len(self.slides), -1)
        place[self.with_tiles] = np.arange(len(self.with_tiles))
        return place

    def used(self, stack: int) -> Tensor:
        """Which places of ``rows`` hold a bag, (M, B)."""
        return torch.arange(self.rows(stack).shape[1]) < torch.tensor([[len(bags)] for bags in self.seen[stack]])

    def trained(self, stack: int) -> Tensor:
        """Which places of ``rows`` hold a bag that is trained on, (M, B)."""
        return torch.arange(self.rows(stack).shape[1]) < torch.tensor(self.n_train[stack])[:, None]


class Reader:
    """Pools a turn's bags for all stacks in one read."""

    def __init__(self, turn: Turn, bags: Bags | None, stacks: Sequence[Stack]) -> None:
        self.turn, self.bags, self.stacks = turn, bags, stacks
        self._seeing = [s for s in range(len(stacks)) if turn.rows(s).shape[1]]
        self._asking = [s for s in self._seeing if stacks[s].model.pools == "attention"]
        self._pairs: dict[int, Pairs] = {}

    @cached_property
    def drawn(self) -> TileBags:
        """The bags that have tiles."""
        assert self.bags is not None
        slides = [self.turn.slides[bag] for bag in self.turn.with_tiles]
        return self.bags.draw(slides, size=self.turn.size, draw=self.turn.draw)

    @cached_property
    def means(self) -> Tensor:
        """Mean tile of each bag, (bags, D); 0 where it has none."""
        assert self.bags is not None
        slides = [self.turn.slides[bag] for bag in self.turn.with_tiles]
        if self.turn.size:
            found = self.bags.draw(slides, size=self.turn.size, draw=self.turn.draw).means()
        else:
            found = torch.cat([self.bags.mean(of_bag) for of_bag in slides])
        if len(found) == len(self.turn.slides):
            return found
        places = torch.tensor(self.turn.with_tiles, device=found.device)
        return found.new_zeros(len(self.turn.slides), found.shape[1]).index_copy_(0, places, found)

    def pool(self, known: Sequence[Known], *, training: bool) -> list[Pooled]:
        """What each stack is told of the tiles.

        Args:
            known: of each stack, for (M, B) patients.
            training: whether attention weights are dropped.
        """
        pooled: list[Pooled] = [None] * len(self.stacks)
        for s, answer in zip(self._asking, self._attend(known, training=training), strict=True):
            pooled[s] = answer
        for s in self._seeing:
            model = self.stacks[s].model
            if model.pools == "mean":
                like = next(model.parameters())
                pooled[s] = self.means.to(like)[self.turn.rows(s).to(like.device)]
            elif model.pools == "tiles":
                pooled[s] = self._see(s, known[s], training=training)
        return pooled

    def _see(self, s: int, known: Known, *, training: bool) -> Tensor:
        """What a stack whose networks see every tile makes of the bags, (M, B, P)."""
        model, turn = self.stacks[s].model, self.turn
        if s not in self._pairs:
            self._pairs[s] = _pairs_of(turn, s, self.drawn, next(model.parameters()).device)
        asked_MBC = model.ask(known)
        asked_MBC = asked_MBC.expand(-1, self._pairs[s].shape[1], -1)
        rates = model.attention_rates
        trained = [set(seen[:n].tolist()) for seen, n in zip(turn.seen[s], turn.n_train[s], strict=True)]

        def keep(read: int, networks: Sequence[int]) -> Tensor | None:
            if not training or not any(rates):
                return None
            bag, n_tiles = turn.with_tiles[read], self.drawn.lengths[read]
            return torch.stack(
                [
                    model.noise.of_bag(m, rates[m], turn.names[bag], asked_MBC, n_tiles, 1)[:, 0]
                    if rates[m] and bag in trained[m]
                    else asked_MBC.new_ones(n_tiles)
                    for m in networks
                ]
            )

        return read_each(model.reader, asked_MBC, self._pairs[s], self.drawn, keep=keep)

    def _attend(self, known: Sequence[Known], *, training: bool) -> list[tuple[Tensor, Tensor]]:
        if not self._asking:
            return []
        route, parts, shapes = self._route, [], []
        for s, pairs in zip(self._asking, route.pairs, strict=True):
            u_MBRD = self.stacks[s].model.ask(known[s])
            u_MBRD = u_MBRD.expand(-1, self.turn.rows(s).shape[1], -1, -1)
            shapes.append(u_MBRD.shape)
            parts.append(u_MBRD.flatten(0, 2) if pairs is None else u_MBRD.flatten(0, 1)[pairs].flatten(0, 1))
            del u_MBRD  # these are what grows with the patients: none is kept for longer than it is needed
        u_TD = parts[0] if len(parts) == 1 else torch.cat(parts)[route.order]
        del parts
        z_TD, s_T = softmax_pool(u_TD, route.rows, self.drawn, keep=self._keep(route, u_TD, training=training))
        del u_TD
        return [
            _back(z_TD, s_T, pairs, place, shape)
            for pairs, place, shape in zip(route.pairs, route.places, shapes, strict=True)
        ]

    @cached_property
    def _route(self) -> _Route:
        models = [(s, self.stacks[s].model) for s in self._asking]
        return _Route.of(self.turn, models, device=next(models[0][1].parameters()).device)

    def _keep(self, route: _Route, like: Tensor, *, training: bool) -> Keep | None:
        rates = {s: self.stacks[s].model.attention_rates for s in self._asking}
        if not training or not any(rate for of_stack in rates.values() for rate in of_stack):
            return None

        def keep(read: int) -> Tensor:
            n_tiles, name, parts = self.drawn.lengths[read], self.turn.names[self.turn.with_tiles[read]], []
            for s, m, trained, n_rows in route.askers[read]:
                if trained and rates[s][m]:
                    parts.append(self.stacks[s].model.noise.of_bag(m, rates[s][m], name, like, n_tiles, n_rows))
                else:
                    parts.append(like.new_ones(n_tiles, n_rows))
            return torch.cat(parts, 1)

        return keep


@dataclass(frozen=True, eq=False)
class _Route:
    """From each stack's (M, B, R) to rows ordered by bag, and back."""

    rows: list[int]
    """Rows of u of each bag that has tiles."""
    pairs: list[Tensor | None]
    """Of each stack: its places (network, bag) ordered by bag; None where all are used and in that order already."""
    order: Tensor
    """Rows of all stacks, one stack after another, in the order of the bags."""
    places: list[Tensor | None]
    """Of each stack: where its rows are among all; None where it is the only one."""
    askers: list[list[tuple[int, int, bool, int]]]
    """Of each bag, in order: stack, network, whether it is trained on, rows."""

    @classmethod
    def of(cls, turn: Turn, asking: Sequence[tuple[int, SurvivalModel]], *, device: torch.device) -> _Route:
        rows, askers = [0] * len(turn.with_tiles), [list[tuple[int, int, bool, int]]() for _ in turn.with_tiles]
        pairs, bag_of_row, first, places = list[Tensor | None](), [], 0, []
        for s, model in asking:
            n_rows = model.rows
            read = turn.place_read[turn.rows(s).flatten().numpy()]
            used = turn.used(s).flatten().numpy() & (read >= 0)
            flat = np.flatnonzero(used)
            bag = read[flat]
            by_bag = np.argsort(bag, kind="stable")
            flat, bag = flat[by_bag], bag[by_bag]
            in_order = np.array_equal(flat, np.arange(used.size))
            pairs.append(None if in_order else torch.from_numpy(flat).to(device))
            bag_of_row.append(np.repeat(bag, n_rows))
            places.append(np.arange(first, first + len(flat) * n_rows))
            first += len(flat) * n_rows
            width, trained = turn.rows(s).shape[1], turn.n_train[s]
            for place, b in zip(flat.tolist(), bag.tolist(), strict=True):
                m, column = divmod(place, width)
                rows[b] += n_rows
                askers[b].append((s, m, column < trained[m], n_rows))
        order = np.argsort(np.concatenate(bag_of_row), kind="stable")
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        alone = len(asking) == 1
        return cls(
            rows=rows,
            pairs=pairs,
            order=torch.from_numpy(order).to(device),
            places=[None if alone else torch.from_numpy(inverse[place]).to(device) for place in places],
            askers=askers,
        )


def _back(
    z_TD: Tensor, s_T: Tensor, pairs: Tensor | None, place: Tensor | None, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """z and s of one stack, (M, B, R, …), from those of all stacks; what no bag answers is 0."""
    z_XD, s_X = (z_TD, s_T) if place is None else (z_TD[place], s_T[place])
    if pairs is not None:
        networks, width, rows, dim = shape
        z_XD = z_XD.new_zeros(networks * width, rows, dim).index_copy_(0, pairs, z_XD.view(-1, rows, dim))
        s_X = s_X.new_ones(networks * width, rows).index_copy_(0, pairs, s_X.view(-1, rows))
    return z_XD.view(shape), s_X.view(shape[:3])


def _pairs_of(turn: Turn, s: int, drawn: TileBags, device: torch.device) -> Pairs:
    """Which networks of a stack see which of the bags that have tiles."""
    seen: list[list[tuple[int, int]]] = [[] for _ in drawn.lengths]
    for m, bags in enumerate(turn.seen[s]):
        for column, read in enumerate(turn.place_read[bags].tolist()):
            if read >= 0:
                seen[read].append((m, column))
    networks, width = turn.rows(s).shape
    return Pairs.of(seen, drawn.lengths, drawn.dim, (networks, width), device)
