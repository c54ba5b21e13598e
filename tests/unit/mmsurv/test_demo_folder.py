"""The demo's folder: whose it may take, and what a second call keeps."""

from pathlib import Path

import pytest

from mmsurv.demo import simulate as demo_simulate
from mmsurv.demo.folder import claim, fill, settings_table
from mmsurv.demo.simulate import SimulationSettings, simulate
from mmsurv.errors import ConfigError, JobFailedError

SETTINGS = SimulationSettings(patients=10, slide_px=700)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty and no demo's \(it has no demo.json\)"):
        claim(tmp_path, settings_table(SETTINGS))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="no demo's"):
        claim(tmp_path / "file", settings_table(SETTINGS))


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert claim(tmp_path, settings_table(SETTINGS)).root == tmp_path


def test_a_demo_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    claim(tmp_path / "demo", settings_table(SETTINGS, weights="random"))
    with pytest.raises(ConfigError, match=r"(?s)other settings:.*patients +10 → 11.*-o"):
        claim(tmp_path / "demo", settings_table(SimulationSettings(patients=11, slide_px=700), weights="random"))


def test_a_damaged_marker_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(ConfigError, match=r"demo\.json cannot be read"):
        claim(tmp_path, settings_table(SETTINGS))


@pytest.mark.parametrize("content", ["[]", "1", '"text"'])
def test_a_marker_that_is_no_demos_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(ConfigError, match=r"demo\.json does not hold a demo's settings.*-o"):
        claim(tmp_path, settings_table(SETTINGS))
    assert (tmp_path / "demo.json").read_text() == content


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"sub cannot be used as the demo's folder \(Not a directory\).*-o"):
        claim(tmp_path / "file" / "sub", settings_table(SETTINGS))


def test_filling_again_paints_only_what_is_missing(tmp_path: Path) -> None:
    folder = claim(tmp_path / "demo", settings_table(SETTINGS))
    steps: list[float] = []
    painted = fill(folder, SETTINGS, simulate(SETTINGS), on_slides=steps.append)
    slides = sorted(folder.slides.iterdir())
    assert painted == len(slides) >= 10
    assert steps == [0, *[1] * painted]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = slides[0].stat().st_mtime_ns
    slides[3].unlink()
    again = claim(tmp_path / "demo", settings_table(SETTINGS))
    steps.clear()
    assert fill(again, SETTINGS, simulate(SETTINGS), on_slides=steps.append) == 1
    assert steps == [painted - 1, 1]
    assert slides[0].stat().st_mtime_ns == kept
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk_stops_the_painting_and_leaves_no_part_of_a_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"II*")
        raise OSError(28, "No space left on device")

    folder = claim(tmp_path / "demo", settings_table(SETTINGS))
    with monkeypatch.context() as patch:
        patch.setattr(demo_simulate, "write_slide", full_disk)
        patch.setattr(demo_simulate, "paint", lambda *_, **__: None)
        with pytest.raises(JobFailedError, match=r"(?s)demo: .*No space left on device.*the same command again"):
            fill(folder, SETTINGS, simulate(SETTINGS))
    assert list(folder.slides.iterdir()) == []


def test_a_table_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = claim(tmp_path / "demo", settings_table(SETTINGS))
    folder.clinical.mkdir()
    with pytest.raises(JobFailedError, match=r"the simulated data cannot be written \(Is a directory\)"):
        fill(folder, SETTINGS, simulate(SETTINGS))
