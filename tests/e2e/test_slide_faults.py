"""What slides, disks and names do to a job that is left alone. No torch: the encoder can be seen through."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsurv.demo.tissue import write_slide
from mmsurv.errors import StoreError
from mmsurv.store import open_store, rank_order
from mmsurv.store.ids import is_slide_id
from mmsurv.store.leases import Leases
from mmsurv_extract import share
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.testing import RECIPE, MeanColour, asking_for, see_through_job, see_through_store


def tissue(
    path: Path, *, height: int = 256, width: int = 256, seed: int = 0, levels: int = 1, mpp: float = 0.5
) -> Path:
    """A slide full of tissue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    blocks = rng.integers(-30, 30, (height // 16 + 1, width // 16 + 1, 3))
    uneven = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    write_slide(path, np.clip(np.array([190, 110, 160]) + uneven, 0, 255).astype(np.uint8), mpp=mpp, levels=levels)
    return path


class AtFirst(MeanColour):
    """Does something at its first batch."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self.then = then

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        if self.n_batches == 0:
            self.then()
        return super().__call__(tiles)


def test_a_slide_deleted_during_the_job_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    slides = [tissue(tmp_path / "slides" / f"{name}.tiff", seed=i) for i, name in enumerate("abcd")]
    store = see_through_store(tmp_path / "store")
    summary = see_through_job([tmp_path / "slides"], store, encoder=AtFirst(slides[2].unlink))
    assert summary.done == ["a", "b", "d"]
    (failed,) = summary.failed
    assert failed.slide_id == "c"
    assert str(slides[2]) in failed.message
    assert store.slide_ids() == ["a", "b", "d"]
    assert [failure.slide_id for failure in store.failures()] == ["c"]
    tissue(slides[2])
    assert see_through_job([tmp_path / "slides"], store).done == ["c"]


@pytest.mark.parametrize(("broken_rows", "fails"), [((2, 3), False), ((1, 2, 3), True)], ids=["half", "more than half"])
def test_a_slide_part_of_which_is_unreadable(
    tmp_path: Path, break_tiles: Callable[[Path, list[int]], None], broken_rows: tuple[int, ...], fails: bool
) -> None:
    path = tissue(tmp_path / "a.tiff", height=1024, width=512, levels=3)
    tissue(tmp_path / "b.tiff")
    break_tiles(path, [2 * row + column for row in broken_rows for column in (0, 1)])
    store = see_through_store(tmp_path / "store")
    summary = see_through_job([tmp_path], store)
    if fails:
        assert summary.done == ["b"]
        assert summary.failed[0].error == "UnreadableSlideError"
        assert "384 of the 512 tiles drawn cannot be read, more than half" in summary.failed[0].message
        return
    assert summary.done == ["a", "b"]
    record = store.read("a")
    assert record.n_tiles == record.attributes["n_unreadable"] == 256
    assert (record.coords[:, 1] < 512).all()
    assert record.rejected is not None
    assert (record.rejected[:, 1] >= 512).all()


def test_a_slide_cut_short_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    path = tissue(tmp_path / "slides" / "a.tiff", height=1024, width=512, levels=3)
    tissue(tmp_path / "slides" / "b.tiff")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    store = see_through_store(tmp_path / "store")
    summary = see_through_job([tmp_path / "slides"], store)
    assert summary.done == ["b"]
    assert summary.failed[0].slide_id == "a"
    assert str(path) in summary.failed[0].message


def test_every_damaged_file_at_hand_is_named_and_a_good_slide_among_them_done(
    shared_data: Path, tmp_path: Path
) -> None:
    damaged = sorted((shared_data / "slides" / "damaged").iterdir())
    good = tissue(tmp_path / "good.tiff")
    store = see_through_store(tmp_path / "store")
    summary = see_through_job([*damaged, good], store, mpp=MppOptions(fill=0.5))
    assert summary.done == ["good"]
    found = {failed.slide_id: failed for failed in summary.failed}
    assert set(found) == {path.stem for path in damaged}
    for path in damaged:
        assert found[path.stem].error in ("NotASlideError", "UnreadableSlideError")
        assert path.name in found[path.stem].message
    assert store.slide_ids() == ["good"]
    assert store.leftovers() == []


@pytest.mark.parametrize("backend", ["hdf5", "zarr"])
def test_paths_and_ids_with_spaces_and_letters_of_any_alphabet(tmp_path: Path, backend: str) -> None:
    folder = tmp_path / "données du 3 März" / "слайды 玻片"
    for i, name in enumerate(("TCGA 02-0001 (1)", "Größe é", "玻片'1", '100% "a"')):
        tissue(folder / f"{name}.tiff", seed=i)
    store = see_through_store(folder / "ein Speicher ß", backend=backend)
    summary = see_through_job([folder], store)
    assert summary.failed == []
    assert len(summary.done) == 4
    again = open_store(store.path)
    assert sorted(again.slide_ids()) == sorted(summary.done)
    assert [again.verify(slide_id) for slide_id in again.slide_ids()] == [[]] * 4
    assert see_through_job([folder], again, asking_for(0)).skipped == summary.done


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system at ``tmp_path``/disk; called with "ro" or "rw" it is mounted so."""
    point = tmp_path / "disk"
    point.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[str]:
        arguments = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    try:
        done = mount("size=32m")
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    def remount(how: str) -> None:
        again = mount(f"remount,{how}")
        assert again.returncode == 0, again.stderr

    yield remount
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_a_read_only_store_that_is_done_is_only_read_and_one_that_is_not_stops_the_job(
    tmp_path: Path, disk: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    tissue(tmp_path / "slides" / "a.tiff")
    store = see_through_store(tmp_path / "disk" / "store")
    see_through_job([tmp_path / "slides"], store)
    disk("ro")
    assert see_through_job([tmp_path / "slides"], store).skipped == ["a"]
    assert caplog.text == ""
    tissue(tmp_path / "slides" / "b.tiff", seed=1)
    with pytest.raises(StoreError, match=r"cannot be written: Read-only file system\. Slide b was dropped"):
        see_through_job([tmp_path / "slides"], store)
    assert caplog.text.count("leases cannot be kept") == 1
    assert store.slide_ids() == ["a"]
    disk("rw")
    assert see_through_job([tmp_path / "slides"], store).done == ["b"]


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["years back", "years ahead"])
def test_a_clock_that_jumps_takes_no_slide_from_a_living_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    monkeypatch.setattr(share, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(share, "LONGEST_WAIT_S", 0.02)
    for i, name in enumerate("abc"):
        tissue(tmp_path / "slides" / f"{name}.tiff", seed=i)
    store = see_through_store(tmp_path / "store")
    wall, calls = time.time, []

    def jumping() -> float:
        calls.append(None)
        return wall() + jump * len(calls)

    with Leases(store.path / "leases") as other:
        assert other.take("a")
        monkeypatch.setattr(time, "time", jumping)
        order: list[str] = []

        def let_go() -> None:
            order.extend(store.slide_ids())
            other.release("a")

        timer = threading.Timer(0.6, let_go)
        timer.start()
        summary = see_through_job([tmp_path / "slides"], store)
        timer.join()
    assert order == ["b", "c"], "the slide was left to its holder until it let go"
    assert summary.done == ["b", "c", "a"]


IDS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"), min_size=1, max_size=20
).filter(lambda name: is_slide_id(name) and not name.startswith("._"))


@given(
    slide_id=IDS,
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    levels=st.integers(1, 4),
    mpp=st.sampled_from([0.25, 0.2525, 0.499, 0.5, 0.74]),
    count=st.integers(0, 12),
    more=st.integers(0, 40),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_size_and_pyramid_becomes_a_record_or_a_failure_that_says_why(
    slide_id: str, height: int, width: int, levels: int, mpp: float, count: int, more: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = tissue(folder / f"{slide_id}.tiff", height=height, width=width, levels=levels, mpp=mpp)
        store = see_through_store(folder / "store")
        side = 32 * 0.5 / mpp
        summary = see_through_job([path], store, asking_for(count))
        if not summary.done:
            (failed,) = summary.failed
            assert failed.error == "NoTissueError"
            assert path.name in failed.message
            assert [failure.slide_id for failure in store.failures()] == [slide_id]
            return
        record = store.read(slide_id)
        assert store.verify(slide_id) == []
        assert 1 <= record.n_tiles <= (count or 10**6)
        assert (record.coords >= 0).all()
        assert (record.coords + round(side) <= [width + 1, height + 1]).all()
        np.testing.assert_array_equal(rank_order(slide_id, record.coords, RECIPE.tiles.seed), np.arange(record.n_tiles))
        see_through_job([path], store, asking_for(more))
        longer = store.read(slide_id)
        np.testing.assert_array_equal(longer.features[: record.n_tiles], record.features)
        assert longer.n_tiles >= record.n_tiles


def test_a_store_of_bfloat16_is_extended_as_one_of_float16(tmp_path: Path) -> None:
    tissue(tmp_path / "a.tiff")
    recipes = [replace(asking_for(count), dtype="bfloat16") for count in (5, 20)]
    extended, at_once = (see_through_store(tmp_path / name, recipes[0]) for name in ("extended", "at-once"))
    for recipe in recipes:
        see_through_job([tmp_path / "a.tiff"], extended, recipe)
    see_through_job([tmp_path / "a.tiff"], at_once, recipes[1])
    assert extended.read("a").attributes == at_once.read("a").attributes
    assert extended.verify("a") == []
