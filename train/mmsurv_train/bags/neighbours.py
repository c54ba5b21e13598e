"""Which tiles of a slide lie next to one another: the graph of patch-gcn.

Owns the neighbours and their cache. They follow from a record's coordinates, so they are built once and kept among the
user's caches, by the record's digest; another record has another. No tile has a neighbour on another slide.

Shape suffixes: N tiles of a slide, k neighbours.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsurv.errors import StoreError
from mmsurv.store.checked import cache_folder
from mmsurv.store.commit import publish_bytes

if TYPE_CHECKING:
    from mmsurv.store import FeatureStore

logger = logging.getLogger("mmsurv")


def nearest(coords_N2: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k nearest other tiles of each tile, (N, k) int32, nearest first, ties in the order of the rows.

    A slide of k tiles or fewer repeats them; a tile that is alone is its own neighbour.

    Args:
        coords_N2: level-0 pixels (x, y).
        k: at least 1.
    """
    from scipy.spatial import cKDTree

    n_tiles = len(coords_N2)
    if n_tiles == 1:
        return np.zeros((1, k), np.int32)
    points = np.asarray(coords_N2, np.float64)
    # More than k are asked for, so that among equally far ones the order of the rows decides: on a grid at most 24 are
    # at any one of the first thousand distances, and one more is the tile itself.
    wanted = min(n_tiles, k + 25)
    _, rows = cKDTree(points).query(points, k=wanted)
    squared = ((points[rows] - points[:, None]) ** 2).sum(2)
    squared[rows == np.arange(n_tiles)[:, None]] = np.inf  # itself comes last
    order = np.lexsort((rows, squared), axis=1)
    found = np.take_along_axis(rows, order, axis=1)[:, : min(k, n_tiles - 1)]
    return found[:, np.arange(k) % found.shape[1]].astype(np.int32)


class Neighbours:
    """Neighbours on the slides of a store, or on slides whose coordinates are given."""

    def __init__(self, coords_of: Callable[[str], np.ndarray], digest_of: Callable[[str], str] | None = None) -> None:
        """
        Args:
            coords_of: a slide's coordinates (N, 2), in the order of its rows.
            digest_of: names a slide's record in the cache; None: nothing is kept on disk.
        """
        self._coords_of, self._digest_of = coords_of, digest_of
        self._known: dict[tuple[str, int], np.ndarray] = {}

    @classmethod
    def of_store(cls, store: FeatureStore) -> Neighbours:
        """Of the slides of a store."""
        return cls(lambda slide_id: store.read(slide_id).coords,
                   lambda slide_id: str(store.attributes(slide_id)["record_sha256"]))  # fmt: skip

    @classmethod
    def of_arrays(cls, coords: Mapping[str, np.ndarray]) -> Neighbours:
        """Of slides whose coordinates are given."""
        return cls(coords.__getitem__)

    def of(self, slide_id: str, k: int, *, n_tiles: int) -> np.ndarray:
        """Rows of each tile's k nearest, (N, k) int32.

        Raises:
            StoreError: the record does not hold as many tiles.
        """
        key = (slide_id, k)
        if key not in self._known:
            found = self._kept(slide_id, k)
            if found is None or found.shape != (n_tiles, k):
                found = nearest(self._coords_of(slide_id), k)
                self._keep(slide_id, k, found)
            if len(found) != n_tiles:
                raise StoreError(f"Slide {slide_id}: {len(found)} coordinates for {n_tiles} tiles. Encode it again.")
            self._known[key] = found
        return self._known[key]

    def _place(self, slide_id: str, k: int) -> Path | None:
        return (
            None if self._digest_of is None else cache_folder() / "neighbours" / f"{self._digest_of(slide_id)}-{k}.npy"
        )

    def _kept(self, slide_id: str, k: int) -> np.ndarray | None:
        """What the cache holds; None where that is nothing, or nothing that can be believed."""
        place = self._place(slide_id, k)
        try:
            found = None if place is None else np.load(place, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if found is None or found.dtype != np.int32 or found.ndim != 2 or not found.size:
            return None
        return found if found.min() >= 0 and found.max() < len(found) else None

    def _keep(self, slide_id: str, k: int, found: np.ndarray) -> None:
        place = self._place(slide_id, k)
        if place is None:
            return
        file = io.BytesIO()
        np.save(file, found, allow_pickle=False)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            publish_bytes(place, file.getvalue(), replace=True)
        except OSError as error:
            logger.debug("%s: neighbours are not kept (%s)", place, error)


def warn_of_samples(store: FeatureStore, slide_ids: Iterable[str]) -> None:
    """Say once how many records hold a sample of the tissue tiles only: their neighbours lie further apart."""
    slide_ids = list(slide_ids)
    samples = []
    for slide_id in slide_ids:
        tissue = store.attributes(slide_id).get("n_tissue_tiles")
        if isinstance(tissue, int) and tissue > store.n_tiles(slide_id):
            samples.append(slide_id)
    if samples:
        logger.warning(
            "%d of %d slides hold a sample of their tissue tiles (%s%s): neighbours in a graph of them lie further "
            "apart than on the slide. Extract all tiles: mmsurv extract --tiles all.",
            len(samples), len(slide_ids), ", ".join(samples[:3]), ", …" if len(samples) > 3 else "",
        )  # fmt: skip
