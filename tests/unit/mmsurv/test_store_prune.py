"""What may go from a store, and what may not."""

import os
import time
from pathlib import Path

import pytest

from mmsurv.store import FeatureStore, create_store
from mmsurv.store.prune import useless
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


def names(store: FeatureStore, older_than_s: float = DAY) -> set[str]:
    return {found.path.name for found in useless(store, older_than_s=older_than_s)}


def test_only_what_is_old_enough_may_go(store: FeatureStore) -> None:
    put(store.path / "slides" / ".a.12.partial", hours_old=25)
    put(store.path / "slides" / ".a.34.partial", hours_old=23)
    put(store.path / "failures" / ".b.12.partial", hours_old=25)
    put(store.path / ".store.12.partial", hours_old=25)
    put(store.path / "leases" / "a.json", hours_old=25)
    put(store.path / "leases" / ".a.12.heir", hours_old=25)
    put(store.path / "leases" / "b.json", hours_old=1)
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
