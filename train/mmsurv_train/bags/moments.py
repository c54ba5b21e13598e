"""Mean and variance of tile features from one read, and whether all of them are finite.

Owns the arithmetic: each block of rows is summed in float32 around one of its own rows, which keeps what a large mean
would cancel, and blocks are merged in float64 (Chan, Golub and LeVeque 1979). A block whose sums are not finite is
looked at row by row, so no second read is needed to find NaN or Inf.

Shape suffixes: N tiles, D feature dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmsurv.errors import StoreError
from mmsurv_train.threads import one_thread, stop_if_told

BLOCK_ELEMENTS = 1 << 18
"""Feature values summed at a time: 1 MiB of float32, which stays in the cache from the first sum to the last."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Of some rows: how many, and the mean and standard deviation of each feature, (D,) each.

    float64; float32 where they are kept for each slide, since they are what grows with the number of slides.
    """

    n: int
    mean: np.ndarray
    sd: np.ndarray
    """Of the rows themselves: divided by n."""

    def kept(self) -> Moments:
        """The same in half the memory."""
        return Moments(self.n, self.mean.astype(np.float32), self.sd.astype(np.float32))


def merged(parts: Iterable[Moments]) -> Moments:
    """Moments of all rows together. Raises ValueError if there is no part."""
    n, mean_D, squares_D = 0, np.zeros(1), np.zeros(1)
    for part in parts:
        both = n + part.n
        shift_D = part.mean - mean_D if n else np.zeros(1)
        squares_D = squares_D + part.n * np.square(part.sd, dtype=np.float64) + shift_D**2 * (n * part.n / both)
        mean_D = mean_D + shift_D * (part.n / both) if n else part.mean.astype(np.float64)
        n = both
    if not n:
        raise ValueError("statistics need at least one slide")
    return Moments(n, mean_D, np.sqrt(squares_D / n))


def rows_at_a_time(dim: int) -> int:
    return max(1, BLOCK_ELEMENTS // dim)


def moments_of(blocks: Iterable[Tensor], slide_id: str, n_tiles: int) -> Moments:
    """Moments of a slide whose rows come block by block; each block is read once.

    Args:
        blocks: (n, D) each, n at least 1, in the order of the rows; the next may take the memory of the one before.
        slide_id, n_tiles: for the message.

    Raises:
        StoreError: a feature is NaN or Inf; names the slide and the first such row.
    """
    parts, bad, start = [], [], 0
    with one_thread():  # blocks are too small to be split among cores, and have the same bits with any number of them
        for block in blocks:
            stop_if_told()
            part = _of_block(block)
            if part is None:
                bad += [start + row for row in _not_finite(block)]
            else:
                parts.append(part)
            start += len(block)
    if bad:
        raise StoreError(
            f"Slide {slide_id}: the features of row {bad[0]} are not finite ({len(bad)} of {n_tiles} rows). "
            "Encode the slide again, or leave it out."
        )
    return merged(parts)


def _of_block(x_ND: Tensor) -> Moments | None:
    """Moments of a few rows; None if they hold NaN or Inf."""
    found = _summed(x_ND, torch.float32)
    if not np.isfinite(found.sd).all():
        # Squares of large numbers may be too large for float32, never for float64.
        found = _summed(x_ND, torch.float64)
    return found if np.isfinite(found.sd).all() else None


def _summed(x_ND: Tensor, dtype: torch.dtype) -> Moments:
    around_D = x_ND[0].to(dtype)
    difference_ND = x_ND.to(dtype, copy=True).sub_(around_D)
    shift_D = difference_ND.sum(0).double() / len(x_ND)
    # Rounding may leave a trace below zero where all rows are nearly the same.
    variance_D = (difference_ND.square_().sum(0).double() / len(x_ND) - shift_D.square()).clamp_(min=0)
    return Moments(len(x_ND), (around_D.double() + shift_D).numpy(), variance_D.sqrt().numpy())


def _not_finite(x_ND: Tensor) -> list[int]:
    rows: list[int] = torch.nonzero(~torch.isfinite(x_ND).all(1)).flatten().tolist()
    return rows
