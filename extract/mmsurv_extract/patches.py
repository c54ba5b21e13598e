"""A slide cut into PNG files by another program: the folders of Steyaert et al. 2023 and those who took them over.

Owns the layout of such a folder, ``loc.txt`` beside ``<slide>_patch_<id>.png``, and the reading of its tiles.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from mmsurv.errors import MppError, UnreadableSlideError
from mmsurv.store.ids import is_slide_id
from mmsurv_extract.discover import LOCATIONS, SlideSource
from mmsurv_extract.grid import Geometry
from mmsurv_extract.image import DECODING_ERRORS
from mmsurv_extract.locations import Locations, read_locations
from mmsurv_extract.reader.base import Slot, TileReader
from mmsurv_extract.slide import Slide
from mmsurv_extract.stop import stop_if_set
from mmsurv_extract.tile import WHITE, opaque, resample

READER = f"patches, pillow {PIL.__version__}"
MAX_PATCH_PX = 4096
"""Longest side of a patch's PNG; anything larger is no tile."""
MAX_SIDE_ERROR = 0.5
"""Level-0 pixels by which a patch's side may differ from the recipe's tile."""


class PatchFolder(Slide):
    """A folder of patches as a slide; what lies between them was not scanned.

    Its tiles are read by :class:`PatchReader`. In the overview a patch that cannot be read is background, and noted in
    ``unreadable``.
    """

    reader = READER
    background = WHITE

    def __init__(self, source: SlideSource) -> None:
        """Read loc.txt and look which patches there are.

        Raises:
            UnreadableSlideError: loc.txt is damaged, or none of the patches it names is there.
        """
        self.source = source
        self.locations = read_locations(source.path / LOCATIONS)
        self.properties = {}
        width, height = (self.locations.coords.max(axis=0) + self.locations.side).tolist()
        self.width, self.height = width, height
        self.level_dimensions = ((width, height),)
        self.level_downsamples = (1.0,)
        self._files = _Files(source, self.locations)
        self.unreadable: set[int] = set()
        """Rows of the locations whose patch was met missing or damaged."""

    def close(self) -> None:
        """Nothing is held open."""

    def digest(self) -> tuple[str, str]:
        """SHA-256 over loc.txt and the names and sizes of the patches: reading them all would take minutes."""
        hashed = hashlib.sha256((self.source.path / LOCATIONS).read_bytes())
        for name, size in self._files.sizes():
            hashed.update(f"\n{name} {size}".encode())
        return hashed.hexdigest(), "sha256"

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Image.Image:
        canvas = Image.new("RGB", (width, height), self.background)
        for row in self._rows_in(x, y, width, height):
            self._paste(canvas, row, x, y)
        return canvas

    def own_overview(self, downsample: int, stop: threading.Event | None) -> np.ndarray:
        """Each patch is decoded once and averaged where it lies; between them there is background."""
        shape = (-(-self.height // downsample), -(-self.width // downsample))
        sums = np.zeros((*shape, 3), np.int64)
        covered = np.zeros(shape, np.int64)
        side = self.locations.side
        for row, (x, y) in enumerate(self.locations.coords.tolist()):
            stop_if_set(stop)
            try:
                pixels = np.asarray(self._files.read(row), np.int64)
            except UnreadableSlideError:
                self.unreadable.add(row)
                continue
            down, first_row = area_sums(pixels, y, side, downsample)
            both, first_column = area_sums(down.swapaxes(0, 1), x, side, downsample)
            both = both.swapaxes(0, 1)
            where = np.s_[first_row : first_row + both.shape[0], first_column : first_column + both.shape[1]]
            # Area sums count in pixels of the PNG; here in those of level 0, rounded.
            sums[where] += both // pixels.shape[0] ** 2
            covered[where] += np.outer(
                overlaps(y, side, downsample, both.shape[0]), overlaps(x, side, downsample, both.shape[1])
            )
        free = np.maximum(downsample**2 - covered, 0)
        total = covered + free
        mean = (sums + free[..., None] * np.array(self.background) + total[..., None] // 2) // total[..., None]
        return np.minimum(mean, 255).astype(np.uint8)

    def _rows_in(self, x: int, y: int, width: int, height: int) -> list[int]:
        offsets, side = self.locations.coords - np.array([x, y]), self.locations.side
        inside = (offsets > -side).all(axis=1) & (offsets < np.array([width, height])).all(axis=1)
        return np.flatnonzero(inside).tolist()

    def _paste(self, canvas: Image.Image, row: int, x: int, y: int) -> None:
        side = self.locations.side
        patch = self._files.read(row)
        if patch.width != side:
            patch = patch.resize((side, side), Image.Resampling.BOX)
        left, top = self.locations.coords[row].tolist()
        canvas.paste(patch, (left - x, top - y))

    def geometry(self, *, tile_px: int, tile_mpp: float, mpp: float) -> Geometry:
        """How its patches serve as tiles of the recipe.

        Args:
            tile_px, tile_mpp: the recipe's tile.
            mpp: µm per level-0 pixel of the slide the patches were cut from.

        Raises:
            MppError: the patches show another field of view than the recipe's tiles; the message says which options
                would fit.
        """
        side, wanted = self.locations.side, tile_px * tile_mpp / mpp
        if abs(side - wanted) > MAX_SIDE_ERROR:
            raise MppError(
                f"{self.source.path}: its patches are {side} level-0 pixels wide, {side * mpp:.6g} µm at {mpp:g} µm "
                f"per pixel; the recipe's tiles are {tile_px * tile_mpp:g} µm, {wanted:.6g} such pixels. Patches "
                f"cannot be cut anew: give --tile-mpp {side * mpp / tile_px:.6g}, or, if the resolution is wrong, "
                f"--override-mpp {tile_px * tile_mpp / side:.6g}, or encode the slide itself."
            )
        return Geometry(level=0, side_level0=float(side), side_level=float(side))

    def resolution(self, mpp: float) -> float:
        """µm per pixel of the patches' PNG files, by the first that can be read; ``mpp`` if none can."""
        for row in range(len(self.locations.ids)):
            try:
                return mpp * self.locations.side / self._files.read(row).width
            except UnreadableSlideError:
                continue
        return mpp


class PatchReader(TileReader):
    """Reads patches as tiles; a PNG of another size than the tile is resampled by the rule for all slides.

    Args:
        source: the folder.
        geometry: of :meth:`PatchFolder.geometry`.
        **options: of every reader.
    """

    name = READER

    def __init__(self, source: SlideSource, geometry: Geometry, **options: Any) -> None:
        super().__init__(source, geometry, **options)
        locations = read_locations(source.path / LOCATIONS)
        self._files = _Files(source, locations)
        self._rows = {(x, y): row for row, (x, y) in enumerate(locations.coords.tolist())}

    def _plan(self, coords: np.ndarray, group_size: int) -> Iterator[list[int]]:
        """As they come: each is a file of its own."""
        for first in range(0, len(coords), group_size):
            yield list(range(first, min(first + group_size, len(coords))))

    def _read(self, coords: np.ndarray, group: list[int], slot: Slot) -> Iterator[np.ndarray | UnreadableSlideError]:
        for corner in map(tuple, coords[group].tolist()):
            try:
                patch = self._files.read(self._rows[corner])
            except UnreadableSlideError as error:
                yield error
                continue
            yield resample(patch, float(patch.width), self._tile_px)


def area_sums(pixels: np.ndarray, begin: int, side: int, downsample: int) -> tuple[np.ndarray, int]:
    """Integrals of a patch over the overview's rows, exact in whole numbers.

    Args:
        pixels: (n, ...) int64, which together cover level-0 [begin, begin + side).
        begin, side: of the patch, in level-0 pixels.
        downsample: level-0 pixels per overview pixel.

    Returns:
        (k, ...) int64: integrals times n, over the k overview pixels the patch touches; and the first of these.
    """
    n = len(pixels)
    first, last = begin // downsample, -(-(begin + side) // downsample)
    # Borders of the overview's pixels within the patch, in steps of which n make a level-0 pixel and side one of ours.
    at = np.clip(np.arange(first, last + 1) * downsample - begin, 0, side) * n
    whole, part = at // side, at % side
    before = np.concatenate([np.zeros_like(pixels[:1]), np.cumsum(pixels, axis=0)])
    rest = pixels[np.minimum(whole, n - 1)]
    shaped = (-1, *([1] * (pixels.ndim - 1)))
    return np.diff(before[whole] * side + rest * part.reshape(shaped), axis=0), first


def overlaps(begin: int, side: int, downsample: int, count: int) -> np.ndarray:
    """(count,) level-0 pixels of [begin, begin + side) in each overview pixel it touches."""
    borders = (np.arange(count + 1) + begin // downsample) * downsample
    return np.diff(np.clip(borders, begin, begin + side))


class _Files:
    """The PNG files of a folder, by the row of their patch."""

    def __init__(self, source: SlideSource, locations: Locations) -> None:
        self._folder = source.path
        self._ids = locations.ids
        present = {file.name for file in self._folder.iterdir()}
        names = [source.slide_id, *([locations.name] if is_slide_id(locations.name) else [])]
        found = [sum(f"{name}_patch_{i}.png" in present for i in self._ids.tolist()) for name in names]
        # A folder that was renamed keeps the slide's name in its files.
        self._name = names[int(np.argmax(found))]
        if not max(found):
            raise UnreadableSlideError(
                f"{self._folder}: none of the {len(self._ids)} patches of its {LOCATIONS} is there; the first would be "
                f"{names[0]}_patch_{self._ids[0]}.png. Copy them beside it."
            )

    def path(self, row: int) -> Path:
        return self._folder / f"{self._name}_patch_{self._ids[row]}.png"

    def sizes(self) -> Iterator[tuple[str, int]]:
        for row in range(len(self._ids)):
            path = self.path(row)
            yield path.name, path.stat().st_size if path.is_file() else -1

    def read(self, row: int) -> Image.Image:
        """A patch, RGB and square.

        Raises:
            UnreadableSlideError: missing, damaged, or no square 8-bit image.
        """
        path = self.path(row)
        try:
            with Image.open(path, formats=("PNG",)) as image:
                if image.width != image.height or image.width > MAX_PATCH_PX or image.mode.startswith(("I", "F")):
                    raise ValueError(f"{image.width} × {image.height} {image.mode}, not a square 8-bit image")
                image.load()
                transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
                return opaque(image.convert("RGBA"), WHITE) if transparent else image.convert("RGB")
        except DECODING_ERRORS as error:
            raise UnreadableSlideError(f"{path}: this patch cannot be read ({error}).") from error
