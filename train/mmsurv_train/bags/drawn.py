"""The bags of one step: which rows they hold, and how these are gone through.

Owns that every way of reading gives the same pieces: one tensor for each run of rows, in the order of the draw, so that
whatever is computed from them has the same bits.

Shape suffixes: B bags, N tiles, D feature dim.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from mmsurv_train.bags.moments import Moments, merged, moments_of, rows_at_a_time
from mmsurv_train.bags.neighbours import Neighbours
from mmsurv_train.bags.rows import Rows
from mmsurv_train.bags.windows import Span


class DrawnBags:
    """Bags that were drawn from ``Bags.draw``; nothing is read before it is asked for."""

    lengths: list[int]
    """Tiles of each bag, at least one."""
    dim: int

    def __init__(
        self,
        spans: Sequence[Sequence[Span]],
        rows: Rows,
        moments: Mapping[str, Moments],
        *,
        dim: int,
        device: torch.device,
        neighbours: Neighbours | None = None,
    ) -> None:
        """
        Args:
            spans: the rows of each bag.
            rows: where they are.
            moments: of all rows of each slide.
            dim: width of a row.
            device: where tensors are asked for.
            neighbours: which tiles of a slide lie next to one another.
        """
        self._neighbours = neighbours
        self._spans, self._rows, self._moments, self._device = spans, rows, moments, device
        self.lengths = [sum(span.n for span in bag) for bag in spans]
        self.dim = dim

    def __len__(self) -> int:
        return len(self._spans)

    def pieces(self, order: Sequence[int], *, readers: int = 1) -> Generator[Sequence[Tensor], None, None]:
        """The rows of bags, in the stored dtype.

        Args:
            order: which bags, in the order they are wanted; a streamed store is read ahead in it.
            readers: how many threads go through bags at once, each by a call of its own: they share the memory for
                features, and take turns where it does not hold a bag of each.

        Yields:
            For each bag its rows in turn, as one or more tensors (n, D). Where features are mapped or in memory, views
            of them. They are valid until the next bag is asked for: the memory of a streamed one is used again. A
            generator that is not used up should be closed, which ends its thread.

        Raises:
            StoreError: a file is no longer the one that was opened.
        """
        bags = [self._spans[index] for index in order]
        self._rows.check(bags)  # also of bags that were drawn long ago
        return self._on_device(bags, readers)

    def neighbours(self, index: int, k: int) -> Tensor:
        """Rows of the k nearest tiles of each tile of a bag on its slide, (N, k) int64.

        Raises:
            ValueError: it is not known where tiles lie, or the bag holds parts of slides.
        """
        if self._neighbours is None:
            raise ValueError("it is not known where the tiles of these bags lie")
        found, first = [], 0
        for span in self._spans[index]:
            n_tiles = self._moments[span.slide_id].n
            if (span.start, span.stop) != (0, n_tiles):
                raise ValueError("neighbours are those on the whole slide: draw whole bags (bags.size = 0)")
            found.append(self._neighbours.of(span.slide_id, k, n_tiles=n_tiles).astype("int64") + first)
            first += n_tiles
        return torch.from_numpy(np.concatenate(found))

    def means(self) -> Tensor:
        """Mean of the tiles of each bag, (B, D) float32; bags of whole slides are not read for it."""
        parts: list[Moments | None] = [self._known(spans) for spans in self._spans]
        unknown = [index for index, part in enumerate(parts) if part is None]
        for index, tensors in zip(
            unknown, self._rows.pieces([self._spans[index] for index in unknown], 1), strict=True
        ):
            blocks = (block for tensor in tensors for block in tensor.cpu().split(rows_at_a_time(self.dim)))
            parts[index] = moments_of(blocks, self._spans[index][0].slide_id, self.lengths[index])
        return torch.stack([torch.from_numpy(part.mean) for part in parts if part]).float().to(self._device)

    def _known(self, spans: Sequence[Span]) -> Moments | None:
        """Moments of a bag of whole slides; None of any other."""
        whole = [self._moments[span.slide_id] for span in spans]
        if any(moments.n != span.n for moments, span in zip(whole, spans, strict=True)):
            return None
        return merged(whole)

    def _on_device(self, bags: Sequence[Sequence[Span]], readers: int) -> Generator[Sequence[Tensor], None, None]:
        with closing(self._rows.pieces(bags, readers)) as pieces:
            for tensors in pieces:
                yield [tensor.to(self._device) for tensor in tensors]
