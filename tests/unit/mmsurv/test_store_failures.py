"""What lies among the failures of a store and is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmsurv.errors import StoreError
from mmsurv.store import FeatureStore, create_store
from mmsurv.store.testing import RECIPE, make_record


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    for slide_id in ("a", "b"):
        opened.write_failure(slide_id, ValueError("torn"), source=f"{slide_id}.svs", settings={"mpp": None})
    return opened


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slide_id": 5}, "slide_id is 5, expected a text"),
        ({"slide_id": "b"}, "it is of slide 'b'"),
        ({"slide_id": "../a"}, "it is of slide '../a'"),
        ({"source": 5}, "source is 5, expected a text"),
        ({"message": None}, "message is None, expected a text"),
        ({"attempts": "x"}, "attempts is 'x', expected a whole number"),
        ({"attempts": True}, "attempts is True, expected a whole number"),
        ({"settings": [1]}, r"settings is \[1\], expected a table"),
        ({"settings": {"mpp": [1]}}, r"settings\.mpp is \[1\], expected a text, a number"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_malformed_failure_is_passed_over_with_the_remedy(
    store: FeatureStore, change: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = store.failure_path("a")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert [failure.slide_id for failure in store.failures()] == ["b"]
    assert store.failure("a") is None
    assert caplog.messages
    for message in caplog.messages:
        assert message.startswith(f"{file} is not a failure record and is passed over")
        assert message.endswith("Delete it.")
        assert re.search(said, message)
    assert store.write_failure("a", ValueError("torn"), source="a.svs").attempts == 1


@pytest.mark.parametrize("content", ["[" * 100_000, "5", '"text"', "null", "[]", '{"slide_id": "a"}', "\xff"])
def test_what_is_no_failure_is_passed_over(store: FeatureStore, content: str) -> None:
    store.failure_path("a").write_text(content, encoding="latin-1")
    assert [failure.slide_id for failure in store.failures()] == ["b"]


@pytest.mark.parametrize("kind", ["a file", "a link that leads nowhere"])
def test_what_is_no_folder_where_failures_belong_is_named(tmp_path: Path, kind: str) -> None:
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    place = store.path / "failures"
    if kind == "a file":
        place.write_text("")
    else:
        place.symlink_to("nowhere")
    for action in (
        store.failures,
        lambda: store.failure("a"),
        lambda: store.clear_failure("a"),
        lambda: store.write_failure("a", ValueError("torn"), source="a.svs"),
        lambda: store.write(make_record("a")),
    ):
        with pytest.raises(StoreError, match=rf"failures is {kind}, and a folder.*Move it away"):
            action()
