"""Windows: uniform, cyclic, and the same rows however they are read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv_train.bags import Bags, Draw
from mmsurv_train.bags.ahead import Ring, aligned
from mmsurv_train.bags.windows import spans_of

n_tiles = st.dictionaries(st.sampled_from([f"slide-{i}" for i in range(6)]), st.integers(1, 40), min_size=1)
draws = st.none() | st.builds(Draw, st.integers(0, 2**63 - 1), st.integers(0, 1000))


@given(n_tiles, st.integers(0, 100), draws)
def test_a_bag_has_its_size_and_no_row_twice(tiles, size, draw):
    spans = spans_of(list(tiles), tiles, size=size, draw=draw)
    rows = [(slide_id, row) for slide_id, start, stop in spans for row in range(start, stop)]
    assert len(set(rows)) == len(rows) > 0
    assert all(0 <= start < stop <= tiles[slide_id] for slide_id, start, stop in spans)
    share, over = divmod(size, len(tiles))
    if not size:
        assert len(rows) == sum(tiles.values())
    elif min(tiles.values()) >= share + bool(over):
        assert len(rows) == size
        shares = [sum(span.n for span in spans if span.slide_id == slide_id) for slide_id in tiles]
        assert sorted(shares) == [share] * (len(tiles) - over) + [share + 1] * over


@given(st.integers(1, 40), st.integers(1, 50), draws)
def test_rows_of_a_window_follow_each_other_round_the_slide(tiles, size, draw):
    spans = spans_of(["slide"], {"slide": tiles}, size=size, draw=draw)
    rows = [row for span in spans for row in range(span.start, span.stop)]
    assert len(rows) == min(size, tiles)
    assert all((before + 1) % tiles == after for before, after in pairwise(rows))
    assert len(spans) <= 2


@given(st.integers(2, 30), st.integers(0, 2**32))
@settings(max_examples=20)
def test_every_row_is_as_likely_as_any_other_to_begin_a_window(tiles, seed):
    rounds = 200 * tiles
    starts = [spans_of(["slide"], {"slide": tiles}, size=1, draw=Draw(seed, r))[0].start for r in range(rounds)]
    counts = np.bincount(starts, minlength=tiles)
    assert len(counts) == tiles
    # Six standard deviations: of a count, two false alarms in a billion.
    assert np.abs(counts - 200).max() < 6 * np.sqrt(200)


@given(n_tiles, st.integers(0, 60), draws, st.data())
def test_pieces_together_are_the_rows_asked_for(tiles, size, draw, data):
    arrays = {
        name: np.stack([np.full(n, index), np.arange(n)], 1).astype(np.float32)
        for index, (name, n) in enumerate(tiles.items())
    }
    chosen = data.draw(st.lists(st.lists(st.sampled_from(list(tiles)), min_size=1, unique=True), min_size=1))
    order = data.draw(st.lists(st.integers(0, len(chosen) - 1)))
    drawn = Bags.from_arrays(arrays).draw(chosen, size=size, draw=draw)
    for index, pieces in zip(order, drawn.pieces(order), strict=True):
        spans = spans_of(chosen[index], tiles, size=size, draw=draw)
        wanted = np.concatenate([arrays[slide_id][start:stop] for slide_id, start, stop in spans])
        assert np.array_equal(torch.cat(list(pieces)), wanted)
        assert drawn.lengths[index] == len(wanted)


@given(st.integers(1, 8), st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=3), max_size=60), st.data())
def test_what_a_ring_gives_out_never_overlaps(factor, sizes, data):
    memory = torch.zeros(factor * max([sum(map(aligned, runs)) for runs in sizes], default=1), dtype=torch.uint8)
    ring, taken = Ring(memory), []
    for number, runs in enumerate(sizes):
        while (given_out := ring.take(runs)) is None:
            assert taken, "there is always room for one"
            ring.give_back()
            check(taken.pop(0))
        for run in given_out:
            run.fill_(number % 251)
        taken.append((number % 251, given_out, runs))
        if data.draw(st.booleans()):
            ring.give_back()
            check(taken.pop(0))
    for item in taken:
        check(item)


def check(item):
    number, given_out, runs = item
    assert [len(run) for run in given_out] == runs
    assert all(bool((run == number).all()) for run in given_out)
