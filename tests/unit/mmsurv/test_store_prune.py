"""What may go from a store, and what may not."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mmsurv.errors import StoreError
from mmsurv.store import FeatureStore, create_store, holders
from mmsurv.store.prune import skipped, useless
from mmsurv.store.testing import RECIPE, make_record

DAY = 24 * 3600


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    opened.write(make_record("a"))
    opened.write_failure("b", ValueError("torn"), source="b.svs")
    (opened.path / "leases").mkdir()
    return opened


def put(path: Path, *, hours_old: float) -> Path:
    path.write_bytes(b"x" * 10)
    then = time.time() - hours_old * 3600
    os.utime(path, (then, then))
    return path


def lease(path: Path, *, hours_old: float, **change: Any) -> Path:
    """A lease of a process of another machine."""
    holder = dataclasses.replace(holders.ourselves(), **{"machine": "elsewhere", **change})
    put(path, hours_old=hours_old)
    then = path.stat().st_mtime
    path.write_bytes(holders.content(holder, 3))
    os.utime(path, (then, then))
    return path


def names(store: FeatureStore, older_than_s: float = DAY) -> set[str]:
    return {found.path.name for found in useless(store, older_than_s=older_than_s)}


def test_only_what_is_old_enough_may_go(store: FeatureStore) -> None:
    put(store.path / "slides" / ".a.12.partial", hours_old=25)
    put(store.path / "slides" / ".a.34.partial", hours_old=23)
    put(store.path / "failures" / ".b.12.partial", hours_old=25)
    put(store.path / ".store.12.partial", hours_old=25)
    lease(store.path / "leases" / "a.json", hours_old=25)
    lease(store.path / "leases" / ".a.12.heir", hours_old=25)
    lease(store.path / "leases" / "b.json", hours_old=1)
    old = {".a.12.partial", ".b.12.partial", ".store.12.partial", "a.json", ".a.12.heir"}
    assert names(store) == old
    assert names(store, 0) == old | {".a.34.partial", "b.json"}


def test_records_strays_and_failures_without_a_record_stay_however_old(store: FeatureStore) -> None:
    stray = put(store.path / "slides" / "notes.txt", hours_old=999)
    for path in (store.record_path("a"), store.failure_path("b"), store.path / "store.json"):
        os.utime(path, (0, 0))
    assert names(store, 0) == set()
    assert stray.exists()


def test_a_failure_of_a_slide_that_has_a_record_since_may_go(store: FeatureStore) -> None:
    store.write_failure("a", ValueError("torn"), source="a.svs")
    store.write_failure("../a", ValueError("id"), source="a.svs")
    found = list(useless(store, older_than_s=DAY))
    assert [(item.path.name, item.reason) for item in found] == [
        ("a.json", "failed (ValueError), but has a record since")
    ]
    store.record_path("a").write_bytes(b"torn")
    assert names(store) == set(), "a damaged record is none"


def test_a_damaged_record_that_was_moved_aside_may_go_once_it_is_old(store: FeatureStore) -> None:
    store.record_path("a").write_bytes(b"torn")
    store.write(make_record("a"))
    assert len(names(store, -10)) == 1
    assert names(store) == set()


def test_only_what_is_a_lease_by_name_and_content_may_go_from_the_leases(store: FeatureStore) -> None:
    folder = store.path / "leases"
    for name in ("notes.txt", "a.json", ".a.12.heir", ".hidden.json", ".a.12.partial"):
        put(folder / name, hours_old=999)
    lease(folder / "b.txt", hours_old=999)
    lease(folder / "d.json", hours_old=999).rename(folder / "..json")
    (folder / "c.json").touch()
    os.utime(folder / "c.json", (0, 0))
    assert names(store) == {"c.json"}, "an empty one is of a maker that died at once"


def test_a_lease_of_a_process_that_runs_here_stays_however_old(store: FeatureStore) -> None:
    folder = store.path / "leases"
    for name in ("a.json", ".a.12.heir"):
        lease(folder / name, hours_old=999, machine=holders.ourselves().machine)
    assert names(store, 0) == set()
    lease(folder / "a.json", hours_old=999, machine=holders.ourselves().machine, started="1")
    assert names(store, 0) == {"a.json"}, "its process has ended; another has its number now"


@pytest.mark.parametrize("name", ["slides", "failures", "leases"])
def test_nothing_is_removed_behind_a_folder_that_is_a_link(store: FeatureStore, tmp_path: Path, name: str) -> None:
    store.write_failure("a", ValueError("torn"), source="a.svs")
    put(store.path / "slides" / ".a.12.partial", hours_old=25)
    lease(store.path / "leases" / "a.json", hours_old=25)
    assert names(store) == {".a.12.partial", "a.json"}
    elsewhere = tmp_path / "elsewhere"
    (store.path / name).rename(elsewhere)
    (store.path / name).symlink_to(elsewhere)
    assert skipped(store) == [store.path / name]
    found = [item.path for item in useless(store, older_than_s=DAY)]
    assert len(found) == 2
    assert all(path.resolve().is_relative_to(store.path.resolve()) for path in found)


def test_links_are_not_ours_and_stay(store: FeatureStore, tmp_path: Path) -> None:
    target = put(tmp_path / "precious", hours_old=999)
    failure = store.failure_path("b").rename(tmp_path / "a.json")
    failure.write_text(failure.read_text().replace('"b"', '"a"'))
    (store.path / "slides" / ".a.12.partial").symlink_to(target)
    store.failure_path("a").symlink_to(failure)
    assert names(store, 0) == set()


@pytest.mark.parametrize("name", ["failures", "leases"])
def test_a_file_where_a_folder_belongs_is_named(store: FeatureStore, tmp_path: Path, name: str) -> None:
    (store.path / name).rename(tmp_path / "away")
    (store.path / name).write_text("")
    with pytest.raises(StoreError, match=rf"{name} is a file, and a folder of the store belongs there\. Move it away"):
        names(store)
