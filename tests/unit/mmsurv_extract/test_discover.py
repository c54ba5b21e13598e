from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mmsurv.errors import ConfigError
from mmsurv_extract.discover import Discovery, find_slides


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_is_searched_to_the_bottom_and_sorted_by_id(tmp_path: Path) -> None:
    for name in ("b.svs", "x/y/a.TIFF", "x/notes.txt", "x/._a.svs"):
        touch(tmp_path / name)
    assert [source.slide_id for source in find_slides([tmp_path]).sources] == ["a", "b"]


def test_a_dicom_folder_is_one_slide_named_after_the_folder(tmp_path: Path) -> None:
    files = [touch(tmp_path / "case-7" / f"{i}.dcm") for i in range(3)]
    for argument in (tmp_path, tmp_path / "case-7", *files):
        (source,) = find_slides([argument]).sources
        assert (source.slide_id, source.path) == ("case-7", tmp_path / "case-7")


def test_a_dicom_file_in_the_working_folder_is_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "case-7" / "0.dcm")
    monkeypatch.chdir(tmp_path / "case-7")
    for argument in (Path(), Path("0.dcm")):
        assert find_slides([argument]).sources[0].slide_id == "case-7"


def test_one_id_in_two_folders_is_a_collision_that_names_both(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "1" / "a.svs"), touch(tmp_path / "2" / "a.svs")
    touch(tmp_path / "1" / "b.svs")
    found = find_slides([tmp_path])
    assert [source.slide_id for source in found.sources] == ["b"]
    assert found.collisions == {"a": [first, second]}


def test_one_file_named_twice_is_one_slide(tmp_path: Path) -> None:
    slide = touch(tmp_path / "a.svs")
    found = find_slides([slide, tmp_path, tmp_path / ".." / tmp_path.name / "a.svs"])
    assert len(found.sources) == 1
    assert not found.collisions


def test_a_file_named_by_hand_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    assert find_slides([touch(tmp_path / "a.scan")]).sources[0].slide_id == "a"


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.svs: there is no such file or folder"):
        find_slides([tmp_path / "gone.svs"])


def test_a_folder_without_slides_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no slides in this folder.*\.svs"):
        find_slides([tmp_path])


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders put in here cannot be listed. Not by mode bits, which do not hold for root."""
    folders: list[Path] = []
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) in folders:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return folders


def test_a_subfolder_that_cannot_be_read_is_named_and_the_others_are_searched(
    tmp_path: Path, locked: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "open" / "a.svs")
    locked.append(touch(tmp_path / "locked" / "b.svs").parent)
    assert [source.slide_id for source in find_slides([tmp_path]).sources] == ["a"]
    assert f"{locked[0]}: this folder cannot be read (Permission denied)" in caplog.text


def test_a_named_folder_that_cannot_be_read_is_refused(tmp_path: Path, locked: list[Path]) -> None:
    locked.append(tmp_path)
    with pytest.raises(ConfigError, match=r"this folder cannot be read \(Permission denied\)"):
        find_slides([tmp_path])


def test_images_are_slides_only_when_they_are_named(tmp_path: Path) -> None:
    image = touch(tmp_path / "label.png")
    with pytest.raises(ConfigError, match=r"no slides in this folder.*images are slides when you name them: .*\*\.png"):
        find_slides([tmp_path])
    touch(tmp_path / "a.svs")
    assert [source.slide_id for source in find_slides([tmp_path]).sources] == ["a"]
    assert [source.slide_id for source in find_slides([tmp_path, image]).sources] == ["a", "label"]


def names_and_paths(found: Discovery) -> list[tuple[str, Path]]:
    return [(source.slide_id, source.path) for source in found.sources]


def test_folders_behind_links_are_searched_and_keep_the_name_of_the_link(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "x" / "a.svs")
    touch(tmp_path / "disk" / "series-1" / "0.dcm")
    slides = tmp_path / "slides"
    touch(slides / "b.svs")
    (slides / "more").symlink_to(tmp_path / "disk" / "x")
    (slides / "case-7").symlink_to(tmp_path / "disk" / "series-1")
    (slides / "c.svs").symlink_to(tmp_path / "disk" / "x" / "a.svs")
    assert names_and_paths(find_slides([slides])) == [
        ("a", slides / "more" / "a.svs"),
        ("b", slides / "b.svs"),
        ("c", slides / "c.svs"),
        ("case-7", slides / "case-7"),
    ]


def test_links_in_a_circle_end_and_a_folder_reached_twice_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "series" / "0.dcm")
    touch(tmp_path / "z" / "s.svs")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "z" / "self").symlink_to(tmp_path / "z")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a" / "series")
    (tmp_path / "link").symlink_to(tmp_path / "z")
    expected = [("s", tmp_path / "z" / "s.svs"), ("series", tmp_path / "a" / "series")]
    assert names_and_paths(find_slides([tmp_path])) == expected
    assert not find_slides([tmp_path]).collisions


def test_a_folder_below_two_links_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "below" / "a.svs")
    slides = tmp_path / "slides"
    slides.mkdir()
    (slides / "1").symlink_to(tmp_path / "disk" / "below")
    (slides / "2").symlink_to(tmp_path / "disk")
    assert names_and_paths(find_slides([slides])) == [("a", slides / "1" / "a.svs")]


def test_a_link_that_leads_nowhere_is_named_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "a.svs")
    for name in ("b.svs", "folder", "0.dcm"):
        (tmp_path / name).symlink_to(tmp_path / "unmounted" / name)
    assert names_and_paths(find_slides([tmp_path])) == [("a", tmp_path / "a.svs")]
    for name in ("b.svs", "folder", "0.dcm"):
        assert (
            f"{tmp_path / name}: this link leads to {tmp_path / 'unmounted' / name}, which is not there" in caplog.text
        )
