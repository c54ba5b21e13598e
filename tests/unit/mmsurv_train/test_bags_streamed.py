"""Bags of a store that is larger than the memory for features."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
import torch

from mmsurv.errors import ConfigError
from mmsurv.store import create_store
from mmsurv.store.testing import RECIPE, make_record
from mmsurv_train.bags import Bags, Draw
from mmsurv_train.bags import streamed as streamed_module

ROW = 8 * 2
TILES = {f"s{i}": 10 + i for i in range(40)}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    for index, (name, tiles) in enumerate(TILES.items()):
        store.write(make_record(name, tiles=tiles, seed=index))
    return store


def n_open():
    """Files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def opened(store, memory):
    bags = Bags.from_store(store, TILES, memory=memory)
    assert bags.reading == "streamed"
    return bags


def test_a_bag_larger_than_the_memory_is_refused_with_its_slides_and_both_sizes(store):
    bags = opened(store, 60 * ROW)
    message = "The bag of s30, s31 takes 1.3 kB (1296 bytes), more than the 960 bytes that features may take."
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        bags.draw([["s1"], ["s30", "s31"]])
    assert "--memory" in str(caught.value)
    assert "bags.size" in str(caught.value)
    with pytest.raises(ConfigError, match="The bag of s30, s31"):
        bags.bag(["s30", "s31"])
    assert bags.draw([["s30", "s31"]], size=60).lengths == [60]


def test_a_budget_of_exactly_one_bag_is_enough(store):
    bags = opened(store, 49 * ROW)
    held = [torch.cat(list(pieces)).clone() for pieces in bags.draw([[name] for name in TILES]).pieces(range(40))]
    assert all(torch.equal(x, bags.slide(name)) for x, name in zip(held, TILES, strict=True))


def test_memory_is_taken_once_and_stays_within_the_budget(store, monkeypatch):
    taken = []

    def empty(*size, **options):
        found = real(*size, **options)
        taken.append(found.nbytes)
        return found

    budget = 200 * ROW
    bags = opened(store, budget)
    real = torch.empty
    monkeypatch.setattr(torch, "empty", empty)
    for epoch in range(3):
        for size in (0, 7):
            for _ in bags.draw([[name] for name in TILES], size=size, draw=Draw(0, epoch)).pieces(range(40)):
                pass
    assert taken == [budget]


def test_few_files_are_open_at_once_and_none_is_left_open(store):
    before = n_open()
    bags = opened(store, 100 * ROW)
    assert n_open() == before
    most = max(n_open() for _ in bags.draw([[name] for name in TILES]).pieces(range(40)))
    assert most <= before + 1
    assert n_open() == before


def test_more_slides_than_files_may_be_open_can_be_mapped(store):
    before = n_open()
    bags = Bags.from_store(store, TILES)
    assert bags.reading == "mapped"
    assert n_open() == before
    assert sum(str(store.path) in line for line in Path("/proc/self/maps").read_text().splitlines()) == len(TILES)


def test_small_bags_are_handed_over_together(store, monkeypatch):
    handed_over = []
    real = streamed_module.read_ahead

    def counted(sizes, *rest):
        handed_over.append(len(sizes))
        return real(sizes, *rest)

    monkeypatch.setattr(streamed_module, "read_ahead", counted)
    drawn = opened(store, 400 * ROW).draw([[name] for name in TILES], size=10)
    assert len(list(drawn.pieces(range(40)))) == 40
    assert handed_over == [4]


def test_one_thread_may_not_begin_a_pass_for_which_the_one_before_has_the_memory(store):
    drawn = opened(store, 49 * ROW).draw([["s39"]] * 3)
    first = drawn.pieces(range(3))
    next(first)
    with pytest.raises(RuntimeError, match="use up or close the one before"):
        next(drawn.pieces(range(3)))
    first.close()
    assert len(list(drawn.pieces(range(3)))) == 3


def test_threads_take_turns_where_the_memory_holds_one_bag_only(store):
    drawn = opened(store, 49 * ROW).draw([["s39"], ["s38"]])
    lengths = []

    def go_through(order):
        lengths.extend(sum(map(len, pieces)) for pieces in drawn.pieces(order, readers=2))

    threads = [threading.Thread(target=go_through, args=([index] * 30,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(lengths) == [48] * 30 + [49] * 30
