"""Tiles of one slide as uint8 batches, read by threads ahead of the encoder.

``base`` owns threads, order and batches, ``window`` where a tile lies in its level. Pixels come from one of two
places: ``regions`` asks the slide library for them, in aligned super-tiles; ``filetiles`` decodes the tiles of the
file itself (``tiff`` is their index, ``codec`` their decoding). ``choose`` decides which, by comparing the two on the
slide at hand.
"""

from mmsurv_extract.reader.base import Batch, TileReader
from mmsurv_extract.reader.choose import open_reader

__all__ = ["Batch", "TileReader", "open_reader"]
