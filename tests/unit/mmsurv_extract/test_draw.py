"""The draw, with a reader and an encoder that only pretend."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv.errors import NoTissueError, UnreadableSlideError
from mmsurv.store.record import NEAR_WHITE, OUT_OF_FOCUS, UNREADABLE
from mmsurv_extract.draw import Draw, draw, nothing_drawn
from mmsurv_extract.reader import Batch
from mmsurv_extract.stop import JobStopped

SLIDE = Path("slide.tiff")
GOOD = 0


class Pretender:
    """A reader of tiles that are their own x coordinate; ``fates[x]`` is 0 or the reason it is left out for."""

    def __init__(self, fates: list[int]) -> None:
        self.fates = fates
        self.rejected: dict[int, int] = {}
        self.last_error: UnreadableSlideError | None = None
        self.asked: list[list[int]] = []

    def batches(self, coords: np.ndarray, *, batch_size: int, stop: Any = None) -> Iterator[Batch]:
        xs = coords[:, 0].tolist()
        self.asked.append(xs)
        self.rejected = {row: self.fates[x] for row, x in enumerate(xs) if self.fates[x]}
        if UNREADABLE in self.rejected.values():
            self.last_error = UnreadableSlideError("torn")
        rows = [row for row in reversed(range(len(xs))) if row not in self.rejected]
        for i in range(0, len(rows), batch_size):
            some = np.array(rows[i : i + batch_size])
            tiles = np.zeros((len(some), 2, 2, 3), np.uint8)
            tiles[:, 0, 0, 0] = [xs[row] for row in some]
            yield Batch(some, tiles)


def stream(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One batch late, as a GPU gives them."""
    flying: list[tuple[np.ndarray, np.ndarray]] = []
    for rows, tiles in batches:
        yield from flying
        flying = [(rows, np.repeat(tiles[:, 0, 0, :1].astype(np.float32), 4, axis=1))]
    yield from flying


def drawn(
    fates: list[int], wanted: int, *, before: Draw | None = None, reader: Pretender | None = None, **over: Any
) -> Draw:
    coords = np.column_stack([np.arange(len(fates)), np.zeros(len(fates), int)])
    arguments: dict[str, Any] = {
        "before": before or nothing_drawn(4),
        "batch_size": 3,
        "path": SLIDE,
        "stop": threading.Event(),
        "on_tiles": lambda count: None,
        **over,
    }
    return draw(reader or Pretender(fates), stream, coords, wanted, **arguments)  # type: ignore[arg-type]


def test_rejected_tiles_are_made_good_by_the_next_in_rank_order() -> None:
    reader = Pretender([GOOD, NEAR_WHITE, GOOD, OUT_OF_FOCUS, GOOD, GOOD])
    found = drawn(reader.fates, 3, reader=reader)
    assert found.kept.tolist() == [0, 2, 4]
    assert found.rejected.tolist() == [1, 3]
    assert found.reasons.tolist() == [NEAR_WHITE, OUT_OF_FOCUS]
    assert found.features[:, 0].tolist() == [0, 2, 4]
    assert found.lost() == "1 out of focus, 1 near white"
    assert reader.asked == [[0, 1, 2], [3], [4]]


def test_all_tiles_are_drawn_for_zero_and_where_there_are_not_enough() -> None:
    fates = [GOOD, NEAR_WHITE, GOOD]
    for wanted in (0, 3, 10):
        found = drawn(fates, wanted)
        assert (found.kept.tolist(), found.rejected.tolist()) == ([0, 2], [1])


def test_a_slide_fails_when_more_than_half_of_the_tiles_drawn_cannot_be_read() -> None:
    assert drawn([GOOD, UNREADABLE, GOOD, UNREADABLE], 0).n_drawn == 4
    with pytest.raises(UnreadableSlideError, match=r"2 of the 3 tiles drawn cannot be read.*The last error: torn"):
        drawn([GOOD, UNREADABLE, UNREADABLE], 0)
    assert drawn([GOOD, NEAR_WHITE, NEAR_WHITE], 0).kept.tolist() == [0], "a tile that was read is no read error"


def test_a_slide_none_of_whose_tiles_can_be_used_says_why() -> None:
    with pytest.raises(NoTissueError, match=r"none of its 3 tissue tiles can be used: 1 out of focus, 2 near white"):
        drawn([NEAR_WHITE, OUT_OF_FOCUS, NEAR_WHITE], 0)


def test_stopping_is_noticed_between_batches() -> None:
    stop = threading.Event()
    with pytest.raises(JobStopped):
        drawn([GOOD] * 9, 0, stop=stop, on_tiles=lambda count: stop.set())


def test_the_progress_of_a_draw_adds_up_to_the_tiles_wanted() -> None:
    seen: list[int] = []
    drawn([GOOD, NEAR_WHITE, GOOD, GOOD, GOOD, GOOD], 4, on_tiles=seen.append)
    assert sum(seen) == 4


FATES = st.lists(st.sampled_from([GOOD, GOOD, GOOD, UNREADABLE, OUT_OF_FOCUS, NEAR_WHITE]), min_size=1, max_size=40)


@given(FATES, st.integers(0, 45), st.integers(1, 9))
@settings(deadline=None)
def test_what_is_drawn_is_the_shortest_prefix_with_enough_good_tiles(fates: list[int], wanted: int, batch: int) -> None:
    try:
        found = drawn(fates, wanted, batch_size=batch)
    except (UnreadableSlideError, NoTissueError):
        return
    assert sorted([*found.kept, *found.rejected]) == list(range(found.n_drawn))
    assert [fates[row] for row in found.rejected] == found.reasons.tolist()
    assert not any(fates[row] for row in found.kept)
    np.testing.assert_array_equal(found.features[:, 0], found.kept)
    if found.n_drawn < len(fates):
        assert len(found.kept) == wanted
        assert fates[found.n_drawn - 1] == GOOD, "not a tile more than needed"


@given(FATES, st.integers(1, 45), st.integers(0, 45))
@settings(deadline=None)
def test_drawing_on_gives_what_drawing_at_once_gives(fates: list[int], few: int, many: int) -> None:
    try:
        at_once, first = drawn(fates, many), drawn(fates, few)
        reader = Pretender(fates)
        in_two = drawn(fates, many, before=first, reader=reader)
    except (UnreadableSlideError, NoTissueError):
        return
    asked = [x for xs in reader.asked for x in xs]
    assert set(asked).isdisjoint([*first.kept, *first.rejected]), "no tile is read again"
    expected = at_once if at_once.n_drawn >= first.n_drawn else first
    for name in ("kept", "features", "rejected", "reasons"):
        np.testing.assert_array_equal(getattr(in_two, name), getattr(expected, name), err_msg=name)
