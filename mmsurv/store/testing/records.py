"""Records of made-up numbers, for the tests of whatever reads or writes a store."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmsurv.store import SlideRecord, rank_order
from mmsurv.store.record import REASONS, reason_counts

RECIPE: dict[str, Any] = {"encoder": {"name": "resnet50", "weights": "3f9c"}, "tile": {"px": 224, "mpp": 0.5}}


def make_record(slide_id: str = "slide-1", *, tiles: int = 60, dim: int = 8, seed: int = 0) -> SlideRecord:
    """A record as stage 1 would write it, of made-up numbers; every tenth tile drawn was rejected.

    Of two records of one slide and seed with up to 90 tiles, the smaller is a prefix of the larger.
    """
    rng = np.random.default_rng(seed)
    side = max(10, int(np.ceil(np.sqrt(tiles / 0.9))))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * 448
    grid = grid[rank_order(slide_id, grid, 0)].astype(np.int32)
    lost = np.arange(len(grid)) % 10 == 9
    drawn = np.flatnonzero(~lost)[tiles - 1] + 1
    rejected = grid[:drawn][lost[:drawn]]
    reasons = (np.arange(len(rejected)) % len(REASONS) + 1).astype(np.uint8)
    return SlideRecord(
        slide_id=slide_id,
        features=rng.normal(size=(tiles, dim)).astype(np.float16),
        coords=grid[:drawn][~lost[:drawn]],
        tissue=np.random.default_rng(seed).random(tiles).astype(np.float32),
        attributes={
            "sample_seed": 0, "mpp": 0.25, "mpp_source": "property", "n_tissue_tiles": len(grid),
            **reason_counts(reasons),
        },
        coords_attributes={"patch_size": 224, "patch_size_level0": 448, "overlap": 0, "name": slide_id},
        thumbnail=b"\xff\xd8 not really a JPEG \xff\xd9",
        mask=(np.random.default_rng(seed).random((20, 30)) * 3).astype(np.uint8),
        rejected=rejected,
        rejected_reason=reasons,
    )  # fmt: skip
