"""Tile features of many slides, by id.

Owns how features are opened: checked, measured and counted once, then mapped, held or streamed by what they may take.

Shape suffixes: B bags, N tiles, D feature dim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmsurv.errors import StoreError
from mmsurv_train.bags.drawn import DrawnBags
from mmsurv_train.bags.memory import default_budget, size_text
from mmsurv_train.bags.moments import Moments, merged, moments_of, rows_at_a_time
from mmsurv_train.bags.neighbours import Neighbours
from mmsurv_train.bags.opening import open_slides
from mmsurv_train.bags.records import as_tensor, some, torch_dtype
from mmsurv_train.bags.rows import Resident, Rows
from mmsurv_train.bags.windows import Draw, spans_of

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.store import FeatureStore

logger = logging.getLogger("mmsurv")

DEVICE_SHARE = 0.8
"""Of a GPU's free memory, what features may take."""


class Bags:
    """Features of slides, by id. Slides without tiles are left out and named in ``empty``."""

    def __init__(
        self,
        rows: Rows,
        moments: Mapping[str, Moments],
        *,
        dim: int,
        dtype: torch.dtype,
        empty: Sequence[str] = (),
        device: torch.device | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        """
        Args:
            rows: the slides' features.
            moments: of each slide's features, in the order of the slides.
            dim, dtype: of the features.
            empty: slides that have no rows.
            device: where tensors are asked for; None: the CPU.
            neighbours: which tiles lie next to one another; None: that is not known.
        """
        self._rows, self._moments, self._neighbours = rows, moments, neighbours
        self._n_tiles = {slide_id: found.n for slide_id, found in self._moments.items()}
        self.dim, self.dtype, self.empty = dim, dtype, tuple(empty)
        self.device = device or torch.device("cpu")

        if self.empty:
            logger.warning("%d slides have no tiles and are left out: %s", len(self.empty), some(self.empty))

    @classmethod
    def for_cohort(
        cls,
        store: FeatureStore,
        cohort: Cohort,
        *,
        memory: int | None = None,
        on_slide: Callable[[str], None] | None = None,
    ) -> Bags:
        """The cohort's slides, case by case. Raises as ``from_store`` does."""
        slides = cohort.slides.sort_values(["case_id", "slide_id"])
        return cls.from_store(store, slides["slide_id"], memory=memory, on_slide=on_slide)

    @classmethod
    def from_store(
        cls,
        store: FeatureStore,
        slide_ids: Iterable[str],
        *,
        memory: int | None = None,
        on_slide: Callable[[str], None] | None = None,
    ) -> Bags:
        """Open slides of a feature store, which checks each record's digest; every row is read once.

        Features that fit into ``memory`` are mapped where they lie as plain bytes in a file, as both backends write
        them, and read into memory elsewhere. If they do not fit, none are kept: they are streamed.

        Args:
            store: where the features are.
            slide_ids: which slides, those of a case one after another.
            memory: bytes that features may take; None: half of what is available.
            on_slide: called with each id once it is read, to show progress.

        Raises:
            RecordNotFoundError, CorruptRecordError, RecipeMismatchError: records are missing, damaged, of another
                recipe.
            StoreError: features of another width than the store's, or not finite; the message has the slide and the
                row.
        """
        budget = default_budget() if memory is None else memory
        rows, moments, empty = open_slides(store, slide_ids, budget=budget, on_slide=on_slide or (lambda _: None))
        neighbours = Neighbours.of_store(store)
        bags = cls(rows, moments, dim=store.dim, dtype=torch_dtype(store.dtype), empty=empty, neighbours=neighbours)
        logger.info(
            "Features of %d slides take %s of %s: %s.", len(bags), size_text(bags.nbytes), size_text(budget), rows.way
        )
        return bags

    @classmethod
    def from_arrays(cls, features: Mapping[str, np.ndarray], *, coords: Mapping[str, np.ndarray] | None = None) -> Bags:
        """From arrays (N, D) of one width and dtype (float16, bfloat16, float32) by slide id; they are copied.

        ``coords`` are those of the tiles (N, 2), where their neighbours matter.

        Raises:
            ValueError: no arrays, or arrays of different widths or dtypes.
            StoreError: features that are not finite; the message has the slide and the row.
        """
        if not features:
            raise ValueError("bags need at least one slide")
        first = next(iter(features.values()))
        dim = first.shape[1]
        slides: dict[str, Tensor] = {}
        for slide_id, array in features.items():
            if array.shape != (len(array), dim) or array.dtype != first.dtype:
                raise ValueError(
                    f"{slide_id}: expected features of shape {(len(array), dim)}, {first.dtype.name}, "
                    f"found {array.shape}, {array.dtype.name}"
                )
            if len(array):
                slides[slide_id] = as_tensor(np.array(array))
        moments = {
            name: moments_of(x_ND.split(rows_at_a_time(dim)), name, len(x_ND)).kept() for name, x_ND in slides.items()
        }
        empty = [slide_id for slide_id in features if slide_id not in slides]
        return cls(
            Resident(slides), moments, dim=dim, dtype=torch_dtype(first.dtype), empty=empty,
            neighbours=None if coords is None else Neighbours.of_arrays(coords),
        )  # fmt: skip

    @property
    def slide_ids(self) -> list[str]:
        """Slides with at least one tile, in the order they were given."""
        return list(self._n_tiles)

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return sum(self._n_tiles.values()) * self.dim * self.dtype.itemsize

    @property
    def reading(self) -> str:
        """How features are read: "mapped", "memory" or "streamed". No number depends on it."""
        return self._rows.way

    def __contains__(self, slide_id: str) -> bool:
        return slide_id in self._n_tiles

    def __len__(self) -> int:
        return len(self._n_tiles)

    def to(self, device: torch.device) -> Bags:
        """The same bags, whose tensors are asked for on ``device``.

        On a GPU whose free memory has room for all features (and a fifth left for the rest), they are moved there.
        Otherwise they stay where they are, and each piece of a bag is copied when it is read. This has not been run on
        a GPU yet.
        """
        if device == self.device:
            return self
        rows = self._rows
        if device.type != "cuda" or self.nbytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
            rows = Resident(rows.on(device))
        moved = Bags(rows, self._moments, dim=self.dim, dtype=self.dtype, device=device, neighbours=self._neighbours)
        moved.empty = self.empty  # which were named when they were opened
        return moved

    def n_tiles(self, slide_id: str) -> int:
        self._require([slide_id])
        return self._n_tiles[slide_id]

    def draw(self, chosen: Sequence[Sequence[str]], *, size: int = 0, draw: Draw | None = None) -> DrawnBags:
        """The bags of one step; nothing is read yet.

        Args:
            chosen: the slides of each bag.
            size: tiles of a bag, shared evenly among its slides; 0 = all. A slide with fewer tiles than its share
                gives all of them, so a bag may be smaller, never empty.
            draw: which window of each slide's rows; None: the first rows, a uniform sample of the slide as well.

        Raises:
            ConfigError: features are streamed, and a bag is larger than the memory for them.
            StoreError: a slide is not among those that were opened, or a mapped file was written to.
            ValueError: a bag without slides.
        """
        for slide_ids in chosen:
            self._require(slide_ids)
        spans = [spans_of(slide_ids, self._n_tiles, size=size, draw=draw) for slide_ids in chosen]
        self._rows.check(spans)
        return DrawnBags(
            spans, self._rows, self._moments, dim=self.dim, device=self.device, neighbours=self._neighbours
        )

    def drawn_tiles(self, slide_ids: Sequence[str], *, size: int = 0) -> dict[str, int]:
        """How many of the first rows of each slide a bag without a draw holds, in its order; slides with none are
        left out."""
        self._require(slide_ids)
        return {span.slide_id: span.n for span in spans_of(slide_ids, self._n_tiles, size=size, draw=None)}

    def bag(self, slide_ids: Sequence[str], *, size: int = 0, draw: Draw | None = None) -> Tensor:
        """One bag as a whole, (N, D) in the stored dtype: a view where its rows lie in one run, otherwise a copy.

        Args and errors are those of ``draw``.
        """
        self._require(slide_ids)
        spans = spans_of(slide_ids, self._n_tiles, size=size, draw=draw)
        self._rows.check([spans])
        parts = self._rows.read(spans)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.device)

    def slide(self, slide_id: str) -> Tensor:
        """All features of a slide, (N, D)."""
        return self.bag([slide_id])

    def mean(self, slide_ids: Sequence[str]) -> Tensor:
        """Mean over all tiles of the slides, (1, D) float32: all that mean pooling needs of a bag."""
        return torch.from_numpy(self._pooled(slide_ids).mean).float()[None].to(self.device)

    def statistics(self, slide_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature over all tiles of the slides, (D,) float64 each."""
        pooled = self._pooled(slide_ids)
        return pooled.mean, pooled.sd

    def _pooled(self, slide_ids: Sequence[str]) -> Moments:
        self._require(slide_ids)
        return merged(self._moments[slide_id] for slide_id in slide_ids)

    def _require(self, slide_ids: Sequence[str]) -> None:
        for slide_id in slide_ids:
            if slide_id not in self._n_tiles:
                raise StoreError(f"Slide {slide_id} is not among the {len(self)} slides whose features were read.")
