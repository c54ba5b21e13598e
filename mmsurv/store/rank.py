"""Row order of a record: a seeded shuffle that depends on nothing but seed, slide and coordinates.

Owns the rank of a tile. Because a tile's rank does not depend on the other tiles, the first k rows of a record are a
uniform random sample of the tissue without replacement, and the sample for a smaller k is its prefix.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

ROW_ORDER = "rank"


def tile_ranks(slide_id: str, coords: np.ndarray, seed: int) -> np.ndarray:
    """Rank of each tile: the first 8 bytes, big-endian, of blake2b(seed, len(slide_id), slide_id, x, y).

    Args:
        slide_id: the slide's id; its UTF-8 bytes enter the hash.
        coords: (N, 2) integers, level-0 pixels (x, y) of the tiles' top-left corners.
        seed: the recipe's sample seed, a signed 64-bit integer.

    Returns:
        (N,) uint64. All integers are hashed as little-endian signed 64-bit, so the rank is the same on every platform.
    """
    name = slide_id.encode("utf-8")
    prefix = hashlib.blake2b(struct.pack("<qq", seed, len(name)) + name, digest_size=8)
    rows = np.ascontiguousarray(coords, dtype="<i8").reshape(-1, 2)
    ranks = np.empty(len(rows), np.uint64)
    for index, row in enumerate(rows):
        tile = prefix.copy()
        tile.update(row.tobytes())
        ranks[index] = int.from_bytes(tile.digest(), "big")
    return ranks


def rank_order(slide_id: str, coords: np.ndarray, seed: int) -> np.ndarray:
    """The permutation that puts tiles in rank order, ties by y, then x.

    Args:
        slide_id, coords, seed: as for :func:`tile_ranks`.

    Returns:
        (N,) int64 such that ``coords[order]`` is in rank order.
    """
    coords = np.asarray(coords).reshape(-1, 2)
    ranks = tile_ranks(slide_id, coords, seed)
    return np.lexsort((coords[:, 0], coords[:, 1], ranks)).astype(np.int64)
