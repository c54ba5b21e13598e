from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsurv.errors import NotASlideError, UnreadableSlideError
from mmsurv_extract import image as module
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.image import ImageSlide, WholePixels
from mmsurv_extract.slide import Slide, open_slide


def opened(path: Path) -> Slide:
    return open_slide(SlideSource(path.stem, path))


def noise(height: int = 90, width: int = 120, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def whole(slide: Slide) -> np.ndarray:
    return np.asarray(slide.read_region(0, 0, 0, slide.width, slide.height))


def save(path: Path, rgb: np.ndarray | Image.Image, **options: Any) -> Path:
    (rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)).save(path, **options)
    return path


def test_a_png_is_read_pixel_for_pixel_whatever_it_is_called(tmp_path: Path) -> None:
    rgb = noise()
    with opened(save(tmp_path / "a.scan", rgb, format="PNG")) as slide:
        assert isinstance(slide, ImageSlide)
        assert (slide.width, slide.height, slide.level_downsamples) == (120, 90, (1.0,))
        assert slide.reader.startswith("pillow ")
        np.testing.assert_array_equal(np.asarray(slide.read_region(30, 20, 0, 50, 40)), rgb[20:60, 30:80])


def test_outside_an_image_is_white(tmp_path: Path) -> None:
    with opened(save(tmp_path / "a.png", np.zeros((20, 20, 3), np.uint8))) as slide:
        region = np.asarray(slide.read_region(-5, 10, 0, 30, 20))
    assert (region[:10, 5:25] == 0).all()
    assert (region[10:] == 255).all()
    assert (region[:, :5] == 255).all()


def test_a_jpeg_is_read_as_any_viewer_shows_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noise(), quality=90)
    with opened(path) as slide:
        np.testing.assert_array_equal(whole(slide), np.asarray(Image.open(path)))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(noise()).convert(mode)
    with opened(save(tmp_path / "a.png", picture)) as slide:
        np.testing.assert_array_equal(whole(slide), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(noise(channels=4)).convert(mode)
    alpha = np.full((90, 120), 255, np.uint8)
    alpha[:, :60] = 0
    picture.putalpha(Image.fromarray(alpha))
    with opened(save(tmp_path / "a.png", picture)) as slide:
        rgb = whole(slide)
    assert (rgb[:, :60] == 255).all()
    np.testing.assert_array_equal(rgb[:, 60:], np.asarray(picture.convert("RGB"))[:, 60:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", noise(), exif=exif)
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    with opened(path) as slide:
        assert (slide.height, slide.width) == expected.shape[:2]
        np.testing.assert_array_equal(whole(slide), expected)


def test_sixteen_bits_are_refused_with_the_remedy(tmp_path: Path) -> None:
    grey = (np.arange(400, dtype=np.uint16) * 100).reshape(20, 20)
    with pytest.raises(NotASlideError, match=r"a\.png: a PNG image of 16 bits.*convert it to 8 bits"):
        opened(save(tmp_path / "a.png", grey))


def test_sixteen_bit_colour_is_refused_too_though_pillow_would_cut_it_to_eight(tmp_path: Path) -> None:
    import imagecodecs

    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(noise().astype(np.uint16) * 257))
    with pytest.raises(NotASlideError, match="16 bits per channel"):
        opened(path)


def test_colours_for_print_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotASlideError, match=r"colours are CMYK; expected RGB or grey\. Convert it to RGB"):
        opened(save(tmp_path / "a.jpg", Image.fromarray(noise()).convert("CMYK")))


def test_an_image_too_large_to_decode_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", noise())
    monkeypatch.setattr(module, "MAX_PIXELS", 120 * 90 - 1)
    monkeypatch.setattr(WholePixels, "decode", None)
    with pytest.raises(NotASlideError, match=r"120 × 90 pixels.*at most 10799 pixels are\. Convert it to a tiled TIFF"):
        opened(path)


def test_a_png_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    with pytest.raises(NotASlideError, match=r"bomb\.png: a PNG image of over .* pixels; it would be decoded whole"):
        opened(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_image_is_unreadable_and_never_half_white(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, noise(300, 300))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableSlideError, match=rf"{name}: a \w+ image that cannot be decoded"):
        opened(path)


def test_a_file_that_only_begins_like_an_image_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"\xff\xd8\xff\xe0 jpeg")
    with pytest.raises(UnreadableSlideError, match=r"a\.svs: a JPEG image that cannot be decoded"):
        opened(tmp_path / "a.svs")


def test_handles_of_one_file_share_what_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", noise())
    decoded: list[int] = []
    decode = WholePixels.decode
    monkeypatch.setattr(WholePixels, "decode", lambda *args: (decoded.append(1), decode(*args))[1])
    with opened(path) as first, opened(path) as second:
        whole(first)
        whole(second)
    assert len(decoded) == 1


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise())
    with opened(path) as before:
        whole(before)
        save(path, np.zeros((50, 60, 3), np.uint8))
        with opened(path) as after:
            assert (after.width, after.height) == (60, 50)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise())
    with opened(path) as slide:
        assert slide.digest() == (hashlib.sha256(path.read_bytes()).hexdigest(), "sha256")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("grey", [False, True])
def test_a_jpeg_of_which_a_part_is_missing_is_unreadable_though_it_ends_properly(
    tmp_path: Path, options: dict[str, Any], grey: bool
) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(noise()).convert("L" if grey else "RGB"), **options)
    good = path.read_bytes()
    with opened(path) as slide:
        assert slide.width == 120
    for damaged in (good[: len(good) // 2].rstrip(b"\xff") + b"\xff\xd9", good[:900] + bytes(300) + good[1200:]):
        path.write_bytes(damaged)
        with Image.open(path) as image:
            image.load()  # Pillow takes it
        with pytest.raises(UnreadableSlideError, match=r"a\.jpg: a JPEG image that cannot be decoded \(Corrupt JPEG"):
            opened(path)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_whole_jpeg_is_read_whatever_follows_it(tmp_path: Path, subsampling: str) -> None:
    path = save(tmp_path / "a.jpg", noise(), subsampling=subsampling)
    path.write_bytes(path.read_bytes() + b"a camera's notes")
    with opened(path) as slide, Image.open(path) as image:
        np.testing.assert_array_equal(whole(slide), np.asarray(image))
