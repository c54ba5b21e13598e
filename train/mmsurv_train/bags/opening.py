"""The slides of a store, opened one after another to become bags.

Owns the one read of every row that checks it and makes the moments, and the choice between mapping, memory and
streaming by what all features take together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsurv.errors import RecordNotFoundError
from mmsurv_train.bags.moments import Moments, moments_of, rows_at_a_time
from mmsurv_train.bags.records import Record, open_record, some
from mmsurv_train.bags.rows import Mapped, Resident, Rows
from mmsurv_train.bags.streamed import Streamed
from mmsurv_train.threads import run_beside, share_out

if TYPE_CHECKING:
    from mmsurv.store import FeatureStore

AT_ONCE = 32
"""Slides whose rows are read between two looks at the store."""
MOST_MAPPINGS = 1 << 15
"""Slides mapped at most, half of what Linux lets one process map; others are read into memory."""


def open_slides(
    store: FeatureStore, slide_ids: Iterable[str], *, budget: int, on_slide: Callable[[str], None]
) -> tuple[Rows, dict[str, Moments], list[str]]:
    """Where the slides' rows are, their moments, and the slides without rows. As ``Bags.from_store`` says."""
    wanted = list(dict.fromkeys(slide_ids))
    _require_there(store, wanted)
    opening = _Opening(budget)
    for start in range(0, len(wanted), AT_ONCE):
        records = [open_record(store, slide_id) for slide_id in wanted[start : start + AT_ONCE]]
        opening.add(records)
        for record in records:
            on_slide(record.slide_id)
    return opening.rows(), opening.moments, opening.empty


class _Opening:
    """What was opened so far; slides are held while all of them fit the budget."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.records: dict[str, Record] = {}
        self.moments: dict[str, Moments] = {}
        self.empty: list[str] = []
        self.held: dict[str, Tensor] = {}
        self.mapped: list[Record] = []
        self.nbytes = 0

    def add(self, records: Sequence[Record]) -> None:
        """Read records, by as many threads as torch would use, and keep them where they fit."""
        self.empty += [record.slide_id for record in records if not record.n_tiles]
        records = [record for record in records if record.n_tiles]
        found: dict[str, Moments] = {}

        def measure(share: list[Record]) -> None:
            for record in share:
                blocks = record.blocks(rows_at_a_time(record.store.dim))
                found[record.slide_id] = moments_of(blocks, record.slide_id, record.n_tiles).kept()

        if records:
            run_beside(measure, share_out(records, lambda record: record.nbytes, torch.get_num_threads()))
        for record in records:
            self.moments[record.slide_id] = found[record.slide_id]
            self._keep(record)

    @property
    def fits(self) -> bool:
        return self.nbytes <= self.budget

    def rows(self) -> Rows:
        if not self.fits:
            return Streamed(self.records, self.budget)
        return Mapped(self.held, self.mapped) if self.mapped else Resident(self.held)

    def _keep(self, record: Record) -> None:
        self.records[record.slide_id] = record
        self.nbytes += record.nbytes
        if not self.fits:
            self.held, self.mapped = {}, []
        elif record.can_be_mapped and len(self.mapped) < MOST_MAPPINGS:
            self.mapped.append(record)
            self.held[record.slide_id] = record.mapped()
        else:
            self.held[record.slide_id] = record.whole()


def _require_there(store: FeatureStore, wanted: Sequence[str]) -> None:
    there = set(store.slide_ids())
    missing = [slide_id for slide_id in wanted if slide_id not in there]
    if missing:
        raise RecordNotFoundError(
            f"{store.path} has no record of {len(missing)} of {len(wanted)} slides: {some(missing)}. Encode them, or "
            "leave them out of the cohort."
        )
