from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from mmsurv.errors import MppError, NotASlideError, UnreadableSlideError
from mmsurv_extract import image as image_module
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.image import ImageSlide
from mmsurv_extract.plain_tiff import TiffPixels
from mmsurv_extract.resolution import MppOptions, resolve_mpp
from mmsurv_extract.slide import Slide, open_slide

SMOOTH = np.add.outer(np.arange(150), np.arange(200))[..., None] // np.array([2, 3, 4])
RGB = np.clip(SMOOTH, 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray = RGB, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, metadata=None, **options)
    return path


def opened(path: Path) -> ImageSlide:
    slide = open_slide(SlideSource(path.stem, path))
    assert isinstance(slide, ImageSlide)
    return slide


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return np.asarray(slide.read_region(0, 0, level, *slide.level_dimensions[level]))


@pytest.mark.parametrize(
    "options",
    [
        {"rowsperstrip": 16},
        {"rowsperstrip": 150},
        {"rowsperstrip": 16, "compression": "lzw", "predictor": True},
        {"rowsperstrip": 16, "compression": "zlib"},
        {"rowsperstrip": 7, "compression": "packbits"},
        {"rowsperstrip": 16, "byteorder": ">"},
        {"rowsperstrip": 16, "bigtiff": True},
    ],
    ids=str,
)
def test_strips_are_read_pixel_for_pixel(tmp_path: Path, options: dict[str, Any]) -> None:
    with opened(write(tmp_path / "a.tif", photometric="rgb", **options)) as slide:
        assert slide.reader.startswith("tifffile ")
        np.testing.assert_array_equal(whole(slide), RGB)
        np.testing.assert_array_equal(np.asarray(slide.read_region(33, 41, 0, 70, 50)), RGB[41:91, 33:103])


def test_jpeg_strips_have_the_colours_they_should(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, photometric="rgb", compression="jpeg", compressionargs={"level": 95}, rowsperstrip=16)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric.name == "YCBCR"
    with opened(path) as slide:
        np.testing.assert_allclose(whole(slide).astype(int), np.asarray(Image.open(path)).astype(int), atol=1)


def test_a_pyramid_of_strips_is_one_slide_of_exact_downsamples(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2, 8):  # the third level is 25 × 18 or 19: not a whole eighth
            file.write(RGB[::step, ::step][:, :], photometric="rgb", rowsperstrip=16, metadata=None)
        file.write(np.zeros((60, 60, 3), np.uint8), photometric="rgb", rowsperstrip=16, metadata=None)  # a label
    with opened(path) as slide:
        assert slide.level_dimensions == ((200, 150), (100, 75), (25, 19))
        assert slide.level_downsamples == (1.0, 2.0, (8.0 + 150 / 19) / 2)
        np.testing.assert_array_equal(whole(slide, 1), RGB[::2, ::2])
        np.testing.assert_array_equal(np.asarray(slide.read_region(40, 20, 1, 30, 20)), RGB[20:60:2, 40:100:2])


def test_levels_below_a_page_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, photometric="rgb", rowsperstrip=16, subifds=1, metadata=None)
        file.write(RGB[::4, ::4], photometric="rgb", rowsperstrip=16, subfiletype=1, metadata=None)
    with opened(path) as slide:
        assert slide.level_dimensions == ((200, 150), (50, 38))


def test_a_corner_between_pixels_of_a_lower_level_does_not_move_the_region(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(240, dtype=np.uint8)[None, :, None], 160, axis=0).repeat(3, axis=2)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(ramp, photometric="rgb", rowsperstrip=16, metadata=None)
        file.write(ramp[:, ::4][::4] + np.uint8(1), photometric="rgb", rowsperstrip=16, metadata=None)
    with opened(path) as slide:
        means = [np.asarray(slide.read_region(x, 40, 1, 20, 10))[:, :, 0].mean() for x in range(60, 68)]
    np.testing.assert_allclose(np.diff(means), 1, atol=0.51)
    assert means[-1] - means[0] == pytest.approx(7, abs=0.3)


@pytest.mark.parametrize(
    ("pixels", "options", "expected"),
    [
        (RGB[..., 0], {"photometric": "minisblack"}, np.repeat(RGB[..., :1], 3, axis=2)),
        (RGB[..., 0], {"photometric": "miniswhite"}, 255 - np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=["black", "white"],
)
def test_grey_becomes_rgb(tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], expected: np.ndarray) -> None:
    with opened(write(tmp_path / "a.tif", pixels, rowsperstrip=16, **options)) as slide:
        np.testing.assert_array_equal(whole(slide), expected)


def test_a_palette_becomes_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    options = {"photometric": "palette", "colormap": colours * 257}
    with opened(write(tmp_path / "a.tif", RGB[..., 0], rowsperstrip=16, **options)) as slide:
        np.testing.assert_array_equal(whole(slide), colours.T[RGB[..., 0]])


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_what_is_transparent_becomes_white(tmp_path: Path, kind: str) -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:, :50] = 0
    options = {"photometric": "rgb", "extrasamples": [kind], "rowsperstrip": 16}
    with opened(write(tmp_path / "a.tif", rgba, **options)) as slide:
        assert (whole(slide)[:, :50] == 255).all()
        np.testing.assert_array_equal(whole(slide)[:, 50:], RGB[:, 50:])


def test_sixteen_bits_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(NotASlideError, match=r"a\.tif: a TIFF image of 16 bits per channel.*convert it to 8 bits"):
        opened(write(tmp_path / "a.tif", RGB.astype(np.uint16), photometric="rgb", rowsperstrip=16))


def test_planes_and_further_channels_are_refused(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    with pytest.raises(NotASlideError, match="a plane for each channel"):
        opened(write(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", rowsperstrip=16))
    five = np.repeat(RGB[..., :1], 5, axis=2)
    with pytest.raises(NotASlideError, match="5 channels, MINISBLACK; expected RGB, RGBA, grey or palette"):
        opened(write(tmp_path / "b.tif", five, photometric="minisblack", planarconfig="contig", rowsperstrip=16))


def test_an_image_to_be_turned_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", photometric="rgb", rowsperstrip=16, extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(NotASlideError, match=r"orientation 6\)\. Convert it upright"):
        opened(path)


def test_a_strip_too_large_to_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 200 * 20)
    opened(write(tmp_path / "a.tif", photometric="rgb", rowsperstrip=16)).close()
    with pytest.raises(NotASlideError, match=r"strips have of 200 × 150 pixels|200 × 150 pixels; it would be decoded"):
        opened(write(tmp_path / "b.tif", photometric="rgb", rowsperstrip=150))


def test_only_a_bounded_number_of_strips_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strip = 16 * 200 * 3
    monkeypatch.setattr(image_module, "CACHE_BYTES", 3 * strip)
    with opened(write(tmp_path / "a.tif", photometric="rgb", rowsperstrip=16, compression="zlib")) as slide:
        np.testing.assert_array_equal(whole(slide), RGB)
        kept = slide._pixels._kept
        assert sum(segment.nbytes for segment in kept.values()) <= 3 * strip
        assert slide._pixels._kept_bytes == sum(segment.nbytes for segment in kept.values())


def test_a_strip_is_decoded_once_while_neighbours_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = TiffPixels.decode
    monkeypatch.setattr(TiffPixels, "decode", lambda *args: (decoded.append(1), decode(*args))[1])
    with opened(write(tmp_path / "a.tif", photometric="rgb", rowsperstrip=50)) as slide:
        for x in range(0, 200, 50):
            slide.read_region(x, 0, 0, 50, 50)
    assert len(decoded) == 1


def test_a_damaged_strip_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", photometric="rgb", rowsperstrip=50, compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages.first.dataoffsets[1], file.pages.first.databytecounts[1]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xa5" * count)
    with opened(path) as slide:
        for _ in range(2):
            with pytest.raises(UnreadableSlideError, match=r"a\.tif: tile or strip 1 of page 0 cannot be read"):
                slide.read_region(0, 60, 0, 10, 10)
        np.testing.assert_array_equal(np.asarray(slide.read_region(0, 100, 0, 200, 50)), RGB[100:])


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", photometric="rgb", rowsperstrip=150)
    path.write_bytes(path.read_bytes()[:-100])
    with opened(path) as slide, pytest.raises(UnreadableSlideError, match="the file ends 100 bytes short"):
        whole(slide)


def test_a_file_that_only_begins_like_a_tiff_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\x00" + b"\xff" * 40)
    with pytest.raises((NotASlideError, UnreadableSlideError), match=r"a\.tif: "):
        opened(tmp_path / "a.tif")


def test_its_resolution_tags_count_only_where_a_scanner_could_have_them(tmp_path: Path) -> None:
    def mpp(path: Path, fill: float | None = None) -> tuple[float, str]:
        with opened(path) as slide:
            found = resolve_mpp(slide.properties, MppOptions(fill=fill), name=path.name)
        return found.mpp, found.source

    options = {"photometric": "rgb", "rowsperstrip": 16}
    scanned = write(tmp_path / "a.tif", resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **options)
    assert mpp(scanned, fill=0.25) == (0.5, "tiff-resolution")
    printed = write(tmp_path / "b.tif", resolution=(300, 300), resolutionunit="INCH", **options)
    assert mpp(printed, fill=0.25) == (0.25, "option")
    with pytest.raises(MppError, match=r"b\.tif: it does not say its µm per pixel.*--mpp UM"):
        mpp(printed)


def test_openslide_is_preferred_where_it_knows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", photometric="rgb", tile=(64, 64))
    with open_slide(SlideSource("a", path)) as slide:
        assert slide.reader.startswith("openslide ")
