"""write_slide makes files that OpenSlide opens, with and without a resolution."""

from pathlib import Path

import numpy as np
import openslide
import pytest

from mmsurv.demo.tissue import write_slide


@pytest.fixture
def rgb() -> np.ndarray:
    """A smooth colour ramp with odd sides, so that JPEG keeps it and pyramids must round."""
    y, x = np.mgrid[0:603, 0:901]
    return np.stack([y / 3, x / 4, (x + y) / 7], axis=-1).astype(np.uint8)


def test_openslide_reads_the_pixels_that_were_written(tmp_path: Path, rgb: np.ndarray) -> None:
    write_slide(tmp_path / "a.tiff", rgb, mpp=0.5)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.dimensions == (901, 603)
        read = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    assert np.abs(read.astype(int) - rgb).mean() < 2


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.4991])
def test_openslide_reports_the_resolution(tmp_path: Path, rgb: np.ndarray, mpp: float) -> None:
    write_slide(tmp_path / "a.tiff", rgb, mpp=mpp)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(mpp, rel=1e-5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(mpp, rel=1e-5)


def test_a_slide_without_mpp_has_no_resolution(tmp_path: Path, rgb: np.ndarray) -> None:
    write_slide(tmp_path / "a.tiff", rgb, mpp=None)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert not [name for name in slide.properties if "mpp" in name]


def test_levels_halve(tmp_path: Path, rgb: np.ndarray) -> None:
    write_slide(tmp_path / "a.tiff", rgb, mpp=0.5, levels=3)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.level_dimensions == ((901, 603), (450, 301), (225, 150))
        assert slide.properties["openslide.level[0].tile-width"] == "256"
        coarse = np.asarray(slide.read_region((0, 0), 2, (225, 150)))[..., :3].astype(int)
    assert np.abs(coarse - rgb[2:600:4, 2:900:4][:150, :225]).mean() < 3


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path, rgb: np.ndarray) -> None:
    write_slide(tmp_path / "a.tiff", rgb, mpp=0.5)
    write_slide(tmp_path / "b.tiff", rgb, mpp=0.5)
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": 100}, "multiple of 16"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"mpp": 0.0}, "mpp must be above zero"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, rgb: np.ndarray, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_slide(tmp_path / "a.tiff", rgb, **{"mpp": 0.5, **change})


def test_a_grey_image_is_refused(tmp_path: Path, rgb: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected an \(H, W, 3\) uint8 array, found \(603, 901\) uint8"):
        write_slide(tmp_path / "a.tiff", rgb[..., 0], mpp=0.5)
