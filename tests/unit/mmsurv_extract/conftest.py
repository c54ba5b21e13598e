"""Small slides for the tests of stage 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsurv.demo.tissue import write_slide

Rectangle = tuple[int, int, int, int]


def paint(height: int, width: int, tissue: Rectangle, seed: int = 0) -> np.ndarray:
    """Pink, uneven tissue in the rectangle (top, left, bottom, right); elsewhere glass."""
    rng = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), 244, np.uint8)
    top, left, bottom, right = tissue
    coarse = rng.integers(-30, 30, ((bottom - top) // 16 + 1, (right - left) // 16 + 1, 3))
    uneven = np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)[: bottom - top, : right - left]
    rgb[top:bottom, left:right] = np.clip(np.array([190, 110, 160]) + uneven, 0, 255)
    return rgb


@pytest.fixture
def make_slide(tmp_path: Path) -> Callable[..., Path]:
    """Writes a slide: ``make_slide("a.tiff", height=600, width=800, tissue=(0, 0, 600, 400), mpp=0.5)``."""

    def make(
        name: str = "slide.tiff",
        *,
        height: int = 640,
        width: int = 512,
        tissue: Rectangle | None = None,
        mpp: float | None = 0.5,
        levels: int = 2,
        seed: int = 0,
        rgb: np.ndarray | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = paint(height, width, tissue or (0, 0, height, width // 2), seed) if rgb is None else rgb
        write_slide(path, pixels, mpp=mpp, levels=levels, quality=95)
        return path

    return make
