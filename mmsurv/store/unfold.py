"""Compressed bytes, unfolded no further than is expected: a few of them may claim to be any number."""

from __future__ import annotations

import zlib


def unfolded(packed: bytes, size: int, window: int) -> bytes:
    """What compressed bytes unfold to, without making more than is expected.

    Args:
        packed: one stream of zlib or gzip, with nothing after it.
        size: bytes that are expected.
        window: zlib's ``wbits``, which says of the two which.

    Raises:
        ValueError: another number of bytes.
        zlib.error: no such stream.
    """
    stream = zlib.decompressobj(window)
    plain = stream.decompress(packed, size + 1)
    if len(plain) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"what should unfold to {size} bytes does not")
    return plain
