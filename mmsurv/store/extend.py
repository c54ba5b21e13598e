"""Whether one record of a slide extends another: the same draw, gone further.

Owns that judgement. A slide's tiles are drawn in rank order, so the record of a larger draw begins with the smaller
one, tile by tile: the same coordinates, kept or rejected for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmsurv.errors import MmsurvError, StoreError
from mmsurv.store.rank import rank_order
from mmsurv.store.record import REASONS, SlideRecord

KEPT = 0


def extends(new: SlideRecord, held: SlideRecord) -> bool:
    """Whether ``new`` draws more tiles than ``held``, which is a prefix of it.

    Returns:
        False if ``held`` has as many tiles or more, rejected ones counted.

    Raises:
        StoreError: ``held`` has fewer, and is no prefix.
    """
    if held.n_drawn >= new.n_drawn:
        return False
    before, after = drawn(held), drawn(new)[: held.n_drawn]
    differing = np.flatnonzero((before != after).any(axis=1))
    if differing.size:
        row = int(differing[0])
        raise StoreError(
            f"{new.slide_id}: its record of {held.n_drawn} drawn tiles is no prefix of the new one of {new.n_drawn}: "
            f"drawn tile {row} is {_words(before[row])} there and {_words(after[row])} here. Delete the record to "
            "encode the slide anew, or write to a new store."
        )
    return True


def draws_as_many(read: Callable[[], SlideRecord], new: SlideRecord) -> bool:
    """Whether the record that ``read`` gives is whole and has as many drawn tiles as ``new``, or more."""
    try:
        return read().n_drawn >= new.n_drawn
    except (MmsurvError, OSError):
        return False


def drawn(record: SlideRecord) -> np.ndarray:
    """The tiles of a record as they were drawn.

    Returns:
        (N + R, 3) int64 in rank order: level-0 x, y, and 0 for a tile with a row or the code of its rejection.
    """
    seed = record.attributes.get("sample_seed")
    if not isinstance(seed, int):
        raise StoreError(f"{record.slide_id}: without sample_seed it cannot be said which tiles were drawn first.")
    kept = np.column_stack([record.coords, np.full(record.n_tiles, KEPT)])
    if record.rejected is None or record.rejected_reason is None:
        tiles = kept.astype(np.int64)
    else:
        tiles = np.concatenate([kept, np.column_stack([record.rejected, record.rejected_reason])]).astype(np.int64)
    return tiles[rank_order(record.slide_id, tiles[:, :2], seed)]


def _words(tile: np.ndarray) -> str:
    x, y, code = (int(value) for value in tile)
    return f"({x}, {y}) {REASONS.get(code, 'with features')}"
