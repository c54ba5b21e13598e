from __future__ import annotations

import threading

import pytest

from mmsurv_extract.behind import OneBehind

PATIENCE_S = 30


def test_work_is_done_beside_its_owner_one_piece_at_a_time() -> None:
    go_on, done = threading.Event(), []
    with OneBehind() as behind:
        behind.submit(lambda: done.append(go_on.wait(PATIENCE_S)))
        assert done == []  # the owner goes on meanwhile
        go_on.set()
        behind.submit(lambda: done.append("second"))
    assert done == [True, "second"]


def test_what_went_wrong_is_raised_once_at_the_next_meeting() -> None:
    with OneBehind() as behind:
        behind.submit(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            behind.submit(lambda: None)
        behind.settle()


def test_leaving_waits_and_raises() -> None:
    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), OneBehind() as behind:
        behind.submit(fail)
