from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsurv.errors import RecipeMismatchError, StoreError
from mmsurv.store import FeatureStore, SlideRecord, rank_order
from mmsurv.store.record import NEAR_WHITE
from mmsurv_extract import run
from mmsurv_extract.job import JobOptions, JobSummary
from mmsurv_extract.quality import QualitySettings
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.testing import RECIPE, MeanColour, asking_for, see_through_job, see_through_store


class Job:
    """Runs the job on everything in a folder."""

    def __init__(self, folder: Path) -> None:
        self.slides = folder / "slides"
        self.path = folder / "store"

    def store(self, recipe: ExtractRecipe = RECIPE, name: str = "store") -> FeatureStore:
        return see_through_store(self.path.with_name(name), recipe)

    def run(self, *arguments: Path, recipe: ExtractRecipe = RECIPE, to: str = "store", **options: Any) -> JobSummary:
        return see_through_job(arguments or [self.slides], self.store(recipe, to), recipe, **options)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_record_holds_the_features_of_the_tissue_and_says_where_they_are_from(
    job: Job, make_slide: Callable[..., Path]
) -> None:
    make_slide("slides/a.tiff", height=320, width=640, tissue=(0, 0, 320, 320), mpp=0.25, seed=3)
    assert job.run().done == ["a"]
    record = job.store().read("a")
    assert (record.coords < 320).all()
    assert len(record.features) == len(record.coords) == 25
    assert (record.tissue > 0.9).all()
    np.testing.assert_allclose(record.features[:, :3].mean(axis=0), [190, 110, 160], atol=6)
    attributes = record.attributes
    assert (attributes["mpp_source"], attributes["source"]) == ("tiff-resolution", "a.tiff")
    assert attributes["mpp"] == pytest.approx(0.25, rel=1e-5)
    assert (attributes["n_tissue_tiles"], attributes["n_unreadable"]) == (25, 0)
    assert record.coords_attributes["patch_size_level0"] == 64
    assert record.coords_attributes["level0_magnification"] == 40
    assert record.mask is not None
    assert record.mask.shape == (20, 40)
    assert record.thumbnail is not None
    assert record.thumbnail.startswith(b"\xff\xd8")


def test_rows_are_in_rank_order(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    job.run(recipe=asking_for(40))
    coords = job.store().read("a").coords
    np.testing.assert_array_equal(rank_order("a", coords, RECIPE.tiles.seed), np.arange(40))
    # The sample is spread over the tissue, whose height is 640.
    assert coords[:, 1].max() > 500


def test_the_sample_does_not_depend_on_the_other_slides(job: Job, make_slide: Callable[..., Path]) -> None:
    path = make_slide("slides/b.tiff", seed=1)
    recipe = asking_for(20)
    job.run(recipe=recipe)
    alone = job.store().read("b")
    make_slide("slides/a.tiff")
    shutil.rmtree(job.path)
    job.run(recipe=recipe)
    np.testing.assert_array_equal(job.store().read("b").coords, alone.coords)
    assert path.exists()


def test_a_slide_in_the_store_is_not_encoded_again(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    job.run()
    make_slide("slides/b.tiff", seed=1)
    again = MeanColour()
    summary = job.run(encoder=again)
    assert (summary.done, summary.skipped) == (["b"], ["a"])
    assert job.run().skipped == ["a", "b"]


def test_a_truncated_record_is_not_done(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    job.run()
    before = job.store().read("a")
    path = job.store().record_path("a")
    path.write_bytes(path.read_bytes()[:1000])
    assert job.run().done == ["a"]
    np.testing.assert_array_equal(job.store().read("a").features, before.features)


def test_bad_slides_are_noted_and_the_others_done(
    job: Job, make_slide: Callable[..., Path], break_tiles: Callable[[Path, list[int]], None]
) -> None:
    make_slide("slides/good.tiff")
    make_slide("slides/no-mpp.tiff", mpp=None)
    make_slide("slides/absurd.tiff", mpp=0.00499)
    make_slide("slides/blank.tiff", rgb=np.full((400, 400, 3), 244, np.uint8))
    make_slide("slides/small.tiff", height=24, width=100, levels=1)
    make_slide("slides/coarse.tiff", mpp=2.0)
    break_tiles(make_slide("slides/broken.tiff", levels=1), list(range(6)))
    (job.slides / "page.svs").write_text("<html>")
    make_slide("slides/..evil.tiff")
    summary = job.run()
    assert summary.done == ["good"]
    found = {failure.slide_id: failure.error for failure in job.store().failures()}
    assert found == {
        "no-mpp": "MppError",
        "absurd": "MppError",
        "blank": "NoTissueError",
        "small": "NoTissueError",
        "coarse": "MppError",
        "broken": "UnreadableSlideError",
        "page": "NotASlideError",
        "..evil": "BadSlideIdError",
    }
    assert {failed.slide_id for failed in summary.failed} == set(found)
    assert sorted(path.name for path in job.path.parent.iterdir()) == ["slides", "store"]


def test_a_failure_is_forgotten_once_the_slide_is_done(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff", mpp=None)
    assert job.run().failed[0].error == "MppError"
    assert job.run(mpp=MppOptions(fill=0.5)).done == ["a"]
    assert job.store().failures() == []
    assert job.store().attributes("a")["mpp_source"] == "option"


def test_two_slides_of_one_id_are_refused_by_both_names_and_the_others_done(
    job: Job, make_slide: Callable[..., Path]
) -> None:
    first, second = make_slide("slides/1/a.tiff"), make_slide("slides/2/a.tiff", seed=1)
    make_slide("slides/b.tiff")
    summary = job.run()
    assert summary.done == ["b"]
    (failed,) = summary.failed
    assert failed.slide_id == "a"
    assert str(first) in failed.message
    assert str(second) in failed.message


def test_another_file_of_the_same_name_does_not_pass_for_the_one_in_the_store(
    job: Job, make_slide: Callable[..., Path]
) -> None:
    job.run(make_slide("1/a.tiff"))
    (failed,) = job.run(make_slide("2/a.tiff", seed=1)).failed
    assert "made from another file" in failed.message


def test_another_resolution_does_not_pass_for_the_one_in_the_store(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff", mpp=None)
    job.run(mpp=MppOptions(fill=0.5))
    (failed,) = job.run(mpp=MppOptions(fill=0.25)).failed
    assert "was made at 0.5 µm per pixel (option), now it is 0.25 (option)" in failed.message


def test_a_store_of_another_recipe_is_refused_field_by_field(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    job.run()
    with pytest.raises(RecipeMismatchError, match=r"tiles\.px +32 → 64"):
        job.run(recipe=replace(RECIPE, tiles=replace(RECIPE.tiles, px=64)))


def test_unreadable_tiles_are_counted_in_the_record(
    job: Job, make_slide: Callable[..., Path], break_tiles: Callable[[Path, list[int]], None]
) -> None:
    path = make_slide("slides/a.tiff", height=1024, width=512, tissue=(0, 0, 1024, 512))
    job.run()
    whole = job.store().read("a")
    shutil.rmtree(job.path)
    break_tiles(path, [2])
    job.run()
    record = job.store().read("a")
    assert record.attributes["n_unreadable"] == 64
    kept = {tuple(c) for c in record.coords.tolist()}
    lost = [c for c in map(tuple, whole.coords.tolist()) if c not in kept]
    assert len(lost) == 64
    assert all(x < 256 <= y < 512 for x, y in lost)
    still = [i for i, c in enumerate(whole.coords.tolist()) if tuple(c) in kept]
    np.testing.assert_array_equal(record.coords, whole.coords[still])
    np.testing.assert_array_equal(record.features, whole.features[still])


def test_tiles_that_are_not_fit_are_made_good_by_others_and_said_in_the_record(
    job: Job, make_slide: Callable[..., Path]
) -> None:
    light = np.random.default_rng(0).random((10, 16)) < 0.4
    uneven = np.random.default_rng(1).integers(-8, 8, (20, 32, 3)).repeat(16, axis=0).repeat(16, axis=1)
    colours = np.where(light[..., None], [215, 150, 190], [190, 90, 160]).repeat(32, axis=0).repeat(32, axis=1)
    path = make_slide("slides/a.tiff", rgb=np.clip(colours + uneven, 0, 255).astype(np.uint8))
    recipe = replace(asking_for(30), quality=QualitySettings(white_level=120))
    summary = job.run(recipe=recipe)
    assert summary.n_tiles == 30
    record = job.store(recipe).read("a")
    assert record.n_tiles == 30
    assert record.rejected is not None
    assert record.rejected_reason is not None
    assert set(record.rejected_reason.tolist()) == {NEAR_WHITE}
    assert len(record.rejected) == record.attributes["n_near_white"] > 5
    assert all(light[y // 32, x // 32] for x, y in record.rejected.tolist())
    assert not any(light[y // 32, x // 32] for x, y in record.coords.tolist())
    assert job.store(recipe).verify("a") == []
    (failed,) = job.run(path, recipe=replace(recipe, quality=QualitySettings(white_level=20)), to="other").failed
    assert failed.error == "NoTissueError"
    assert "none of its 160 tissue tiles can be used: 160 near white" in failed.message


def test_what_a_record_was_made_with_is_in_it(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    job.run()
    (entry,) = json.loads(str(job.store().attributes("a")["made_with"]))
    assert (entry["from_row"], entry["device"]) == (0, "cpu")
    assert {"mmsurv", "numpy", "torch", "pillow", "openslide-bin"} <= set(entry["versions"])
    assert entry["reader"] == job.store().attributes("a")["reader"]


BATCHES_A_SLIDE = 10
"""Of 16 tiles, of a slide as ``make_slide`` makes it."""


def test_stopping_drops_the_slide_in_flight_and_keeps_the_rest(job: Job, make_slide: Callable[..., Path]) -> None:
    for i in range(3):
        make_slide(f"slides/{i}.tiff", seed=i)
    stop = threading.Event()

    class StopsInSecondSlide(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            if self.n_batches == BATCHES_A_SLIDE + 2:
                stop.set()
            return super().__call__(tiles)

    store = job.store()
    summary = job.run(encoder=StopsInSecondSlide(), stop=stop, batch_size=16)
    assert summary.stopped
    assert (summary.done, summary.failed) == (["0"], [])
    assert store.slide_ids() == ["0"]
    assert store.leftovers() == []
    assert job.run().done == ["1", "2"]


def test_a_slide_is_committed_while_the_next_one_is_encoded(
    job: Job, make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(2):
        make_slide(f"slides/{i}.tiff", seed=i)
    second_begun = threading.Event()
    write = FeatureStore.write

    class Tells(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            if self.n_batches == BATCHES_A_SLIDE:
                second_begun.set()
            return super().__call__(tiles)

    def waits(self: FeatureStore, record: Any, **options: Any) -> bool:
        assert second_begun.wait(60), "the second slide is not begun before the first is written"
        return write(self, record, **options)

    monkeypatch.setattr(FeatureStore, "write", waits)
    assert job.run(encoder=Tells(), batch_size=16).done == ["0", "1"]


@pytest.mark.parametrize("moment", ["before the first tile", "after some tiles"])
def test_a_slide_replaced_while_it_is_read_is_not_recorded_under_the_old_digest(
    job: Job, make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path, other = make_slide("slides/a.tiff"), make_slide("other.tiff", seed=7, height=704)
    make_slide("slides/b.tiff", seed=1)

    def swap() -> None:
        if other.exists():
            other.replace(path)

    class Swaps(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            swap()
            return super().__call__(tiles)

    real = run.open_reader
    if moment == "before the first tile":
        monkeypatch.setattr(run, "open_reader", lambda *a, **o: (swap(), real(*a, **o))[1])
    summary = job.run(encoder=Swaps() if moment == "after some tiles" else None)
    assert summary.done == ["b"]
    (failed,) = summary.failed
    assert "a.tiff: it was changed while it was read" in failed.message
    assert "the same command again" in failed.message
    assert sorted(job.run().done) == ["a"]


def test_a_full_disk_stops_the_job_and_says_how_to_go_on(
    job: Job, make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(2):
        make_slide(f"slides/{i}.tiff", seed=i)

    def full(*_: Any, **__: Any) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FeatureStore, "write", full)
    with pytest.raises(StoreError, match=r"No space left on device\. Slide 0 was dropped.*the same command again"):
        job.run()


@pytest.mark.parametrize("often", [1, 99])
def test_a_temporary_file_that_is_removed_meanwhile_does_not_stop_the_job(
    job: Job, make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, often: int
) -> None:
    for i in range(2):
        make_slide(f"slides/{i}.tiff", seed=i)
    kind, removed = type(job.store()), []
    writing = kind.write_file

    def pruned(store: FeatureStore, path: Path, record: SlideRecord) -> None:
        writing(store, path, record)
        if record.slide_id == "0" and len(removed) < often:
            removed.append(path)
            path.unlink()

    monkeypatch.setattr(kind, "write_file", pruned)
    summary = job.run()
    assert summary.done == (["0", "1"] if often == 1 else ["1"])
    assert [(slide.slide_id, slide.error) for slide in summary.failed] == ([] if often == 1 else [("0", "StoreError")])
    assert all("Find out what removes files" in slide.message for slide in summary.failed)
    assert job.store().leftovers() == []


@pytest.mark.parametrize("name", ["failures", "leases"])
def test_a_file_where_a_folder_of_the_store_belongs_stops_the_job_by_name(
    job: Job, make_slide: Callable[..., Path], name: str
) -> None:
    make_slide("slides/a.tiff")
    place = job.store().path / name
    place.write_text("")
    with pytest.raises(StoreError, match=rf"{place} is a file, and a folder of the store belongs there.*Move it away"):
        job.run()
    assert job.store().slide_ids() == []


def test_a_malformed_failure_is_in_no_slides_way(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    job.store().write_failure("a", ValueError("torn"), source="a.tiff")
    file = job.store().failure_path("a")
    file.write_text(json.dumps({**json.loads(file.read_text()), "slide_id": 5, "attempts": "x"}))
    assert job.run().done == ["a"]
    assert not file.exists()


def test_an_error_of_ours_is_not_taken_for_a_bad_slide(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")

    class Broken(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        job.run(encoder=Broken())
    assert job.store().failures() == []


def test_features_too_large_for_the_store_are_the_slides_failure(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")

    class Large(MeanColour):
        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            return super().__call__(tiles) * 1e6

    (failed,) = job.run(encoder=Large()).failed
    assert "do not fit float16" in failed.message


def test_the_summary_can_be_printed_as_json(job: Job, make_slide: Callable[..., Path]) -> None:
    make_slide("slides/a.tiff")
    make_slide("slides/b.tiff", mpp=None)
    table = json.loads(json.dumps(job.run().to_table()))
    assert table["done"] == ["a"]
    assert table["failed"][0]["slide_id"] == "b"


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        JobOptions(**wrong)
