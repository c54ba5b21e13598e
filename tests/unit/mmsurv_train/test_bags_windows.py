"""Which rows a bag has."""

from __future__ import annotations

import pytest

from mmsurv_train.bags.windows import Draw, Span, spans_of

TILES = {"a": 10, "b": 3}


def test_windows_are_those_they_always_were():
    # Numbers of a run do not change with the code that draws: these were made by the first version of it.
    assert [Draw(7, epoch).start("TCGA-02-0001", 1000) for epoch in range(5)] == [764, 608, 635, 950, 550]
    assert Draw(0, 0).number("") == 75380312359882322


def test_a_window_that_goes_round_is_two_spans():
    draw = next(draw for draw in (Draw(0, epoch) for epoch in range(100)) if draw.start("a", 10) == 8)
    assert spans_of(["a"], TILES, size=4, draw=draw) == [Span("a", 8, 10), Span("a", 0, 2)]


def test_all_rows_are_one_span_for_each_slide():
    assert spans_of(["b", "a"], TILES, size=0, draw=Draw(0, 1)) == [Span("b", 0, 3), Span("a", 0, 10)]
    assert spans_of(["b"], TILES, size=3, draw=Draw(0, 1)) == [Span("b", 0, 3)]


def test_nothing_makes_no_bag():
    with pytest.raises(ValueError, match="a bag needs at least one slide"):
        spans_of([], TILES, size=0, draw=None)


def test_a_bag_of_fewer_than_no_tiles_is_refused():
    with pytest.raises(ValueError, match="a bag cannot have -1 tiles"):
        spans_of(["a"], TILES, size=-1, draw=None)
