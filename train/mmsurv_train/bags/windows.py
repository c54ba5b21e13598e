"""Which rows of which slides make up a bag.

Owns the draw: all rows, the first ones, or a cyclic window of each slide's stored (shuffled) rows, which is a uniform
sample of its tiles. A window depends on the seed, the round and the slide alone, never on where features lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Rows ``start`` to ``stop`` of a slide, at least one."""

    slide_id: str
    start: int
    stop: int

    @property
    def n(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Draw:
    """Which of a slide's windows to take: one for each seed and round, whatever other slides there are."""

    seed: int
    round: int

    def start(self, slide_id: str, n_tiles: int) -> int:
        """First row of the window."""
        return self.number(slide_id) % n_tiles

    def number(self, name: str) -> int:
        """A number fixed by seed, round and name, uniform over 64 bits."""
        text = f"{self.seed}/{self.round}/{name}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def spans_of(slide_ids: Sequence[str], n_tiles: Mapping[str, int], *, size: int, draw: Draw | None) -> list[Span]:
    """The rows of one bag, in its order.

    Args:
        slide_ids: the slides whose tiles form the bag, at least one.
        n_tiles: rows of each slide, at least one.
        size: tiles of the bag, shared evenly among the slides; 0 = all. A slide with fewer tiles than its share gives
            all of them, so the bag may be smaller, never empty.
        draw: which window of each slide's rows; None: the first rows, a uniform sample of the slide as well.
    """
    if not slide_ids:
        raise ValueError("a bag needs at least one slide")
    if size < 0:
        raise ValueError(f"a bag cannot have {size} tiles; 0 means all")
    if not size:
        return [Span(slide_id, 0, n_tiles[slide_id]) for slide_id in slide_ids]
    first = draw.round if draw else 0  # who gets one tile more, or any at all, changes from round to round
    spans: list[Span] = []
    for index, slide_id in enumerate(slide_ids):
        share, over = divmod(size, len(slide_ids))
        share += (index - first) % len(slide_ids) < over
        spans += _window(slide_id, n_tiles[slide_id], share, draw)
    return spans


def _window(slide_id: str, n_tiles: int, size: int, draw: Draw | None) -> list[Span]:
    """A cyclic window as one span, or as two where it goes on from the first row."""
    if size >= n_tiles:
        return [Span(slide_id, 0, n_tiles)]
    start = draw.start(slide_id, n_tiles) if draw else 0
    stop = start + size
    spans = [Span(slide_id, start, min(stop, n_tiles)), Span(slide_id, 0, max(0, stop - n_tiles))]
    return [span for span in spans if span.stop > span.start]
