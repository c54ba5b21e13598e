"""Several processes on one store, as one of them sees it; the others are played by the tests."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsurv.errors import MppError
from mmsurv.store import FeatureStore
from mmsurv.store.leases import Leases
from mmsurv_extract import share
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.job import JobOptions
from mmsurv_extract.progress import Progress
from mmsurv_extract.share import Patience, Share, job_settings
from mmsurv_extract.stop import JobStopped
from mmsurv_extract.testing import MeanColour, see_through_job, see_through_store

SETTINGS = job_settings(JobOptions(), 2000)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(share, "LONGEST_WAIT_S", 0.02)


@pytest.fixture
def store(tmp_path: Path, make_slide: Callable[..., Path]) -> FeatureStore:
    for i, name in enumerate("abc"):
        make_slide(f"slides/{name}.tiff", seed=i)
    return see_through_store(tmp_path / "store")


@pytest.fixture
def other(store: FeatureStore) -> Iterator[Leases]:
    """The leases of another process."""
    with Leases(store.path / "leases") as leases:
        yield leases


class Notices(MeanColour):
    """Calls ``then`` at its first batch."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then

    def __call__(self, tiles: Any) -> Any:
        if self.n_batches == 0:
            self.then()
        return super().__call__(tiles)


def slides(store: FeatureStore) -> list[Path]:
    return [store.path.parent / "slides"]


def test_a_slide_of_another_process_is_left_to_it_and_waited_for(
    store: FeatureStore, other: Leases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert other.take("a")
    theirs = see_through_store(tmp_path / "theirs")
    see_through_job(slides(store), theirs)
    record = theirs.read("a")
    plain = {k: v for k, v in record.attributes.items() if k in ("sample_seed", "n_tissue_tiles", "mpp")}

    def finishes() -> None:
        store.write(dataclasses.replace(record, attributes=plain))
        other.release("a")

    timer = threading.Timer(0.5, finishes)
    timer.start()
    summary = see_through_job(slides(store), store)
    timer.join()
    assert summary.done == ["b", "c"]
    assert summary.skipped == ["a"]
    line = next(line for line in capsys.readouterr().err.splitlines() if "waiting" in line)
    assert line.startswith("waiting for 1 slides of other processes: a (process ")


def test_a_slide_whose_process_gives_up_is_taken_over(store: FeatureStore, other: Leases) -> None:
    assert other.take("a")
    timer = threading.Timer(0.3, lambda: other.release("a"))
    timer.start()
    assert see_through_job(slides(store), store).done == ["b", "c", "a"]
    timer.join()


def test_a_slide_that_fails_in_the_process_we_wait_for_is_not_tried_again(store: FeatureStore, other: Leases) -> None:
    assert other.take("a")
    source = str((slides(store)[0] / "a.tiff").absolute())

    def fails() -> None:
        store.write_failure("a", MppError("theirs"), source=source, settings=SETTINGS)
        other.release("a")

    timer = threading.Timer(0.3, fails)
    timer.start()
    summary = see_through_job(slides(store), store)
    timer.join()
    assert summary.done == ["b", "c"]
    (failed,) = summary.failed
    assert (failed.slide_id, failed.error, failed.message, failed.by_other) == ("a", "MppError", "theirs", True)
    assert store.failures()[0].attempts == 1


def test_a_failure_noted_just_before_the_slide_becomes_ours_is_seen(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, take = str((slides(store)[0] / "a.tiff").absolute()), Leases.take

    def just_released(leases: Leases, slide_id: str) -> bool:
        if slide_id == "a":
            store.write_failure("a", MppError("theirs"), source=source, settings=SETTINGS)
        return take(leases, slide_id)

    monkeypatch.setattr(Leases, "take", just_released)
    summary = see_through_job(slides(store), store)
    assert [failed.by_other for failed in summary.failed] == [True]
    assert list((store.path / "leases").iterdir()) == []


def test_a_failure_noted_before_the_start_is_tried_again(store: FeatureStore) -> None:
    source = str((slides(store)[0] / "a.tiff").absolute())
    store.write_failure("a", MppError("earlier"), source=source, settings=SETTINGS)
    assert see_through_job(slides(store), store).done == ["a", "b", "c"]
    assert store.failures() == []


@pytest.mark.parametrize(
    ("source", "settings", "ours"),
    [
        ("a.tiff", SETTINGS, True),
        ("a.tiff", {**SETTINGS, "mpp": 0.5}, False),
        ("a.tiff", {**SETTINGS, "max_tiles": 10}, False),
        ("elsewhere/a.tiff", SETTINGS, False),
    ],
    ids=["same", "another mpp", "another number", "another file"],
)
def test_another_s_failure_counts_for_the_same_file_and_settings_only(
    store: FeatureStore, other: Leases, tmp_path: Path, source: str, settings: dict[str, Any], ours: bool
) -> None:
    part = Share(store, other, SETTINGS)
    slide = SlideSource("a", tmp_path / "a.tiff")
    assert part.failed_elsewhere(slide) is None
    store.write_failure("a", MppError("theirs"), source=str(tmp_path / source), settings=settings)
    assert (part.failed_elsewhere(slide) is not None) == ours
    assert Share(store, other, SETTINGS).failed_elsewhere(slide) is None, "it was noted before that one started"


def test_a_slide_is_leased_from_before_it_is_prepared_until_it_is_done(store: FeatureStore) -> None:
    held: list[list[str]] = []

    class Watches(MeanColour):
        def __call__(self, tiles: Any) -> Any:
            if not store.slide_ids():
                while len(list((store.path / "leases").glob("*.json"))) < 2:
                    time.sleep(0.01)
            held.append(sorted(path.stem for path in (store.path / "leases").glob("*.json")))
            return super().__call__(tiles)

    see_through_job(slides(store), store, encoder=Watches(), batch_size=256)
    assert held[0] == ["a", "b"], "the one in work and the next"
    assert held[-1] in (["c"], ["b", "c"]), "the one in work, and the last until it is committed"
    assert list((store.path / "leases").iterdir()) == []


def test_stopping_gives_the_leases_back(store: FeatureStore) -> None:
    stop = threading.Event()
    assert see_through_job(slides(store), store, encoder=Notices(stop.set), stop=stop).stopped
    assert list((store.path / "leases").iterdir()) == []


def test_stopping_while_waiting_is_at_once(store: FeatureStore, other: Leases) -> None:
    for name in "abc":
        assert other.take(name)
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    summary = see_through_job(slides(store), store, stop=stop)
    timer.join()
    assert summary.stopped
    assert summary.n_slides == 0


def test_a_store_that_is_done_is_looked_at_without_a_lease(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_through_job(slides(store), store)

    def refuse(*_: Any) -> bool:
        raise AssertionError("nothing is to be leased")

    monkeypatch.setattr(Leases, "take", refuse)
    assert see_through_job(slides(store), store).skipped == ["a", "b", "c"]


def test_without_leases_the_work_is_done_all_the_same(
    store: FeatureStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(path: Path) -> None:
        raise OSError(f"{path}: not here")

    monkeypatch.setattr("mmsurv.store.leases._create", unsupported)
    assert see_through_job(slides(store), store).done == ["a", "b", "c"]
    assert caplog.text.count("leases cannot be kept") == 1


def test_of_two_that_encode_one_slide_the_second_leaves_the_first_one_s_record(
    store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def other_is_first() -> None:
        while len(list((store.path / "leases").glob("*.json"))) < 2:  # the next slide is leased by another thread
            time.sleep(0.01)
        (store.path / "leases").rename(store.path / "away")
        see_through_job([slides(store)[0] / "a.tiff"], store)
        (store.path / "away").rename(store.path / "leases")

    summary = see_through_job(slides(store), store, encoder=Notices(other_is_first))
    assert (summary.skipped, summary.done) == (["a"], ["b", "c"])
    assert "a: another process was first; its record stays" in capsys.readouterr().err


def test_dead_leases_are_swept_when_the_job_ends(store: FeatureStore, other: Leases) -> None:
    from mmsurv.store import processes

    if not processes.machine():
        pytest.skip("this system does not say which of its processes run")
    assert other.take("gone")
    path = store.path / "leases" / "gone.json"
    path.write_text(path.read_text().replace('"started": "', '"started": "9'))
    see_through_job(slides(store), store)
    assert list((store.path / "leases").iterdir()) == []


def test_waiting_grows_longer_while_nothing_changes(
    store: FeatureStore, other: Leases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(share, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(share, "LONGEST_WAIT_S", 5.0)

    class Never(threading.Event):
        def __init__(self) -> None:
            super().__init__()
            self.waited: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.waited.append(timeout or 0.0)
            return self.is_set()

    stop = Never()
    sources = [SlideSource(f"{i:02d}", Path(f"{i}.tiff")) for i in range(9)]
    patience = Patience(Share(store, other, SETTINGS), Progress(9), stop)
    for _ in range(4):
        patience.wait(sources)
    patience.wait(sources[:2])
    assert stop.waited == [1.0, 2.0, 4.0, 5.0, 1.0]
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert len(said) == 2
    assert said[0].endswith("and 4 more")
    stop.set()
    with pytest.raises(JobStopped):
        patience.wait(sources)
