"""Bags of a store that is larger than the memory for features: read ahead of whoever uses them.

Owns what memory that takes: a ring for each pass, used again for every bag and every epoch, so that it does not grow
with the number of slides, and all of them stay within the budget.

Shape suffixes: N tiles, D feature dim.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import islice

import torch
from torch import Tensor

from mmsurv.errors import ConfigError
from mmsurv_train.bags.ahead import Ring, aligned, read_ahead
from mmsurv_train.bags.buffers import Buffers
from mmsurv_train.bags.memory import exact_text
from mmsurv_train.bags.records import Record, some
from mmsurv_train.bags.rows import Rows
from mmsurv_train.bags.windows import Span

READ_AHEAD = 1 << 26
"""Bytes of a ring, unless two bags are larger or the budget is smaller."""
TOGETHER = 1 << 20
"""Bytes of small bags that are read and handed over as one."""


class Streamed(Rows):
    """Slides that stay in their files."""

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
        self._buffers = Buffers(budget)

    def read(self, spans: Sequence[Span]) -> list[Tensor]:
        tensors = [torch.empty((span.n, self._dim), dtype=self._dtype) for span in spans]
        self._fill(tensors, spans)
        return tensors

    def pieces(self, bags: Sequence[Sequence[Span]], readers: int) -> Generator[list[Tensor], None, None]:
        if not bags:
            return
        groups = self._groups(bags, self._budget // readers)
        sizes = [[span.n * self._row_bytes for spans in group for span in spans] for group in groups]
        with (
            self._buffers.lend(self._ring_size(sizes, self._budget // readers)) as memory,
            closing(read_ahead(sizes, Ring(memory), lambda i, runs: self._fill_group(groups[i], runs))) as ahead,
        ):
            for group, runs in zip(groups, ahead, strict=True):
                rows = iter(self._as_rows(runs))
                for spans in group:
                    yield list(islice(rows, len(spans)))

    def check(self, bags: Sequence[Sequence[Span]]) -> None:
        for spans in bags:
            needed = sum(span.n for span in spans) * self._row_bytes
            if needed > self._budget:
                raise ConfigError(
                    f"The bag of {some([span.slide_id for span in spans])} takes {exact_text(needed)}, more "
                    f"than the {exact_text(self._budget)} that features may take. Allow "
                    'more (--memory), or take smaller bags (bags.size, or bags.unit = "slide").'
                )

    def on(self, device: torch.device) -> Mapping[str, Tensor]:
        return {
            name: self.read([Span(name, 0, record.n_tiles)])[0].to(device) for name, record in self._records.items()
        }

    def _ring_size(self, sizes: Sequence[Sequence[int]], share: int) -> int:
        """Bytes to read ahead into. More than its share is asked for only for a bag that is larger: passes take turns.

        Where each run begins may cost up to ``ALIGNMENT`` bytes more than the budget.
        """
        largest = max(sum(aligned(size) for size in runs) for runs in sizes)
        return max(largest, min(share, max(READ_AHEAD, 2 * largest)))

    def _groups(self, bags: Sequence[Sequence[Span]], share: int) -> list[list[Sequence[Span]]]:
        """Neighbouring bags together where they are small: handing one over costs as much as reading some rows."""
        most = min(TOGETHER, share // 4) // self._row_bytes
        groups: list[list[Sequence[Span]]] = []
        together = 0
        for spans in bags:
            n_tiles = sum(span.n for span in spans)
            if groups and together + n_tiles <= most:
                groups[-1].append(spans)
                together += n_tiles
            else:
                groups.append([spans])
                together = n_tiles
        return groups

    def _fill_group(self, group: Sequence[Sequence[Span]], runs: Sequence[Tensor]) -> None:
        self._fill(self._as_rows(runs), [span for spans in group for span in spans])

    def _fill(self, tensors: Sequence[Tensor], spans: Sequence[Span]) -> None:
        for tensor, span in zip(tensors, spans, strict=True):
            self._records[span.slide_id].read_into(tensor, span.start)

    def _as_rows(self, runs: Sequence[Tensor]) -> list[Tensor]:
        return [run.view(self._dtype).view(-1, self._dim) for run in runs]
