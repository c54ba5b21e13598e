"""A slide cut into PNG files by another program: the folders of Steyaert et al. 2023 and those who took them over.

Owns the layout of such a folder, ``loc.txt`` beside ``<slide>_patch_<id>.png``, and the reading of its tiles.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import PIL
from PIL import Image

from mmsurv.errors import MppError, UnreadableSlideError
from mmsurv.store.ids import is_slide_id
from mmsurv.store.record import UNREADABLE
from mmsurv_extract.discover import LOCATIONS, SlideSource
from mmsurv_extract.grid import Geometry
from mmsurv_extract.image import DECODING_ERRORS
from mmsurv_extract.locations import Locations, read_locations
from mmsurv_extract.reader import Batch
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

    def glance(self, x: int, y: int, level: int, width: int, height: int) -> Image.Image:
        canvas = Image.new("RGB", (width, height), self.background)
        for row in self._rows_in(x, y, width, height):
            try:
                self._paste(canvas, row, x, y)
            except UnreadableSlideError:
                self.unreadable.add(row)
        return canvas

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


class PatchReader:
    """Reads patches as tiles, several at once. Use as a context manager.

    Args:
        source: the folder.
        geometry: of :meth:`PatchFolder.geometry`.
        tile_px: side of a tile as encoded; a PNG of another size is resampled, by the rule for all slides.
        workers: threads.
        inspect: says of a tile's pixels 0, or why it is not to be encoded.
    """

    name = READER

    def __init__(
        self,
        source: SlideSource,
        geometry: Geometry,
        *,
        tile_px: int,
        workers: int,
        inspect: Callable[[np.ndarray], int] | None = None,
    ) -> None:
        self._geometry = geometry
        self._tile_px = tile_px
        self._inspect = inspect
        locations = read_locations(source.path / LOCATIONS)
        self._files = _Files(source, locations)
        self._rows = {(x, y): row for row, (x, y) in enumerate(locations.coords.tolist())}
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="patch-reader")
        self.rejected: dict[int, int] = {}
        """Row of the coordinates of the latest ``batches`` call → reason code."""

    def __enter__(self) -> PatchReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batches(self, coords: np.ndarray, *, batch_size: int, stop: threading.Event | None = None) -> Iterator[Batch]:
        """Read tiles in the order of ``coords``, the next ones while the caller works on a batch.

        Args:
            coords: (N, 2) level-0 (x, y), each the corner of a patch.
            batch_size: tiles per batch; the last batch has what is left.
            stop: looked at between tiles.

        Yields:
            Accepted tiles; the others are in ``rejected`` when the iteration has ended.

        Raises:
            JobStopped: ``stop`` was set.
        """
        self.rejected = {}
        rows: list[int] = []
        tiles: list[np.ndarray] = []
        corners = iter(enumerate(map(tuple, np.asarray(coords).tolist())))
        pending: deque[tuple[int, Future[tuple[int, np.ndarray | None]]]] = deque()
        ahead = self._workers + 2 * batch_size
        while True:
            while len(pending) < ahead and (following := next(corners, None)) is not None:
                pending.append((following[0], self._pool.submit(self._tile, following[1])))
            if not pending:
                break
            stop_if_set(stop)
            row, future = pending.popleft()
            code, tile = future.result()
            if tile is None:
                self.rejected[row] = code
                continue
            rows.append(row)
            tiles.append(tile)
            if len(rows) == batch_size:
                yield Batch(np.array(rows), np.stack(tiles))
                rows, tiles = [], []
        if rows:
            yield Batch(np.array(rows), np.stack(tiles))

    def _tile(self, corner: tuple[int, int]) -> tuple[int, np.ndarray | None]:
        try:
            patch = self._files.read(self._rows[corner])
        except UnreadableSlideError:
            return UNREADABLE, None
        tile = resample(patch, float(patch.width), self._tile_px)
        code = self._inspect(tile) if self._inspect else 0
        return code, None if code else tile


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
