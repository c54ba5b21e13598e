"""TIFF files that OpenSlide does not know: in strips, untiled, or pyramids of pages it does not see as one.

Owns what of TIFF is taken and what is refused. The file is opened for each read and closed again.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from mmsurv.errors import NotASlideError, UnreadableSlideError
from mmsurv_extract.image import Level, Pixels, require_decodable
from mmsurv_extract.sniff import not_a_slide
from mmsurv_extract.tile import WHITE, opaque

MAX_LEVEL_MISMATCH = 2.0
"""Pixels by which the sides of a lower level may differ from the first page's proportions: rounding, either way."""

_DECODING_ERRORS = (OSError, ValueError, RuntimeError, IndexError, KeyError, TypeError, struct.error)
"""What tifffile and the imagecodecs' errors (all RuntimeErrors) are, on damaged files."""
_TAKEN = {"MINISWHITE": (1, 2), "MINISBLACK": (1, 2), "PALETTE": (1,), "RGB": (3, 4), "YCBCR": (3,)}
"""Colour spaces, each with the numbers of samples per pixel it may have."""


class TiffPixels(Pixels):
    """Segments (tiles or strips) of a TIFF file's levels."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.reader = f"tifffile {tifffile.__version__}"
        try:
            with tifffile.TiffFile(path) as file:
                self._pages = _pyramid(file)
                self.properties = _properties(self._pages[0])
                self._decoders = [page.decode for page in self._pages]
                for page in self._pages:
                    _load_tags(page)
        except tifffile.TiffFileError as error:
            raise not_a_slide(path) from error
        except _DECODING_ERRORS as error:
            raise _damaged(path, "its directory", error) from error
        for page in self._pages:
            _require_kind(path, page)
            require_decodable(path, "TIFF image whose tiles or strips have", *_segment_size(page))
        self.levels = tuple(Level(page.imagewidth, page.imagelength, *_segment_size(page)) for page in self._pages)

    def decode(self, level: int, column: int, row: int) -> np.ndarray:
        page, grid = self._pages[level], self.levels[level]
        index = row * -(-grid.width // grid.segment_width) + column
        try:
            data = self._bytes(page, index)
            decoded, _, shape = self._decoders[level](data, index, jpegtables=page.jpegtables)
        except _DECODING_ERRORS as error:
            raise _damaged(self._path, f"tile or strip {index} of page {page.index}", error) from error
        if decoded is None:  # a hole: no bytes were stored for it
            return np.full((grid.segment_height, grid.segment_width, 3), WHITE, np.uint8)
        return _rgb(page, decoded.reshape(shape[1:]))

    def _bytes(self, page: Any, index: int) -> bytes | None:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(count)
        if len(data) < count:
            raise ValueError(f"the file ends {count - len(data)} bytes short")
        return data


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF or BigTIFF do."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
    except OSError:
        return False


def _pyramid(file: tifffile.TiffFile) -> list[Any]:
    """The first page and those, largest first, that are the same picture made smaller: pages of their own or below it.

    Pages of other proportions (labels, macro photographs) are passed over.
    """
    first = file.pages.first
    others = [*(first.pages or ()), *(file.pages[i] for i in range(1, len(file.pages)))]
    pages = [first]
    for page in sorted(others, key=lambda page: -page.imagewidth):
        width, height = page.imagewidth, page.imagelength
        expected = first.imagelength * width / first.imagewidth
        slack = MAX_LEVEL_MISMATCH * max(1.0, first.imagelength / first.imagewidth)
        smaller = min(width, height) > 0 and width < pages[-1].imagewidth and height < pages[-1].imagelength
        same_kind = page.photometric == first.photometric and page.samplesperpixel == first.samplesperpixel
        if smaller and same_kind and abs(height - expected) <= slack:
            pages.append(page)
    return pages


def _load_tags(page: Any) -> None:
    """Read what tifffile leaves in the file until it is asked for."""
    for tag in page.tags:
        _ = tag.value


def _segment_size(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def _require_kind(path: Path, page: Any) -> None:
    """8 bits per channel, grey, palette or colour, upright, its channels together."""
    bits = page.bitspersample
    if bits != 8 or page.dtype != np.uint8:
        raise NotASlideError(
            f"{path}: a TIFF image of {bits} bits per channel ({page.dtype}); tiles are 8-bit RGB. How bright these "
            "values are to become is for you to say: convert it to 8 bits per channel."
        )
    colours = getattr(page.photometric, "name", str(page.photometric))
    if page.samplesperpixel not in _TAKEN.get(colours, ()):
        raise NotASlideError(
            f"{path}: a TIFF image of {page.samplesperpixel} channels, {colours}; expected RGB, RGBA, grey or palette. "
            "Convert it to RGB."
        )
    if colours == "YCBCR" and page.compression != tifffile.COMPRESSION.JPEG:
        raise NotASlideError(f"{path}: a TIFF image in YCbCr that is not JPEG-compressed. Convert it to RGB.")
    if page.planarconfig != 1:
        raise NotASlideError(f"{path}: a TIFF image with a plane for each channel. Convert it to RGB pixel by pixel.")
    orientation = page.tags.valueof("Orientation", 1)
    if orientation != 1:
        # OpenSlide does not turn TIFFs, so coordinates would depend on who read the file.
        raise NotASlideError(
            f"{path}: a TIFF image to be turned before it is shown (orientation {orientation}). Convert it upright."
        )


def _properties(page: Any) -> dict[str, str]:
    """The TIFF tags that say something about resolution, as OpenSlide would name them."""
    names = {1: "none", 2: "inch", 3: "centimeter"}
    found = {"tiff.ResolutionUnit": names.get(int(page.tags.valueof("ResolutionUnit", 2)), "none")}
    for tag in ("XResolution", "YResolution"):
        value = page.tags.valueof(tag)
        if value and value[1]:
            found[f"tiff.{tag}"] = repr(value[0] / value[1])
    return found


def _rgb(page: Any, pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 of a decoded segment (h, w, samples)."""
    colours = page.photometric.name
    if colours == "PALETTE":
        # The colour map has 16 bits, (3, 256).
        return np.ascontiguousarray((page.colormap >> 8).astype(np.uint8).T[pixels[..., 0]])
    samples = 1 if colours.startswith("MINIS") else 3
    colour = np.repeat(pixels[..., :1], 3, axis=2) if samples == 1 else pixels[..., :3]
    if colours == "MINISWHITE":
        colour = 255 - colour
    # Only 1 and 2 say that the further channel is opacity.
    if pixels.shape[2] > samples and page.extrasamples and int(page.extrasamples[0]) in (1, 2):
        alpha = pixels[..., samples]
        if int(page.extrasamples[0]) == 1:  # colours are multiplied by it already
            return np.minimum(colour.astype(np.uint16) + (255 - alpha)[..., None], 255).astype(np.uint8)
        return np.asarray(opaque(Image.fromarray(np.dstack([colour, alpha])), WHITE))
    return np.ascontiguousarray(colour)


def _damaged(path: Path, what: str, error: Exception) -> UnreadableSlideError:
    return UnreadableSlideError(f"{path}: {what} cannot be read ({error}). Copy the file again.")
