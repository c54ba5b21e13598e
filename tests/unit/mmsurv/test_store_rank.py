"""Row order of a record."""

import hashlib
import struct

import numpy as np

from mmsurv.store import rank_order
from mmsurv.store.rank import tile_ranks


def test_the_rank_is_the_documented_hash() -> None:
    name = b"TCGA-02-0047"
    content = struct.pack("<qq", 7, len(name)) + name + struct.pack("<qq", 448, 896)
    expected = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    assert tile_ranks("TCGA-02-0047", np.array([[448, 896]]), 7)[0] == expected


def test_the_order_of_a_slide_is_fixed_for_all_time() -> None:
    """Stores written by any version must agree; these four ranks were computed when format 1 was made."""
    coords = np.array([[0, 0], [448, 0], [0, 448], [448, 448]])
    assert tile_ranks("slide-1", coords, 0).tolist() == [
        11963398129885462184,
        6947184948493660833,
        2296374079716638659,
        9979781895141526329,
    ]


def test_ties_are_broken_by_y_then_x() -> None:
    coords = np.array([[5, 9], [5, 2], [1, 2], [5, 2]])
    order = rank_order("s", coords, 0)
    again = rank_order("s", coords[::-1], 0)
    assert coords[order].tolist() == coords[::-1][again].tolist()
