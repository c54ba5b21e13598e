"""The draw: tiles of a slide in rank order, read and encoded, until there are as many good ones as are wanted.

Owns which tiles are drawn and when a slide has failed because of them. A tile that is not kept is made good by the
next one in rank order, so the tiles drawn are a prefix of the rank order, and no longer than it must be: drawing on
from a smaller draw gives what the larger one gives at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsurv.errors import NoTissueError, UnreadableSlideError
from mmsurv.store.record import REASONS, UNREADABLE
from mmsurv_extract.reader import TileReader
from mmsurv_extract.stop import stop_if_set

MAX_UNREADABLE = 0.5
"""A slide has failed when more than this share of the tiles drawn cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What came of the first tiles of a slide. Rows are those of the slide's tissue tiles in rank order."""

    kept: np.ndarray
    """(N,) int64, rows of the tiles that have features, ascending."""
    features: np.ndarray
    """(N, D) floats."""
    rejected: np.ndarray
    """(R,) int64, rows of the tiles that were not kept, ascending."""
    reasons: np.ndarray
    """(R,) uint8, why not: codes of ``mmsurv.store.record.REASONS``."""

    @property
    def n_drawn(self) -> int:
        return len(self.kept) + len(self.rejected)

    def lost(self) -> str:
        """Such as "3 unreadable, 1 near white"; empty if every tile was kept."""
        counts = [(int((self.reasons == code).sum()), name) for code, name in REASONS.items()]
        return ", ".join(f"{count} {name}" for count, name in counts if count)

    def then(self, other: Draw) -> Draw:
        """This draw and one that went on where it ended."""
        return Draw(
            kept=np.concatenate([self.kept, other.kept]),
            features=np.concatenate([self.features.astype(np.float32), other.features]),
            rejected=np.concatenate([self.rejected, other.rejected]),
            reasons=np.concatenate([self.reasons, other.reasons]),
        )


def nothing_drawn(dim: int) -> Draw:
    """The draw before its first tile."""
    none = np.empty(0, np.int64)
    return Draw(kept=none, features=np.empty((0, dim), np.float32), rejected=none, reasons=none.astype(np.uint8))


def n_wanted(max_tiles: int, n_tissue_tiles: int) -> int:
    """Tiles to keep of a slide that has so many; ``max_tiles`` = 0 means all."""
    return min(max_tiles or n_tissue_tiles, n_tissue_tiles)


def draw(
    reader: TileReader,
    stream: Callable[[Iterable[tuple[np.ndarray, np.ndarray]]], Iterator[tuple[np.ndarray, np.ndarray]]],
    coords: np.ndarray,
    wanted: int,
    *,
    before: Draw,
    batch_size: int,
    path: Path,
    stop: threading.Event,
    on_tiles: Callable[[int], None],
) -> Draw:
    """Draw until ``wanted`` tiles are kept or none is left.

    Args:
        reader: of the slide.
        stream: pairs of rows (B,) and tiles (B, px, px, 3) uint8 to pairs of the rows and features (B, D) float32.
        coords: (T, 2) level-0 (x, y) of the slide's tissue tiles in rank order.
        wanted: tiles to keep, N; 0 means all that can be.
        before: what was drawn already.
        batch_size: tiles given to the encoder at a time.
        path: the slide's, for messages.
        stop: looked at between batches.
        on_tiles: told the number of tiles of each batch.

    Returns:
        The whole draw, ``before`` included.

    Raises:
        UnreadableSlideError: more than half of the tiles drawn cannot be read.
        NoTissueError: no tile can be kept.
        JobStopped: ``stop`` was set.
    """
    drawn = before
    target = n_wanted(wanted, len(coords))
    while len(drawn.kept) < target and drawn.n_drawn < len(coords):
        rows = np.arange(drawn.n_drawn, min(drawn.n_drawn + target - len(drawn.kept), len(coords)))
        features = np.zeros((len(rows), before.features.shape[1]), np.float32)
        kept = np.zeros(len(rows), bool)
        batches = reader.batches(coords[rows], batch_size=batch_size, stop=stop)
        for places, encoded in stream((batch.rows, batch.tiles) for batch in batches):
            stop_if_set(stop)
            features[places] = encoded
            kept[places] = True
            on_tiles(len(places))
        stop_if_set(stop)
        reasons = np.array([reader.rejected[row] for row in np.flatnonzero(~kept).tolist()], np.uint8)
        drawn = drawn.then(Draw(kept=rows[kept], features=features[kept], rejected=rows[~kept], reasons=reasons))
        _require_readable(drawn, path, reader.last_error)
    if not len(drawn.kept):
        raise NoTissueError(
            f"{path}: none of its {drawn.n_drawn} tissue tiles can be used: {drawn.lost()}. Leave the slide out, or "
            "loosen the limits of [quality] in the recipe."
        )
    return drawn


def _require_readable(drawn: Draw, path: Path, last_error: UnreadableSlideError | None) -> None:
    unreadable = int((drawn.reasons == UNREADABLE).sum())
    if unreadable > MAX_UNREADABLE * drawn.n_drawn:
        raise UnreadableSlideError(
            f"{path}: {unreadable} of the {drawn.n_drawn} tiles drawn cannot be read, more than half. Copy the file "
            f"again, or leave the slide out. The last error: {last_error}"
        ) from last_error
