"""Bags of a store that is larger than the memory for features: read ahead of whoever uses them.

Owns what memory that takes: one ring, used again for every bag and every epoch, so that it does not grow with the
number of slides and is never above the budget.

Shape suffixes: N tiles, D feature dim.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing

import torch
from torch import Tensor

from mmsurv.errors import ConfigError
from mmsurv_train.bags.ahead import Ring, aligned, read_ahead
from mmsurv_train.bags.memory import size_text
from mmsurv_train.bags.records import Record, some
from mmsurv_train.bags.rows import Rows
from mmsurv_train.bags.windows import Span

READ_AHEAD = 1 << 26
"""Bytes of the ring, unless two bags are larger or the budget is smaller."""


class Streamed(Rows):
    """Slides that stay in their files, gone through by one reader at a time."""

    way = "streamed"

    def __init__(self, records: Mapping[str, Record], budget: int) -> None:
        """
        Args:
            records: of the slides, at least one; all of one store.
            budget: bytes that may be held.
        """
        self._records, self._budget = records, budget
        first = next(iter(records.values()))
        self._dim, self._dtype, self._row_bytes = first.store.dim, first.dtype, first.row_bytes
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._busy = threading.Lock()

    def read(self, spans: Sequence[Span]) -> list[Tensor]:
        tensors = [torch.empty((span.n, self._dim), dtype=self._dtype) for span in spans]
        self._fill(tensors, spans)
        return tensors

    def pieces(self, bags: Sequence[Sequence[Span]]) -> Generator[list[Tensor], None, None]:
        if not bags:
            return
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("streamed bags are gone through once at a time: use up or close the pass before")
        try:
            sizes = [[span.n * self._row_bytes for span in spans] for spans in bags]
            ring = Ring(self._ring_memory(sizes))
            with closing(
                read_ahead(sizes, ring, lambda index, runs: self._fill(self._as_rows(runs), bags[index]))
            ) as ahead:
                for runs in ahead:
                    yield self._as_rows(runs)
        finally:
            self._busy.release()

    def check(self, bags: Sequence[Sequence[Span]]) -> None:
        for spans in bags:
            needed = sum(span.n for span in spans) * self._row_bytes
            if needed > self._budget:
                raise ConfigError(
                    f"The bag of {some([span.slide_id for span in spans])} takes {needed} bytes ({size_text(needed)}), "
                    f"more than the {self._budget} bytes ({size_text(self._budget)}) that features may take. Allow "
                    'more (--memory), or take smaller bags (bags.size, or bags.unit = "slide").'
                )

    def on(self, device: torch.device) -> Mapping[str, Tensor]:
        return {
            name: self.read([Span(name, 0, record.n_tiles)])[0].to(device) for name, record in self._records.items()
        }

    def _ring_memory(self, sizes: Sequence[Sequence[int]]) -> Tensor:
        """Memory for the ring; taken anew only where larger bags are drawn than before."""
        largest = max(sum(aligned(size) for size in runs) for runs in sizes)
        wanted = max(largest, min(self._budget, max(READ_AHEAD, 2 * largest)))
        if len(self._memory) < wanted:
            self._memory = torch.empty(0, dtype=torch.uint8)  # first, so that never both are there
            self._memory = torch.empty(wanted, dtype=torch.uint8)
        return self._memory

    def _fill(self, tensors: Sequence[Tensor], spans: Sequence[Span]) -> None:
        for tensor, span in zip(tensors, spans, strict=True):
            self._records[span.slide_id].read_into(tensor, span.start)

    def _as_rows(self, runs: Sequence[Tensor]) -> list[Tensor]:
        return [run.view(self._dtype).view(-1, self._dim) for run in runs]
