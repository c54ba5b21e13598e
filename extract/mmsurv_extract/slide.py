"""What a slide is to the rest of stage 1, whatever it is read from.

Owns the interface and the choice of who reads a source. Coordinates are level-0 pixels (x, y) from the top-left corner.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType

import numpy as np
from PIL import Image

from mmsurv.errors import NotASlideError
from mmsurv_extract.discover import LOCATIONS, SlideSource


class Slide(ABC):
    """An open slide. Use as a context manager; one handle serves one thread at a time."""

    source: SlideSource
    width: int
    """Level-0 width in pixels."""
    height: int
    properties: dict[str, str]
    """What the file says about itself, under OpenSlide's names."""
    level_downsamples: tuple[float, ...]
    """Exact downsample of each level, finest first."""
    level_dimensions: tuple[tuple[int, int], ...]
    """(width, height) of each level in its own pixels."""
    background: tuple[int, int, int]
    """Colour of what was not scanned."""
    reader: str
    """Name and version of what decodes it."""

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back the handle."""

    @abstractmethod
    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Image.Image:
        """Pixels of a region.

        Args:
            x, y: level-0 pixels of the region's top-left corner.
            level: level to read.
            width, height: size of the region in pixels of that level.

        Returns:
            RGB. What lies outside the slide, or was not scanned, has the slide's background colour (white unless
            the slide says another).

        Raises:
            UnreadableSlideError: the region could not be decoded. The slide can still be read elsewhere.
        """

    def own_overview(self, downsample: int, stop: threading.Event | None) -> np.ndarray | None:
        """The whole slide, (H, W, 3) uint8, each pixel the mean of ``downsample`` × ``downsample`` level-0 pixels.

        Returns:
            None where it is to be made from regions, as for all slides but those that are in pieces already.
        """
        return None

    @abstractmethod
    def digest(self) -> tuple[str, str]:
        """The source's digest and its kind, "openslide-quickhash1" or "sha256"."""


def open_slide(source: SlideSource) -> Slide:
    """Open a slide with the reader that knows it.

    Raises:
        NotASlideError: no reader recognises the file; the message says what it is instead.
        UnreadableSlideError: the format is recognised, but the file is damaged.
    """
    # Here, because the readers are made of what this module owns.
    from mmsurv_extract.image import ImageSlide, image_kind
    from mmsurv_extract.patches import PatchFolder
    from mmsurv_extract.plain_tiff import is_tiff
    from mmsurv_extract.wsi import OpenSlideSlide

    if (source.path / LOCATIONS).is_file():
        return PatchFolder(source)
    if image_kind(source.path):
        return ImageSlide(source)
    try:
        return OpenSlideSlide(source)
    except NotASlideError:
        if is_tiff(source.path):
            return ImageSlide(source)
        raise
