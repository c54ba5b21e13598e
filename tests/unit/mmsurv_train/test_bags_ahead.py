"""The reading thread: how far ahead it is, and when it ends."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from mmsurv_train.bags.ahead import ALIGNMENT, Ring, read_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def ring(n_bytes):
    return Ring(torch.zeros(n_bytes, dtype=torch.uint8))


def put_number(index, runs):
    for run in runs:
        run.fill_(index)


def until(true):
    """Wait for what another thread is about to do; fails after ten seconds."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it never came about")


def test_items_come_in_their_order_and_the_thread_ends():
    items = read_ahead([[64, 3], [10], [128]] * 20, ring(4 * ALIGNMENT), put_number)
    for index, runs in enumerate(items):
        assert all(bool((run == index).all()) for run in runs)
        assert [len(run) for run in runs] == [[64, 3], [10], [128]][index % 3]
    assert threads() == []


def test_it_reads_ahead_as_far_as_there_is_room_and_no_further():
    read = []
    items = read_ahead([[ALIGNMENT]] * 10, ring(3 * ALIGNMENT), lambda index, _: read.append(index))
    next(items)
    until(lambda: len(read) == 3)
    next(items)
    until(lambda: len(read) == 4)
    items.close()
    assert read == [0, 1, 2, 3]


def test_an_error_is_raised_after_the_items_before_it():
    def read(index, runs):
        if index == 2:
            raise ValueError("row 2 is gone")

    items = read_ahead([[1]] * 5, ring(10 * ALIGNMENT), read)
    next(items)
    next(items)
    with pytest.raises(ValueError, match="row 2 is gone"):
        next(items)
    assert threads() == []


def test_leaving_early_ends_a_thread_that_waits_for_room():
    items = read_ahead([[ALIGNMENT]] * 5, ring(ALIGNMENT), put_number)
    next(items)
    assert len(threads()) == 1
    items.close()
    assert threads() == []


def test_an_error_where_items_are_used_ends_the_thread():
    def use():
        for _ in read_ahead([[ALIGNMENT]] * 5, ring(ALIGNMENT), put_number):
            raise KeyError("of the user")

    with pytest.raises(KeyError, match="of the user"):
        use()
    assert threads() == []
