"""A record is hashed once, and again when it has changed."""

from pathlib import Path

import pytest

from mmsurv.store import checked, create_store, open_store
from mmsurv.store import record as records
from mmsurv.store.checked import CheckedRecords
from mmsurv.store.testing import RECIPE, make_record


@pytest.fixture
def store_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    create_store(tmp_path / "store", recipe=RECIPE, dim=8).write(make_record())
    return tmp_path / "store"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time features were hashed."""
    calls: list[int] = []
    original = records.features_digest

    def counting(features):
        calls.append(len(features))
        return original(features)

    monkeypatch.setattr(records, "features_digest", counting)
    return calls


def test_a_checked_record_is_not_hashed_again(store_path: Path, hashed: list[int]) -> None:
    open_store(store_path).features("slide-1")
    assert hashed == [], "the writer had checked it"
    open_store(store_path).verify("slide-1")
    assert len(hashed) == 1, "verify asks nobody"


def test_a_touched_record_is_hashed_again(store_path: Path, hashed: list[int]) -> None:
    record = open_store(store_path).record_path("slide-1")
    record.write_bytes(record.read_bytes())
    store = open_store(store_path)
    store.features("slide-1")
    store.features("slide-1")
    assert len(hashed) == 1


def test_an_unwritable_cache_only_costs_time(store_path: Path, hashed: list[int], monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert open_store(store_path).features("slide-1").shape == (60, 8)
    assert len(hashed) == 1


def test_a_torn_line_of_the_cache_is_passed_over(store_path: Path, hashed: list[int]) -> None:
    cache = CheckedRecords(store_path)._path
    cache.write_text('["slide-1.h5", 12' + "\nnonsense\n[]\n")
    assert open_store(store_path).features("slide-1").shape == (60, 8)
    assert len(hashed) == 1


@pytest.mark.parametrize(
    "line", ["5", "null", '["slide-1.h5", null, 1, 2]', '["slide-1.h5", true, 1, 2]', "[[], 1, 2, 3]", "[" * 100_000]
)
def test_a_line_of_the_cache_that_is_none_of_ours_is_passed_over(
    store_path: Path, hashed: list[int], line: str
) -> None:
    cache = CheckedRecords(store_path)._path
    cache.write_text(line + "\n" + cache.read_text())
    assert open_store(store_path).features("slide-1").shape == (60, 8)
    assert hashed == [], "the line after it counts"


def test_bytes_that_are_no_text_cost_their_line_only(store_path: Path, hashed: list[int]) -> None:
    cache = CheckedRecords(store_path)._path
    cache.write_bytes(b"\xff\xfe\n" + cache.read_bytes())
    open_store(store_path).features("slide-1")
    assert hashed == []


def test_a_cache_grown_well_beyond_its_records_is_rewritten(store_path: Path, hashed: list[int]) -> None:
    cache = CheckedRecords(store_path)._path
    line = cache.read_text()
    cache.write_text('["slide-1.h5", 1, 2, 3]\n' * 500 + line)
    open_store(store_path).features("slide-1")
    assert cache.read_text() == line
    assert hashed == []
    assert list(cache.parent.iterdir()) == [cache]


def test_a_cache_that_cannot_be_rewritten_is_used_as_it_is(
    store_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CheckedRecords(store_path)._path
    cache.write_text(cache.read_text() * 500)

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checked, "publish_bytes", full)
    open_store(store_path).features("slide-1")
    assert hashed == []
    assert len(cache.read_text().splitlines()) == 500
