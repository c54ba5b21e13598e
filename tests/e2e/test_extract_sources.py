"""The same pixels as a slide, as images and as a folder of patches: the command line makes the same of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mmsurv.cli import main
from mmsurv.store import SlideRecord, open_store

PX, SIDE = 64, 128  # 0.25 µm per pixel, tiles at 0.5


def tissue(height: int = 600, width: int = 700) -> np.ndarray:
    """Speckled pink over the left two thirds, glass to the right."""
    rng = np.random.default_rng(0)
    rgb = np.clip(np.array([190, 110, 160]) + rng.integers(-40, 40, (height, width, 3)), 0, 255)
    rgb[:, width * 2 // 3 :] = 244
    return rgb.astype(np.uint8)


def as_slide(path: Path, rgb: np.ndarray) -> Path:
    tifffile.imwrite(path / "a.tif", rgb, photometric="rgb", tile=(256, 256), compression="zlib", metadata=None)
    return path / "a.tif"


def as_strips(path: Path, rgb: np.ndarray) -> Path:
    tifffile.imwrite(path / "a.tif", rgb, photometric="rgb", rowsperstrip=32, compression="lzw", metadata=None)
    return path / "a.tif"


def as_png(path: Path, rgb: np.ndarray) -> Path:
    Image.fromarray(rgb).save(path / "a.png")
    return path / "a.png"


def as_patches(path: Path, rgb: np.ndarray) -> Path:
    folder = path / "a"
    folder.mkdir()
    lines = ["slide_id a", "id x y patch_level patch_size_read patch_size_output"]
    corners = [(x, y) for y in range(0, 600 - SIDE + 1, SIDE) for x in range(0, 700 - SIDE + 1, SIDE)]
    for number, (x, y) in enumerate(corners):
        lines.append(f"{number} {x} {y} 0 {SIDE} {SIDE}")
        Image.fromarray(rgb[y : y + SIDE, x : x + SIDE]).save(folder / f"a_patch_{number}.png")
    (folder / "loc.txt").write_text("\n".join(lines) + "\n")
    return folder


def extract(source: Path, store: Path, *options: str) -> int:
    model = ("--encoder", "resnet18", "--weights", "random", "--tile-px", str(PX), "--tiles", "0", "--device", "cpu")
    with pytest.raises(SystemExit, match=r"\d+") as left:
        main(["extract", str(source), "-o", str(store), *model, *options])
    return int(str(left.value.code))


@pytest.fixture(scope="module")
def from_slide(tmp_path_factory: pytest.TempPathFactory) -> SlideRecord:
    folder = tmp_path_factory.mktemp("slide")
    assert extract(as_slide(folder, tissue()), folder / "store", "--mpp", "0.25") == 0
    return open_store(folder / "store").read("a")


@pytest.mark.parametrize("make", [as_strips, as_png, as_patches])
def test_the_same_pixels_have_the_same_tiles_and_features_whatever_they_lie_in(
    tmp_path: Path, from_slide: SlideRecord, make: Callable[[Path, np.ndarray], Path]
) -> None:
    assert extract(make(tmp_path, tissue()), tmp_path / "store", "--mpp", "0.25") == 0
    record = open_store(tmp_path / "store").read("a")
    np.testing.assert_array_equal(record.coords, from_slide.coords)
    np.testing.assert_allclose(record.tissue, from_slide.tissue, atol=0.03)  # the last, partial tiles are no patches
    np.testing.assert_allclose(record.features, from_slide.features, atol=2e-3)
    assert len(record.coords) == 16
    assert record.attributes["mpp_source"] == "option"
    assert record.attributes["source_digest_kind"] == "sha256"
    reader = str(record.attributes["reader"])
    assert {"as_strips": "tifffile", "as_png": "pillow", "as_patches": "patches"}[make.__name__] in reader


def test_a_missing_patch_is_in_the_record_as_unreadable(tmp_path: Path) -> None:
    folder = as_patches(tmp_path, tissue())
    (folder / "a_patch_7.png").unlink()
    assert extract(folder, tmp_path / "store", "--mpp", "0.25") == 0
    record = open_store(tmp_path / "store").read("a")
    assert record.attributes["n_unreadable"] == 1
    assert record.rejected is not None
    assert record.rejected.tolist() == [[256, 128]]
    assert len(record.coords) == 15


def test_an_image_without_its_resolution_is_refused_with_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(as_png(tmp_path, tissue()), tmp_path / "store") == 1
    assert "does not say its µm per pixel. Give it: --mpp UM" in capsys.readouterr().err
