"""The tiles of a TIFF file, decoded to RGB.

Owns which compressions and colour spaces are understood, and their decoding by simplejpeg (libjpeg-turbo, strict about
damage) and imagecodecs. Whatever is not listed here is left to the slide library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tifffile

Decode = Callable[[bytes, np.ndarray], np.ndarray]
"""From a file tile's bytes to (height, width, 3) uint8 RGB; in the array given where the decoder can write to one."""

_NONE, _JPEG, _LZW, _DEFLATE, _ADOBE_DEFLATE, _APERIO_YCBCR, _APERIO_RGB = 1, 7, 5, 32946, 8, 33003, 33005
_RGB, _YCBCR = 2, 6
_SOI = b"\xff\xd8"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""The marker that says how colours are coded, but for its last byte: 0 RGB, 1 YCbCr."""


def decoder(page: tifffile.TiffPage) -> tuple[str, Decode] | None:
    """How a page's tiles are decoded, with a word for it; None where this module does not know.

    Args:
        page: a tiled page.
    """
    plain = (page.bitspersample, page.samplesperpixel, page.planarconfig, page.sampleformat) == (8, 3, 1, 1)
    if not plain or page.photometric not in (_RGB, _YCBCR) or page.fillorder != 1:
        return None
    if page.compression == _JPEG:
        return "jpeg", _jpeg(page)
    if page.compression == _APERIO_RGB:
        return "jpeg2000", _jpeg2000
    if page.compression == _APERIO_YCBCR:
        return "jpeg2000-ycbcr", lambda data, out: rgb_of_ycbcr(_jpeg2000(data, out))
    if page.photometric == _RGB and page.compression in (_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE):
        return "lossless", _lossless(page)
    return None


def _jpeg(page: tifffile.TiffPage) -> Decode:
    from simplejpeg import decode_jpeg

    # A file tile lacks the tables, which the page has once, and often a word on its colours, which the page's tag says.
    colours = _ADOBE + bytes([0 if page.photometric == _RGB else 1])
    head = _SOI + colours + (page.jpegtables or b"")[2:-2]

    def decode(data: bytes, out: np.ndarray) -> np.ndarray:
        if not data.startswith(_SOI):
            raise ValueError("it is no JPEG stream")
        # strict: libjpeg fills what is missing with grey and only warns; the slide library takes that for an error too.
        return decode_jpeg(head + data[2:], colorspace="RGB", buffer=out, strict=True)

    return decode


def _jpeg2000(data: bytes, out: np.ndarray) -> np.ndarray:
    from imagecodecs import jpeg2k_decode

    return jpeg2k_decode(data)


def _lossless(page: tifffile.TiffPage) -> Decode:
    import imagecodecs

    undo: dict[int, Callable[[bytes], bytes | bytearray]] = {_NONE: bytes, _LZW: imagecodecs.lzw_decode}
    decompress = undo.get(page.compression, imagecodecs.zlib_decode)
    shape = (page.tilelength, page.tilewidth, 3)
    differences = page.predictor == 2

    def decode(data: bytes, out: np.ndarray) -> np.ndarray:
        tile = np.frombuffer(decompress(data), np.uint8, count=shape[0] * shape[1] * 3).reshape(shape)
        return np.cumsum(tile, axis=1, dtype=np.uint8) if differences else tile

    return decode


def rgb_of_ycbcr(ycbcr: np.ndarray) -> np.ndarray:
    """RGB of the full-range YCbCr of JFIF, in the 16-bit integer arithmetic of libjpeg.

    Args:
        ycbcr: (H, W, 3) uint8.
    """
    y, cb, cr = (ycbcr[..., i].astype(np.int32) for i in range(3))
    cb, cr = cb - 128, cr - 128
    half = 1 << 15
    red = y + ((91881 * cr + half) >> 16)
    green = y + ((-22554 * cb - 46802 * cr + half) >> 16)
    blue = y + ((116130 * cb + half) >> 16)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)
