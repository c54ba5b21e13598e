"""A slide in a format OpenSlide reads, DICOM series included.

Owns OpenSlide; no other module imports it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import openslide
from PIL import Image

from mmsurv.errors import NotASlideError, UnreadableSlideError
from mmsurv.provenance import file_digest
from mmsurv_extract.discover import DICOM, SlideSource
from mmsurv_extract.slide import Slide
from mmsurv_extract.sniff import not_a_slide
from mmsurv_extract.tile import WHITE, opaque

READER = f"openslide {openslide.__library_version__}"
CACHE_BYTES = 64 * 2**20
"""Decoded file tiles kept per open slide; the library's own 32 MiB holds less than two rows of a large slide."""

_SERIES_UID = b"\x20\x00\x0e\x00UI"

T = TypeVar("T")


class OpenSlideSlide(Slide):
    """A slide OpenSlide opens."""

    reader = READER

    def __init__(self, source: SlideSource) -> None:
        """Open a slide.

        Raises:
            NotASlideError: OpenSlide does not know the file; the message says what it is instead.
            UnreadableSlideError: the format is recognised, but the file is damaged.
        """
        self.source = source
        self._handle = _open(source.path)
        self.level_dimensions = tuple(self._handle.level_dimensions)
        self.width, self.height = self.level_dimensions[0]
        self.properties = dict(self._handle.properties)
        self.level_downsamples = tuple(self._handle.level_downsamples)
        self.background = _background(self.properties)

    def close(self) -> None:
        self._handle.close()

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Image.Image:
        region = self._reopening(
            lambda handle: handle.read_region((x, y), level, (width, height)),
            f"region {width} × {height} at level-0 ({x}, {y}), level {level}",
        )
        return opaque(region, self.background)

    def digest(self) -> tuple[str, str]:
        quick = self.properties.get("openslide.quickhash-1")
        if quick:
            return quick, "openslide-quickhash1"
        path = self.source.path
        if path.is_file():
            return file_digest(path), "sha256"
        parts = "\n".join(f"{file.name} {file_digest(file)}" for file in _dicom_files(path))
        return hashlib.sha256(parts.encode()).hexdigest(), "sha256"

    def _reopening(self, read: Callable[[Any], T], what: str) -> T:
        try:
            return read(self._handle)
        except openslide.OpenSlideError as error:
            # After one error every further call on a handle fails, also for regions that are fine.
            failed, self._handle = self._handle, _open(self.source.path)
            failed.close()
            raise UnreadableSlideError(
                f"{self.source.path}: {what} cannot be read ({error}). Copy the file again."
            ) from error


def _open(path: Path) -> Any:
    try:
        handle = openslide.OpenSlide(_dicom_instance(path) if path.is_dir() else path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise not_a_slide(path) from error
    except openslide.OpenSlideError as error:
        raise UnreadableSlideError(
            f"{path}: recognised as a slide, but it cannot be opened ({error}). "
            "The file is damaged or uses a compression OpenSlide lacks: copy it again, or convert it."
        ) from error
    handle.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    return handle


def _dicom_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == DICOM)


def _dicom_instance(folder: Path) -> Path:
    """A file of the series that OpenSlide opens; from any of them it finds the others."""
    files = _dicom_files(folder)
    series = {uid for file in files if (uid := _series_uid(file))}
    if len(series) > 1:
        raise NotASlideError(
            f"{folder} holds {len(series)} DICOM series; a folder is one slide. Give each series a folder of its own."
        )
    for file in files:
        if openslide.OpenSlide.detect_format(file) is not None:
            return file
    raise NotASlideError(f"{folder}: none of its {len(files)} {DICOM} files belongs to a whole-slide DICOM series.")


def _series_uid(file: Path) -> bytes | None:
    """SeriesInstanceUID (0020,000E) of a little-endian DICOM file with explicit types, or None."""
    with file.open("rb") as stream:
        head = stream.read(2**16)
    at = head.find(_SERIES_UID)
    if at < 0:
        return None
    begin = at + len(_SERIES_UID) + 2
    length = int.from_bytes(head[begin - 2 : begin], "little")
    return head[begin : begin + length].rstrip(b"\x00 ")


def _background(properties: dict[str, str]) -> tuple[int, int, int]:
    colour = properties.get("openslide.background-color", "")
    try:
        red, green, blue = bytes.fromhex(colour)
    except ValueError:
        return WHITE
    return red, green, blue
