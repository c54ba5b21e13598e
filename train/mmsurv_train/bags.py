"""Tile features of many slides in memory, and the bags drawn from them.

Owns how rows become a bag: all of them, or a cyclic window of each slide's stored (shuffled) rows, whose length is
what was asked for. Features keep the dtype they are stored in; what computes converts them block by block. Slides of
one case lie side by side, so that a case's bag is a view, not a copy.

Shape suffixes: N tiles, D feature dim.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmsurv.errors import StoreError

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.store import FeatureStore

logger = logging.getLogger("mmsurv")

BLOCK_ELEMENTS = 1 << 20
"""Feature values converted to float64 at a time."""


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


class Bags:
    """Features of slides, by id. Slides without tiles are left out and named in ``empty``."""

    def __init__(self, rows_ND: Tensor, places: Mapping[str, slice], empty: Sequence[str] = ()) -> None:
        """
        Args:
            rows_ND: the rows of all slides, one slide after another.
            places: where each slide's rows are.
            empty: slides that have no rows.
        """
        self._rows, self._places = rows_ND, dict(places)
        self.empty = tuple(empty)
        self._moments: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if self.empty:
            logger.warning("%d slides have no tiles and are left out: %s", len(self.empty), _some(self.empty))

    @classmethod
    def for_cohort(cls, store: FeatureStore, cohort: Cohort, *, on_slide: Callable[[str], None] | None = None) -> Bags:
        """The cohort's slides, case by case. Raises as ``from_store`` does."""
        slides = cohort.slides.sort_values(["case_id", "slide_id"])
        return cls.from_store(store, slides["slide_id"], on_slide=on_slide)

    @classmethod
    def from_store(
        cls, store: FeatureStore, slide_ids: Iterable[str], *, on_slide: Callable[[str], None] | None = None
    ) -> Bags:
        """Read slides from a feature store; it checks each record's digest.

        Args:
            store: where the features are.
            slide_ids: which slides, those of a case one after another.
            on_slide: called with each id once it is read, to show progress.

        Raises:
            RecordNotFoundError, CorruptRecordError: a record is missing or damaged.
            StoreError: features that are not finite; the message has the slide and the row.
        """

        def read(slide_id: str) -> np.ndarray:
            features = store.features(slide_id)
            if on_slide:
                on_slide(slide_id)
            return features

        lengths = {slide_id: store.n_tiles(slide_id) for slide_id in slide_ids}
        return cls._gather(lengths, read, dim=store.dim, dtype=store.dtype)

    @classmethod
    def from_arrays(cls, features: Mapping[str, np.ndarray]) -> Bags:
        """From arrays (N, D) of one width and dtype (float16, bfloat16, float32) by slide id; they are copied.

        Raises:
            ValueError: no arrays, or arrays of different widths.
            StoreError: features that are not finite; the message has the slide and the row.
        """
        if not features:
            raise ValueError("bags need at least one slide")
        first = next(iter(features.values()))
        lengths = {slide_id: len(array) for slide_id, array in features.items()}
        return cls._gather(lengths, features.__getitem__, dim=first.shape[1], dtype=first.dtype)

    @classmethod
    def _gather(
        cls, lengths: Mapping[str, int], read: Callable[[str], np.ndarray], *, dim: int, dtype: np.dtype
    ) -> Bags:
        rows_ND = np.empty((sum(lengths.values()), dim), dtype)
        places: dict[str, slice] = {}
        start = 0
        for slide_id, length in lengths.items():
            array = read(slide_id)
            if array.shape != (length, dim):
                raise ValueError(f"{slide_id}: expected features of shape {(length, dim)}, found {array.shape}")
            if not length:
                continue
            place = slice(start, start + length)
            rows_ND[place] = array
            _require_finite(rows_ND[place], slide_id)
            places[slide_id] = place
            start += length
        return cls(_as_tensor(rows_ND), places, [name for name in lengths if not lengths[name]])

    @property
    def slide_ids(self) -> list[str]:
        """Slides with at least one tile, in the order they were given."""
        return list(self._places)

    @property
    def dim(self) -> int:
        return self._rows.shape[1]

    def __contains__(self, slide_id: str) -> bool:
        return slide_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def to(self, device: torch.device) -> Bags:
        """The same bags with their features on ``device``."""
        if device == self._rows.device:
            return self
        moved = Bags(self._rows.to(device), self._places)
        moved.empty, moved._moments = self.empty, self._moments
        return moved

    def n_tiles(self, slide_id: str) -> int:
        place = self._place(slide_id)
        return place.stop - place.start

    def slide(self, slide_id: str) -> Tensor:
        """All features of a slide, (N, D), a view."""
        return self._rows[self._place(slide_id)]

    def bag(self, slide_ids: Sequence[str], *, size: int = 0, draw: Draw | None = None) -> Tensor:
        """The bag of one or more slides.

        Args:
            slide_ids: the slides whose tiles form the bag.
            size: tiles of the bag, shared evenly among the slides; 0 = all. A slide with fewer tiles than its share
                gives all of them, so the bag may be smaller, never empty.
            draw: which window of each slide's rows; None: the first rows, a uniform sample of the slide as well.

        Returns:
            Features (N, D) in the stored dtype: a view where the rows lie side by side, otherwise a copy.
        """
        if not slide_ids:
            raise ValueError("a bag needs at least one slide")
        if not size:
            return self._joined(slide_ids)
        first = draw.round if draw else 0  # who gets one tile more, or any at all, changes from round to round
        parts = []
        for index, slide_id in enumerate(slide_ids):
            share, over = divmod(size, len(slide_ids))
            share += (index - first) % len(slide_ids) < over
            parts += self._window(slide_id, share, draw)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def mean(self, slide_ids: Sequence[str]) -> Tensor:
        """Mean over all tiles of the slides, (1, D) float32: all that mean pooling needs of a bag."""
        mean_D, _, _ = self._pooled_moments(slide_ids)
        return torch.from_numpy(mean_D.astype(np.float32))[None].to(self._rows.device)

    def statistics(self, slide_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature over all tiles of the slides, (D,) float64 each."""
        mean_D, squares_D, n_tiles = self._pooled_moments(slide_ids)
        return mean_D, np.sqrt(squares_D / n_tiles)

    def _pooled_moments(self, slide_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
        """Mean, sum of squared deviations and number of rows; merged as in Chan et al. 1979, which cancels nothing."""
        mean_D, squares_D, total = np.zeros(self.dim), np.zeros(self.dim), 0
        for slide_id in slide_ids:
            part_mean_D, part_squares_D = self._slide_moments(slide_id)
            n_part = self.n_tiles(slide_id)
            shift_D = part_mean_D - mean_D
            squares_D = squares_D + part_squares_D + shift_D**2 * (total * n_part / (total + n_part))
            total += n_part
            mean_D = mean_D + shift_D * (n_part / total)
        if not total:
            raise ValueError("statistics need at least one slide")
        return mean_D, squares_D, total

    def _slide_moments(self, slide_id: str) -> tuple[np.ndarray, np.ndarray]:
        if slide_id not in self._moments:
            x_ND = self.slide(slide_id)
            blocks = x_ND.split(max(1, BLOCK_ELEMENTS // self.dim))
            mean_D = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / len(x_ND)
            squares_D = torch.stack([(block.double() - mean_D).square().sum(0) for block in blocks]).sum(0)
            self._moments[slide_id] = (mean_D.cpu().numpy(), squares_D.cpu().numpy())
        return self._moments[slide_id]

    def _joined(self, slide_ids: Sequence[str]) -> Tensor:
        places = [self._place(slide_id) for slide_id in slide_ids]
        if all(before.stop == after.start for before, after in pairwise(places)):
            return self._rows[places[0].start : places[-1].stop]
        return torch.cat([self._rows[place] for place in places])

    def _window(self, slide_id: str, size: int, draw: Draw | None) -> list[Tensor]:
        x_ND = self.slide(slide_id)
        if size >= len(x_ND):
            return [x_ND]
        start = draw.start(slide_id, len(x_ND)) if draw else 0
        parts = [x_ND[start : start + size], x_ND[: max(0, start + size - len(x_ND))]]
        return [part for part in parts if len(part)]

    def _place(self, slide_id: str) -> slice:
        try:
            return self._places[slide_id]
        except KeyError:
            raise StoreError(
                f"Slide {slide_id} is not among the {len(self)} slides whose features were read."
            ) from None


def _as_tensor(x_ND: np.ndarray) -> Tensor:
    """The same memory as a tensor; torch has bfloat16 and takes it from NumPy as bits only."""
    if x_ND.dtype.name == "bfloat16":
        return torch.from_numpy(x_ND.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(x_ND)


def _require_finite(x_ND: np.ndarray, slide_id: str) -> None:
    # A sum is one fast pass over the rows; only where it is not finite are they looked at one by one.
    if np.isfinite(float(_as_tensor(x_ND).sum(dtype=torch.float32))):
        return
    bad = np.flatnonzero(~np.isfinite(x_ND).all(1))
    if len(bad):
        raise StoreError(
            f"Slide {slide_id}: the features of row {bad[0]} are not finite ({len(bad)} of {len(x_ND)} rows). "
            "Encode the slide again, or leave it out."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
