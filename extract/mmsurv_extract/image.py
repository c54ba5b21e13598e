"""A slide that is a plain image: a PNG or JPEG file, or a TIFF that OpenSlide does not know.

Owns the region read out of decoded segments, the bound on what is kept decoded, and PNG and JPEG themselves.
Resolution comes from the user: PNG's and JPEG's own tags say how large an image is to be printed.
"""

from __future__ import annotations

import math
import struct
import threading
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import PIL
from PIL import Image, ImageOps

from mmsurv.errors import NotASlideError, UnreadableSlideError
from mmsurv.provenance import file_digest
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.slide import Slide
from mmsurv_extract.tile import WHITE, opaque

MAX_PIXELS = 89_478_485
"""Largest image, or segment of a TIFF, that is decoded at once: Pillow's own limit, 0.27 GB as RGB. A small file can
claim to be a huge image."""
CACHE_BYTES = 64 * 2**20
"""Decoded segments kept per file, however many handles are open; never less than one segment."""

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}

_DAMAGED_JPEG = ("Corrupt JPEG data", "Premature end of JPEG file")
"""How libjpeg's warnings of damage begin."""

DECODING_ERRORS = (OSError, ValueError, SyntaxError, KeyError, IndexError, TypeError, struct.error, zlib.error)
"""What Pillow raises on damaged files; SyntaxError is its own choice for a broken PNG."""


@dataclass(frozen=True)
class Level:
    """One resolution of an image, and the grid of segments (tiles or strips) it is stored in."""

    width: int
    height: int
    segment_width: int
    segment_height: int


class Pixels(ABC):
    """What an image file holds, decoded segment by segment. One per file, shared by all its handles."""

    levels: tuple[Level, ...]
    properties: dict[str, str]
    reader: str

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._kept_bytes = 0

    @abstractmethod
    def decode(self, level: int, column: int, row: int) -> np.ndarray:
        """One segment, (h, w, 3) uint8; a last one may reach beyond the image.

        Raises:
            UnreadableSlideError: it cannot be decoded.
        """

    def segment(self, level: int, column: int, row: int) -> np.ndarray:
        """The same, from memory if it was decoded lately."""
        key = (level, column, row)
        # Held while decoding: threads that want the same strip would each decode all of it.
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            decoded = self.decode(level, column, row)
            self._kept[key] = decoded
            self._kept_bytes += decoded.nbytes
            while self._kept_bytes > CACHE_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return decoded


class ImageSlide(Slide):
    """A plain image as a slide."""

    background = WHITE

    def __init__(self, source: SlideSource) -> None:
        """Open an image.

        Raises:
            NotASlideError: a kind of image that cannot be taken, with what to do about it.
            UnreadableSlideError: damaged.
        """
        self.source = source
        self._pixels = _shared(source.path)
        levels = self._pixels.levels
        self.reader = self._pixels.reader
        self.properties = self._pixels.properties
        self.width, self.height = levels[0].width, levels[0].height
        self.level_dimensions = tuple((level.width, level.height) for level in levels)
        self.level_downsamples = tuple((self.width / level.width + self.height / level.height) / 2 for level in levels)

    def close(self) -> None:
        """Nothing is held open; the decoded pixels go with the last handle."""

    def digest(self) -> tuple[str, str]:
        return file_digest(self.source.path), "sha256"

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Image.Image:
        downsample = self.level_downsamples[level]
        left, top = x / downsample, y / downsample
        across, down = math.floor(left), math.floor(top)
        # A corner between two pixels of a lower level is met by interpolating, not by moving the tile.
        part = (left - across, top - down)
        if part == (0.0, 0.0):
            return Image.fromarray(self._paste(level, across, down, width, height))
        region = Image.fromarray(self._paste(level, across, down, width + 1, height + 1))
        box = (*part, part[0] + width, part[1] + height)
        return region.resize((width, height), Image.Resampling.BILINEAR, box=box)

    def _paste(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Pixels of a level, (height, width, 3); white outside the image."""
        grid = self._pixels.levels[level]
        out = np.full((height, width, 3), self.background, np.uint8)
        x0, x1 = max(left, 0), min(left + width, grid.width)
        y0, y1 = max(top, 0), min(top + height, grid.height)
        if x0 >= x1 or y0 >= y1:
            return out
        for row in range(y0 // grid.segment_height, (y1 - 1) // grid.segment_height + 1):
            for column in range(x0 // grid.segment_width, (x1 - 1) // grid.segment_width + 1):
                segment = self._pixels.segment(level, column, row)
                ox, oy = column * grid.segment_width, row * grid.segment_height
                a, b = max(x0, ox), min(x1, ox + grid.segment_width)
                c, d = max(y0, oy), min(y1, oy + grid.segment_height)
                out[c - top : d - top, a - left : b - left] = segment[c - oy : d - oy, a - ox : b - ox]
        return out


def image_kind(path: Path) -> str | None:
    """ "PNG" or "JPEG" by a file's first bytes, whatever its name; None for anything else, missing files too."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return None
    return next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)


def require_decodable(path: Path, what: str, width: int, height: int) -> None:
    """Refuse what would take too much memory to decode.

    Raises:
        NotASlideError: more than MAX_PIXELS pixels.
    """
    if width * height > MAX_PIXELS:
        raise NotASlideError(_too_large(path, what, f"{width} × {height} pixels"))


class WholePixels(Pixels):
    """A PNG or JPEG file, decoded whole."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__()
        self._path = path
        self._kind = kind
        self.reader = f"pillow {PIL.__version__}"
        self.properties = {}
        with _opened(path, kind) as image:
            _require_kind(path, kind, image)
            require_decodable(path, f"{kind} image", *image.size)
        # At once: which way up it is to be shown may stand after the pixels.
        height, width = self.segment(0, 0, 0).shape[:2]
        self.levels = (Level(width, height, width, height),)

    def decode(self, level: int, column: int, row: int) -> np.ndarray:
        with _opened(self._path, self._kind) as image:
            try:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
            except DECODING_ERRORS as error:
                raise _damaged(self._path, self._kind, error) from error
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            if self._kind == "JPEG":
                _require_complete(self._path)
            rgb = opaque(image.convert("RGBA"), WHITE) if transparent else image.convert("RGB")
            return np.asarray(rgb)


_open_files: WeakValueDictionary[tuple[Path, int, int], Pixels] = WeakValueDictionary()
_open_lock = threading.Lock()


def _shared(path: Path) -> Pixels:
    """The pixels of a file; handles of the same file have the same, so that threads do not each decode it."""
    from mmsurv_extract.plain_tiff import TiffPixels

    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableSlideError(f"{path}: it cannot be read ({error.strerror}). Check the path.") from error
    key = (path.resolve(), found.st_mtime_ns, found.st_size)
    with _open_lock:
        pixels = _open_files.get(key)
        if pixels is None:
            kind = image_kind(path)
            pixels = WholePixels(path, kind) if kind else TiffPixels(path)
            _open_files[key] = pixels
        return pixels


def _opened(path: Path, kind: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns from the limit we refuse at.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=(kind,))
    except Image.DecompressionBombError as error:
        raise NotASlideError(_too_large(path, f"{kind} image", f"over {2 * MAX_PIXELS} pixels")) from error
    except DECODING_ERRORS as error:
        raise _damaged(path, kind, error) from error


def _require_kind(path: Path, kind: str, image: Image.Image) -> None:
    """8 bits per channel, grey or colour."""
    with path.open("rb") as file:
        depth = file.read(25)[24] if kind == "PNG" else 8
    if depth == 16 or image.mode.startswith(("I", "F")):
        raise NotASlideError(
            f"{path}: a {kind} image of {depth} bits per channel; tiles are 8-bit RGB. How bright its values are to "
            "become is for you to say: convert it to 8 bits per channel."
        )
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise NotASlideError(
            f"{path}: a {kind} image whose colours are {image.mode}; expected RGB or grey. Convert it to RGB."
        )


def _require_complete(path: Path) -> None:
    """Refuse a JPEG of which parts are missing or overwritten.

    libjpeg fills those with grey and only warns, of which Pillow does not tell. So the stream is read a second time, at
    an eighth of its size; what else this reader does not like in an image is no damage.

    Raises:
        UnreadableSlideError: damaged.
    """
    from simplejpeg import decode_jpeg

    try:
        decode_jpeg(path.read_bytes(), "GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) or str(error).startswith(_DAMAGED_JPEG):
            raise _damaged(path, "JPEG", error) from error


def _too_large(path: Path, what: str, found: str) -> str:
    return (
        f"{path}: a {what} of {found}; it would be decoded whole, and at most {MAX_PIXELS} pixels are. Convert it to a "
        "tiled TIFF (for instance vips tiffsave --tile --pyramid), which is read piece by piece."
    )


def _damaged(path: Path, kind: str, error: Exception) -> UnreadableSlideError:
    return UnreadableSlideError(f"{path}: a {kind} image that cannot be decoded ({error}). Copy the file again.")
