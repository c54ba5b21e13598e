"""A larger number of tiles on a store that has a smaller one."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsurv.store import FeatureStore, SlideRecord
from mmsurv.store.record import UNREADABLE
from mmsurv_extract import record as records
from mmsurv_extract.job import JobSummary
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.testing import MeanColour, asking_for, see_through_job, see_through_store

MakeSlide = Callable[..., Path]
BreakTiles = Callable[[Path, list[int]], None]


def run(folder: Path, count: int, *, to: str = "store", **options: Any) -> tuple[JobSummary, FeatureStore]:
    """The job on ``folder``/slides asking for ``count`` tiles of each."""
    store = see_through_store(folder / to)
    return see_through_job([folder / "slides"], store, asking_for(count), **options), store


def assert_same_tiles(one: SlideRecord, other: SlideRecord) -> None:
    for name in ("features", "coords", "tissue", "rejected", "rejected_reason", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.thumbnail == other.thumbnail


def test_a_smaller_sample_is_a_prefix_of_a_larger_one(tmp_path: Path, make_slide: MakeSlide) -> None:
    make_slide("slides/a.tiff")
    forty, ten = (run(tmp_path, count, to=str(count))[1].read("a") for count in (40, 10))
    np.testing.assert_array_equal(ten.coords, forty.coords[:10])
    np.testing.assert_array_equal(ten.features, forty.features[:10])


@pytest.mark.parametrize("counts", [(10, 40), (1, 7, 80), (10, 0), (159, 160)])
def test_an_extended_record_is_the_one_made_at_once(
    tmp_path: Path, make_slide: MakeSlide, counts: tuple[int, ...]
) -> None:
    make_slide("slides/a.tiff")
    assert run(tmp_path, counts[0])[0].done == ["a"]
    for count in counts[1:]:
        summary, store = run(tmp_path, count)
        assert (summary.extended, summary.done, summary.skipped, summary.failed) == (["a"], [], [], [])
        assert store.verify("a") == []
    run(tmp_path, counts[-1], to="at-once")
    extended, at_once = (see_through_store(tmp_path / name).read("a") for name in ("store", "at-once"))
    assert_same_tiles(extended, at_once)
    assert extended.attributes == at_once.attributes


def test_only_the_missing_tiles_are_encoded(tmp_path: Path, make_slide: MakeSlide) -> None:
    make_slide("slides/a.tiff")
    run(tmp_path, 10)
    seen: list[int] = []

    class Counts(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            seen.append(len(tiles))
            return super().__call__(tiles)

    summary, _ = run(tmp_path, 25, encoder=Counts())
    assert sum(seen) == summary.n_tiles == 15


@pytest.mark.parametrize("count", [5, 20])
def test_a_smaller_number_needs_nothing(tmp_path: Path, make_slide: MakeSlide, count: int) -> None:
    make_slide("slides/a.tiff")
    _, store = run(tmp_path, 20)
    before = store.record_path("a").read_bytes()
    assert run(tmp_path, count)[0].skipped == ["a"]
    assert store.record_path("a").read_bytes() == before
    assert not list((tmp_path / "store" / "leases").iterdir())


def test_a_record_of_all_tiles_has_nothing_to_extend(tmp_path: Path, make_slide: MakeSlide) -> None:
    make_slide("slides/a.tiff")
    run(tmp_path, 0)
    for count in (0, 5000):
        assert run(tmp_path, count)[0].skipped == ["a"]


def test_unreadable_tiles_are_made_good_and_not_read_again(
    tmp_path: Path, make_slide: MakeSlide, break_tiles: BreakTiles
) -> None:
    path = make_slide("slides/a.tiff", height=1024, width=512, tissue=(0, 0, 1024, 512))
    break_tiles(path, [2])
    _, store = run(tmp_path, 100)
    first = store.read("a")
    assert first.n_tiles == 100
    assert first.rejected_reason is not None
    assert first.attributes["n_unreadable"] == len(first.rejected_reason) > 0
    assert set(first.rejected_reason) == {UNREADABLE}
    assert run(tmp_path, 200)[0].extended == ["a"]
    run(tmp_path, 200, to="at-once")
    assert_same_tiles(store.read("a"), see_through_store(tmp_path / "at-once").read("a"))
    assert run(tmp_path, 0)[0].extended == ["a"]
    assert store.read("a").n_drawn == store.attributes("a")["n_tissue_tiles"]
    assert run(tmp_path, 0)[0].skipped == ["a"]


def test_another_file_of_the_name_extends_nothing(tmp_path: Path, make_slide: MakeSlide) -> None:
    make_slide("slides/a.tiff")
    _, store = run(tmp_path, 10)
    before = store.record_path("a").read_bytes()
    make_slide("slides/a.tiff", seed=1)
    (failed,) = run(tmp_path, 20)[0].failed
    assert "made from another file" in failed.message
    assert store.record_path("a").read_bytes() == before


def test_another_resolution_extends_nothing(tmp_path: Path, make_slide: MakeSlide) -> None:
    make_slide("slides/a.tiff", mpp=None)
    run(tmp_path, 10, mpp=MppOptions(fill=0.5))
    (failed,) = run(tmp_path, 20, mpp=MppOptions(fill=0.25))[0].failed
    assert "was made at 0.5 µm per pixel" in failed.message


@pytest.mark.parametrize(
    ("what", "message"),
    [("n_tissue_tiles", "it was made with n_tissue_tiles 160, now it is 159"), ("order", "drawn tile 0 is at")],
)
def test_a_record_whose_tiles_are_not_the_slide_s_first_is_not_extended(
    tmp_path: Path, make_slide: MakeSlide, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    from mmsurv_extract import run as runs

    make_slide("slides/a.tiff")
    _, store = run(tmp_path, 10)
    before = store.record_path("a").read_bytes()
    prepare = runs.prepare

    def otherwise(*arguments: Any) -> Any:
        prepared = prepare(*arguments)
        if what == "order":
            return dataclasses.replace(prepared, coords=prepared.coords[::-1])
        return dataclasses.replace(prepared, coords=prepared.coords[:-1], n_tissue_tiles=159)

    monkeypatch.setattr(runs, "prepare", otherwise)
    (failed,) = run(tmp_path, 20)[0].failed
    assert "cannot be extended" in failed.message
    assert message in failed.message
    assert "To encode it anew, delete" in failed.message
    assert store.record_path("a").read_bytes() == before


def test_a_damaged_record_is_encoded_from_its_first_tile(
    tmp_path: Path, make_slide: MakeSlide, caplog: pytest.LogCaptureFixture
) -> None:
    make_slide("slides/a.tiff")
    _, store = run(tmp_path, 10)
    path = store.record_path("a")
    extent = store.extent("a")
    assert extent is not None
    whole = bytearray(path.read_bytes())
    whole[extent.offset] ^= 1
    path.write_bytes(whole)
    caplog.set_level(logging.WARNING, "mmsurv")
    summary, store = run(tmp_path, 20)
    assert (summary.done, summary.failed) == (["a"], [])
    assert "not the bytes that were written" in caplog.text
    assert store.verify("a") == []
    assert store.n_tiles("a") == 20


def test_an_extended_record_says_which_rows_were_made_with_what(
    tmp_path: Path, make_slide: MakeSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slide("slides/a.tiff")
    run(tmp_path, 10)
    monkeypatch.setattr(records, "_versions", lambda: {"torch": "99"})
    _, store = run(tmp_path, 20)
    entries = json.loads(str(store.attributes("a")["made_with"]))
    assert [entry["from_row"] for entry in entries] == [0, 10]
    assert entries[1]["versions"] == {"torch": "99"}


def test_stopping_in_an_extension_keeps_the_old_record(tmp_path: Path, make_slide: MakeSlide) -> None:
    import threading

    make_slide("slides/a.tiff")
    _, store = run(tmp_path, 10)
    before = store.record_path("a").read_bytes()
    stop = threading.Event()

    class Stops(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            stop.set()
            return super().__call__(tiles)

    assert run(tmp_path, 60, encoder=Stops(), stop=stop, batch_size=8)[0].stopped
    assert store.record_path("a").read_bytes() == before
    assert store.leftovers() == []
