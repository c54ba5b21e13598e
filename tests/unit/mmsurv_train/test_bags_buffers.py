"""Memory that is lent to passes over streamed bags."""

from __future__ import annotations

import threading

import pytest

from mmsurv_train.bags.buffers import Buffers


def test_a_buffer_that_was_given_back_is_lent_again():
    buffers = Buffers(1000)
    with buffers.lend(600) as first:
        place = first.data_ptr()
    with buffers.lend(500) as second:
        assert (second.data_ptr(), len(second)) == (place, 600)


def test_buffers_lent_at_once_are_different_ones():
    buffers = Buffers(1000)
    with buffers.lend(500) as first, buffers.lend(500) as second:
        assert first.data_ptr() != second.data_ptr()


def test_what_is_too_small_makes_room_for_what_is_asked_for():
    buffers = Buffers(1000)
    with buffers.lend(500), buffers.lend(500):
        pass
    with buffers.lend(800) as large:
        assert len(large) == 800
    assert sum(len(buffer) for buffer in buffers._spare) <= 1000


def test_a_thread_waits_until_there_is_room():
    buffers, order = Buffers(1000), []

    def borrow():
        with buffers.lend(600):
            order.append("second")

    with buffers.lend(600):
        thread = threading.Thread(target=borrow)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_thread_that_would_wait_for_itself_is_told():
    buffers = Buffers(1000)
    with buffers.lend(600), pytest.raises(RuntimeError, match="use up or close the one before"), buffers.lend(600):
        pass


def test_a_single_buffer_may_be_larger_than_the_budget_by_its_alignment():
    with Buffers(1000).lend(1024) as buffer:
        assert len(buffer) == 1024


def test_of_several_spare_buffers_the_smallest_that_is_large_enough_is_lent():
    buffers = Buffers(2000)
    with buffers.lend(300), buffers.lend(700), buffers.lend(500):
        pass
    with buffers.lend(400) as found:
        assert len(found) == 500
