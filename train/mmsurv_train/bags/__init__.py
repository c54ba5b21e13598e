"""Bags of tile features: which rows are drawn, where they lie, and their moments.

Features are mapped from the store's files, held in memory, or streamed by a thread that reads ahead; all three give
the same bits (docs/memory.md).
"""

from __future__ import annotations

from mmsurv_train.bags.bags import Bags
from mmsurv_train.bags.drawn import DrawnBags
from mmsurv_train.bags.windows import Draw

__all__ = ["Bags", "Draw", "DrawnBags"]
