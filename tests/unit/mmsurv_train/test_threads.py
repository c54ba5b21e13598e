"""Work dealt out to threads."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from mmsurv_train import threads
from mmsurv_train.threads import one_thread, run_beside, share_out, stop_if_told


def test_shares_hold_everything_once_in_order_and_cost_about_the_same():
    costs = [9, 1, 1, 5, 1, 4, 3, 1, 8, 2]
    shares = share_out(list(range(10)), costs.__getitem__, 3)
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert all(share == sorted(share) for share in shares)
    totals = [sum(costs[item] for item in share) for share in shares]
    assert max(totals) - min(totals) <= 2


def test_no_share_is_empty():
    assert share_out([7], lambda _: 1, 4) == [[7]]


def test_shares_run_at_the_same_time_with_one_thread_of_torch_each():
    before = torch.get_num_threads()
    meeting, seen = threading.Barrier(2, timeout=20), []

    def work(share):
        meeting.wait()  # passes only if both are at work
        seen.append((share, torch.get_num_threads()))

    run_beside(work, [[1], [2]])
    assert sorted(seen) == [([1], 1), ([2], 1)]
    assert torch.get_num_threads() == before


def test_an_error_is_raised_after_all_have_ended():
    ended = threading.Event()

    def work(share):
        if share == ["bad"]:
            raise ValueError("it was bad")
        ended.set()

    with pytest.raises(ValueError, match="it was bad"):
        run_beside(work, [["bad"], ["good"]])
    assert ended.is_set()


def test_work_within_work_is_done_in_place():
    done = []
    run_beside(lambda share: run_beside(done.append, [share, share]), [[1], [2]])
    assert sorted(done) == [[1], [1], [2], [2]]


def test_ctrl_c_ends_the_work_before_it_is_raised(monkeypatch):
    at_work, ended = threading.Event(), []

    def work(share):
        at_work.set()
        try:
            while True:
                stop_if_told()
        finally:
            ended.append(share)

    real, calls = threads.wait, []

    def interrupted(futures):
        calls.append(len(futures))
        at_work.wait()
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(futures)

    monkeypatch.setattr(threads, "wait", interrupted)
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run_beside(work, [[1], [2]])
    assert sorted(ended) == [[1], [2]]
    assert torch.get_num_threads() == before


def test_the_number_of_threads_comes_back_when_the_last_has_left():
    torch.set_num_threads(2)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with one_thread():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(20)
    with one_thread():
        assert torch.get_num_threads() == 1
        leave.set()
        thread.join()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_threads_of_its_own():
    run_beside(lambda _share: None, [[1], [2]])
    child = os.fork()
    if not child:
        done = []
        run_beside(done.append, [[1], [2]])
        os._exit(0 if len(done) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
