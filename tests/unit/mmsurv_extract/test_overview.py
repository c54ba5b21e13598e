from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsurv_extract import overview as module
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.mask import MaskSettings, classify
from mmsurv_extract.overview import overview_downsample, read_overview, thumbnail
from mmsurv_extract.slide import Slide, open_slide
from mmsurv_extract.stop import JobStopped


def opened(path: Path) -> Slide:
    return open_slide(SlideSource(path.stem, path))


def test_a_large_slide_has_a_coarser_overview() -> None:
    assert overview_downsample(1000, 1000, mpp=0.5, target_mpp=8, max_px=4096) == 16
    assert overview_downsample(200_000, 1000, mpp=0.25, target_mpp=8, max_px=4096) == 49
    assert overview_downsample(1000, 1000, mpp=20, target_mpp=8, max_px=4096) == 1


@pytest.mark.parametrize("levels", [1, 3])
def test_blocks_meet_without_a_seam(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, levels: int
) -> None:
    path = make_slide(height=610, width=530, levels=levels)
    with opened(path) as slide:
        whole = read_overview(slide, 4).rgb
        monkeypatch.setattr(module, "BLOCK_PX", 100)
        blocks = read_overview(slide, 4).rgb
    assert whole.shape == (153, 133, 3)
    np.testing.assert_allclose(blocks.astype(int), whole.astype(int), atol=2)


@pytest.mark.parametrize("block", [64, 100, 333, 4096])
@pytest.mark.parametrize("levels", [1, 2])
def test_the_mask_is_the_same_bytes_whatever_is_read_at_once(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, levels: int, block: int
) -> None:
    path = make_slide(height=608, width=528, levels=levels)
    with opened(path) as slide:
        usual = read_overview(slide, 8).rgb
        monkeypatch.setattr(module, "BLOCK_PX", block)
        other = read_overview(slide, 8).rgb
    np.testing.assert_array_equal(other, usual)
    masks = [classify(rgb, MaskSettings()).tobytes() for rgb in (usual, other)]
    assert masks[0] == masks[1]


def test_how_much_is_read_at_once_is_part_of_the_method() -> None:
    assert str(module.BLOCK_PX) in module.METHOD


def test_each_pixel_is_the_mean_of_its_level_0_pixels(make_slide: Callable[..., Path]) -> None:
    path = make_slide(height=512, width=512, levels=1)
    with opened(path) as slide:
        full = np.asarray(slide.read_region(0, 0, 0, 512, 512)).astype(float)
        found = read_overview(slide, 16).rgb
    np.testing.assert_allclose(found, full.reshape(32, 16, 32, 16, 3).mean(axis=(1, 3)), atol=1.01)  # rounded twice


def test_a_slide_without_a_low_level_is_read_in_bounded_pieces(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide(height=900, width=700, levels=1)
    monkeypatch.setattr(module, "BLOCK_PX", 256)
    sizes: list[int] = []
    with opened(path) as slide:
        read = slide.read_region

        def watched(x: int, y: int, level: int, width: int, height: int) -> Any:
            sizes.append(max(width, height))
            return read(x, y, level, width, height)

        monkeypatch.setattr(slide, "read_region", watched)
        read_overview(slide, 16)
    assert max(sizes) <= 256


def test_the_overview_of_a_long_read_can_be_stopped(make_slide: Callable[..., Path]) -> None:
    stop = threading.Event()
    stop.set()
    with opened(make_slide()) as slide, pytest.raises(JobStopped, match=r"^$"):
        read_overview(slide, 4, stop)


def test_the_thumbnail_is_a_small_jpeg_with_its_downsample(make_slide: Callable[..., Path]) -> None:
    with opened(make_slide(height=1700, width=400)) as slide:
        jpeg, downsample = thumbnail(read_overview(slide, 2))
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    assert downsample == 4
    assert image.size == (100, 425)
