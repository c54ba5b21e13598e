from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from mmsurv_extract.stop import JobStopped, StopOnSignal, stop_if_set

TWICE = """
import os, signal, sys
from mmsurv_extract import stop
stop.SAME_S = float(sys.argv[1])
with stop.StopOnSignal() as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(signals.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_the_flag_and_the_exit_code(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with StopOnSignal() as signals:
        stop_if_set(signals.stop)
        os.kill(os.getpid(), number)
        with pytest.raises(JobStopped):
            stop_if_set(signals.stop)
        assert signals.exit_code == code
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("same_s", "code"), [("60", 143), ("0", -signal.SIGTERM)], ids=["at once: the same", "later: the end"]
)
def test_a_second_signal_ends_the_process_unless_it_is_the_first_again(same_s: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", TWICE, same_s], timeout=60, check=False)
    assert done.returncode == code


def test_outside_the_main_thread_only_the_flag_is_left() -> None:
    found: list[StopOnSignal] = []

    def enter() -> None:
        with StopOnSignal() as signals:
            found.append(signals)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found[0].exit_code == 0
