"""A record's name changes hands: no good record is lost, whoever comes in between."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsurv.store import FeatureStore, create_store, open_store, takeover
from mmsurv.store.testing import RECIPE, make_record


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    opened.write(make_record(tiles=10))
    return opened


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(takeover.fcntl, "flock", unsupported)


@pytest.fixture
def after_the_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen once, between the last look at the file and the renaming."""

    def arrange(happens: Callable[[], object]) -> None:
        looking, happened = takeover.is_still, []

        def overtaken(path: Path, seen: object) -> bool:
            found = looking(path, seen)
            if found and not happened:
                happened.append(happens)
                happens()
            return found

        monkeypatch.setattr(takeover, "is_still", overtaken)

    return arrange


def test_a_longer_extension_waits_for_a_shorter_one_that_has_looked(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both compared themselves with the record of 10 tiles; the shorter is about to rename when the longer comes."""
    longer = threading.Thread(target=lambda: open_store(store.path).write(make_record(tiles=50), extend=True))
    renaming = os.replace

    def slow(*arguments: Path) -> None:
        if not longer.ident:
            longer.start()
            longer.join(1)
        renaming(*arguments)

    monkeypatch.setattr(os, "replace", slow)
    assert store.write(make_record(tiles=30), extend=True)
    longer.join()
    assert store.n_tiles("slide-1") == 50
    assert store.verify("slide-1") == []
    assert store.leftovers() == []


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_longer_record_that_was_replaced_is_put_back(
    store: FeatureStore, after_the_look: Callable[[Callable[[], object]], None]
) -> None:
    after_the_look(lambda: open_store(store.path).write(make_record(tiles=50), extend=True))
    assert not store.write(make_record(tiles=30), extend=True)
    assert store.n_tiles("slide-1") == 50
    assert store.verify("slide-1") == []
    assert store.leftovers() == []


def test_a_longer_record_that_came_in_spite_of_the_lock_is_put_back(
    store: FeatureStore, after_the_look: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as from a machine that does not see the lock, or because its holder was suspended for long."""
    monkeypatch.setattr(takeover, "LONGEST_WAIT_S", 0.0)
    after_the_look(lambda: open_store(store.path).write(make_record(tiles=50), extend=True))
    assert not store.write(make_record(tiles=30), extend=True)
    assert store.n_tiles("slide-1") == 50
    assert store.leftovers() == []


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_shorter_record_that_was_replaced_stays_replaced(
    store: FeatureStore, after_the_look: Callable[[Callable[[], object]], None]
) -> None:
    after_the_look(lambda: open_store(store.path).write(make_record(tiles=20), extend=True))
    assert store.write(make_record(tiles=30), extend=True)
    assert store.n_tiles("slide-1") == 30
    assert store.leftovers() == []


@pytest.mark.usefixtures("without_locks")
def test_without_locks_and_hard_links_a_record_is_still_extended(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    assert store.write(make_record(tiles=30), extend=True)
    assert store.n_tiles("slide-1") == 30
    assert store.leftovers() == []


def repaired(store: FeatureStore) -> Callable[[], None]:
    """Another writer puts a good record in the damaged one's place."""

    def repair() -> None:
        good = create_store(store.path.parent / "other", recipe=RECIPE, dim=8)
        good.write(make_record(tiles=50))
        good.record_path("slide-1").replace(store.record_path("slide-1"))

    return repair


def test_a_good_record_written_meanwhile_is_not_moved_aside_for_a_damaged_one(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record_path("slide-1").write_bytes(b"torn")
    reading = store.read_file

    def overtaken(path: Path) -> object:
        try:
            return reading(path)
        finally:
            monkeypatch.setattr(store, "read_file", reading)
            repaired(store)()

    monkeypatch.setattr(store, "read_file", overtaken)
    assert not store.write(make_record(tiles=30))
    assert store.n_tiles("slide-1") == 50
    assert store.leftovers() == []


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_good_record_that_was_moved_aside_is_put_back(
    store: FeatureStore, after_the_look: Callable[[Callable[[], object]], None]
) -> None:
    store.record_path("slide-1").write_bytes(b"torn")
    after_the_look(repaired(store))
    assert not store.write(make_record(tiles=30))
    assert store.n_tiles("slide-1") == 50
    assert store.leftovers() == []


def test_a_lock_is_one_writers_and_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "LONGEST_WAIT_S", 0.02)
    file = tmp_path / "store.json"
    file.touch()
    with takeover.locked(file) as first:
        with takeover.locked(file) as second:
            assert (first, second) == (True, False)
        with takeover.locked(file) as third:
            assert not third, "who did not have the lock does not release it"
    with takeover.locked(file) as later:
        assert later


def test_what_cannot_be_opened_is_not_locked(tmp_path: Path) -> None:
    with takeover.locked(tmp_path / "nowhere") as held:
        assert not held


def test_a_file_that_may_only_be_read_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "store.json"
    file.touch()
    opening = os.open

    def read_only(path: Path, flags: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opening(path, flags)

    monkeypatch.setattr(takeover.os, "open", read_only)
    with takeover.locked(file) as held:
        assert held
