from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsurv.errors import NotASlideError, UnreadableSlideError
from mmsurv_extract.discover import SlideSource, find_slides
from mmsurv_extract.slide import Slide, open_slide


def opened(path: Path) -> Slide:
    return open_slide(SlideSource(path.stem, path))


def test_size_levels_and_resolution_are_the_slides(make_slide: Callable[..., Path]) -> None:
    with opened(make_slide(height=640, width=512, mpp=0.25)) as slide:
        assert (slide.width, slide.height, slide.level_downsamples) == (512, 640, (1.0, 2.0))
        assert slide.level_dimensions == ((512, 640), (256, 320))
        assert slide.reader.startswith("openslide ")
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-5)


def test_outside_the_slide_is_white(make_slide: Callable[..., Path]) -> None:
    with opened(make_slide(height=640, width=512)) as slide:
        region = np.asarray(slide.read_region(500, 0, 0, 24, 16))
    assert region.shape == (16, 24, 3)
    assert (region[:, 12:] == 255).all()
    assert (region[:, :12] < 250).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found an empty file"),
        (b"<!DOCTYPE HTML><html>", "found a web page, probably a failed download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"found a Git LFS pointer.*git lfs pull"),
        (b"hello there\n", "found a text file that begins 'hello there'"),
        (b"\x00\x01\x02\x03", "found a file that begins with the bytes 00 01 02 03"),
    ],
)
def test_a_file_that_is_no_slide_is_named_for_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    with pytest.raises(NotASlideError, match=rf"a\.svs: expected a whole-slide image, {found}"):
        opened(path)


def test_a_slide_is_readable_after_a_region_that_is_not(
    make_slide: Callable[..., Path], break_tiles: Callable[[Path, list[int]], None]
) -> None:
    path = make_slide(height=512, width=512)
    with opened(path) as slide:
        good = np.asarray(slide.read_region(0, 256, 0, 256, 256))
    break_tiles(path, [0])
    with opened(path) as slide:
        with pytest.raises(UnreadableSlideError, match=r"slide\.tiff: region 64 × 64 at level-0 \(10, 20\), level 0"):
            slide.read_region(10, 20, 0, 64, 64)
        np.testing.assert_array_equal(np.asarray(slide.read_region(0, 256, 0, 256, 256)), good)


def test_a_slide_that_disappears_while_it_is_reopened_says_so_and_closes(
    make_slide: Callable[..., Path], break_tiles: Callable[[Path, list[int]], None]
) -> None:
    path = make_slide(height=512, width=512)
    break_tiles(path, [0])
    with opened(path) as slide:
        path.unlink()
        with pytest.raises(NotASlideError, match="a file that cannot be read"):
            slide.read_region(0, 0, 0, 64, 64)


def test_the_digest_follows_the_pixels(make_slide: Callable[..., Path]) -> None:
    digests = []
    for name, seed in (("a.tiff", 0), ("copy.tiff", 0), ("b.tiff", 1)):
        with opened(make_slide(name, seed=seed)) as slide:
            digests.append(slide.digest())
    assert digests[0] == digests[1] != digests[2]
    assert digests[0][1] == "openslide-quickhash1"


def test_a_dicom_series_opens_from_its_folder(shared_data: Path) -> None:
    folder = shared_data / "slides" / "CMU-1-Small-Region-dicom"
    (source,) = find_slides([next(folder.glob("*.dcm"))]).sources
    with open_slide(source) as slide:
        assert (slide.source.slide_id, slide.width, slide.height) == ("CMU-1-Small-Region-dicom", 2220, 2967)


def test_a_folder_of_two_dicom_series_is_refused(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "slides" / "CMU-1-Small-Region-dicom").glob("*.dcm"))
    content = files[0].read_bytes()
    at = content.index(b"\x20\x00\x0e\x00UI") + 8
    shutil.copy(files[1], tmp_path / "1.dcm")
    (tmp_path / "2.dcm").write_bytes(content[:at] + b"9" + content[at + 1 :])
    with pytest.raises(NotASlideError, match="holds 2 DICOM series"):
        open_slide(SlideSource("two", tmp_path))


def test_a_folder_of_other_dicom_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"\x00" * 200)
    with pytest.raises(NotASlideError, match=r"none of its 1 \.dcm files belongs to a whole-slide"):
        open_slide(SlideSource("ct", tmp_path))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("html-page.svs", NotASlideError),
        ("lfs-pointer.ndpi", NotASlideError),
        ("unopenable.tiff", UnreadableSlideError),
    ],
)
def test_damaged_real_files_fail_when_they_are_opened(shared_data: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        opened(shared_data / "slides" / "damaged" / name)


def test_a_real_slide_that_opens_and_cannot_be_read_says_so_every_time(shared_data: Path) -> None:
    with opened(shared_data / "slides" / "damaged" / "unreadable.svs") as slide:
        for _ in range(2):
            with pytest.raises(UnreadableSlideError, match="Bogus marker length"):
                slide.read_region(0, 0, 0, 16, 16)
