from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.locations import Locations, read_locations

HEADER = "slide_id TCGA-02-0001\nid x y patch_level patch_size_read patch_size_output\n"


def read(folder: Path, text: str) -> Locations:
    path = folder / "loc.txt"
    path.write_text(text, encoding="utf-8")
    return read_locations(path)


def test_the_layout_of_six_columns_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER + "0 448 896 0 448 448\n1 0 1344 0 448 448\n")
    assert (found.name, found.side, found.tissue) == ("TCGA-02-0001", 448, None)
    np.testing.assert_array_equal(found.ids, [0, 1])
    np.testing.assert_array_equal(found.coords, [[448, 896], [0, 1344]])


@pytest.mark.parametrize("header", [HEADER, "a slide\nid\tx\ty\n", "\ufeffslide_id TCGA-02-0001\nid,x,y,level,w,h\n"])
def test_a_column_of_tissue_is_read_whatever_the_header_says(tmp_path: Path, header: str) -> None:
    found = read(tmp_path, header + "7 0 0 0 224 224 0.5\n\n9\t224\t0\t0\t224\t224\t1\r\n3 448 0 0 224 224 2.5e-1\n")
    assert found.tissue is not None
    np.testing.assert_array_equal(found.tissue, [0.5, 1, 0.25])
    np.testing.assert_array_equal(found.ids, [7, 9, 3])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("0 0 0 0 448\n", r"found line 3: '0 0 0 0 448'"),
        ("0 0 0 0 448 448\n1 x 0 0 448 448\n2 -4 0 0 448 448\n", r"line 4: '1 x 0.*line 5: '2 -4 0.*Mend the file"),
        ("".join("?\n" for _ in range(9)), r"line 7: '\?' and 4 more"),
        ("0 0 0 0 448 448\n1 448 0 1 448 448\n", r"line 4: a patch of level 1; how large it is at level 0"),
        ("0 0 0 0 448 448\n1 448 0 0 448 440\n", r"line 4: a patch of 448 × 440; expected squares of one size, 448"),
        ("0 0 0 0 0 0\n", r"line 3: a patch of 0 × 0"),
        ("0 0 0 0 448 448\n0 448 0 0 448 448\n", r"line 4: the id of an earlier patch"),
        ("0 0 0 0 448 448\n1 0 0 0 448 448\n", r"line 4: the place of an earlier patch"),
        ("0 0 0 0 448 448 1\n1 448 0 0 448 448\n", r"line 4: tissue is absent; expected a share"),
        ("0 0 0 0 448 448 85\n", r"line 3: tissue is 85; expected a share, 0 to 1"),
        ("", r"it names no patch"),
    ],
)
def test_damaged_lines_are_named_by_their_number(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UnreadableSlideError, match=rf"(?s)loc\.txt.*{message}"):
        read(tmp_path, HEADER + body)


def test_a_file_without_its_header_loses_no_patch_in_silence(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlideError, match="a patch stands where two header lines are expected"):
        read(tmp_path, "0 0 0 0 448 448\n1 448 0 0 448 448\n2 896 0 0 448 448\n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlideError, match=r"loc\.txt: it cannot be read"):
        read_locations(tmp_path / "loc.txt")
