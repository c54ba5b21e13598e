from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from mmsurv_extract.ahead import one_ahead
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.stop import JobStopped

SOURCES = [SlideSource(name, Path(name)) for name in "abcd"]
PATIENCE_S = 30


def test_the_next_slide_is_made_ready_meanwhile_and_no_other() -> None:
    ready: list[str] = []
    second = threading.Event()

    def look_at(source: SlideSource) -> str:
        ready.append(source.slide_id)
        if source.slide_id == "b":
            second.set()
        return source.slide_id.upper()

    with closing(one_ahead(SOURCES, look_at, lambda _: None, threading.Event())) as slides:
        source, upcoming = next(slides)
        assert second.wait(PATIENCE_S)
        assert (source.slide_id, upcoming(), ready) == ("a", "A", ["a", "b"])
        assert [upcoming() for _, upcoming in slides] == ["B", "C", "D"]


def test_what_goes_wrong_is_raised_for_its_own_slide() -> None:
    def look_at(source: SlideSource) -> str:
        if source.slide_id == "b":
            raise ValueError("torn")
        return source.slide_id

    slides = one_ahead(SOURCES, look_at, lambda _: None, threading.Event())
    assert next(slides)[1]() == "a"
    with pytest.raises(ValueError, match="torn"):
        next(slides)[1]()
    assert next(slides)[1]() == "c"
    slides.close()


def test_what_was_made_ready_in_vain_is_discarded() -> None:
    discarded: list[str] = []
    slides = one_ahead(SOURCES, lambda source: source.slide_id, discarded.append, threading.Event())
    assert next(slides)[1]() == "a"
    slides.close()
    assert discarded in ([], ["b"]), "b may not have been begun"
    stop = threading.Event()
    begun = threading.Event()

    def slow(source: SlideSource) -> str:
        if source.slide_id == "b":
            begun.set()
            stop.wait(PATIENCE_S)
        return source.slide_id

    discarded.clear()
    slides = one_ahead(SOURCES, slow, discarded.append, stop)
    assert next(slides)[1]() == "a"
    assert begun.wait(PATIENCE_S)
    stop.set()
    with pytest.raises(JobStopped, match=r"^$"):
        next(slides)
    assert discarded == ["b"]
