"""Leases of slides, under a clock that the tests turn."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsurv.errors import BadSlideIdError, StoreError
from mmsurv.store import leases, processes
from mmsurv.store.holders import Holder
from mmsurv.store.leases import Leases

EXPIRY = 100.0

HOLDER = """
import sys
from pathlib import Path
from mmsurv.store.leases import Leases
held = Leases(Path(sys.argv[1]))
assert held.take("a")
print("held", flush=True)
sys.stdin.read()
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def process(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Leases]]:
    """Makes what another process would have: leases on the same folder, beating by hand only."""
    made: list[Leases] = []

    def make() -> Leases:
        made.append(Leases(tmp_path / "leases", heartbeat_s=1e6, expiry_s=EXPIRY, clock=clock))
        return made[-1]

    yield make
    for one in made:
        one.close()


Process = Callable[[], Leases]


def lease_file(tmp_path: Path) -> Path:
    return tmp_path / "leases" / "a.json"


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "leases").iterdir())


def dies(holder: Leases) -> None:
    """Its process is killed: nothing is released and no heartbeat comes any more."""
    holder._held.clear()


def test_one_of_two_processes_gets_a_slide_and_the_other_once_it_is_released(tmp_path: Path, process: Process) -> None:
    one, two = process(), process()
    assert one.take("a")
    assert one.take("a"), "ours stays ours"
    assert not two.take("a")
    assert two.take("b")
    one.release("a")
    assert two.take("a")
    assert files(tmp_path) == ["a.json", "b.json"]


def test_a_lease_says_who_holds_it(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    one = process()
    assert one.take("a")
    holder = process().holder("a")
    assert holder is not None
    assert (holder.pid, holder.job) == (os.getpid(), "77_3")
    assert str(holder) == f"process {os.getpid()} on {holder.host}, job 77_3"
    assert process().holder("b") is None


def test_leaving_gives_every_lease_back(tmp_path: Path, process: Process) -> None:
    with process() as one:
        one.take("a")
        one.take("b")
    assert files(tmp_path) == []


def test_a_lease_without_a_heartbeat_is_dead_after_the_expiry_and_not_before(process: Process, clock: Clock) -> None:
    one, two = process(), process()
    one.take("a")
    dies(one)
    assert not two.take("a")
    clock.now += EXPIRY
    assert not two.take("a")
    clock.now += 0.1
    assert two.take("a")


def test_a_lease_that_beats_is_alive_however_long_it_is_held(process: Process, clock: Clock) -> None:
    one, two = process(), process()
    one.take("a")
    for _ in range(5):
        assert not two.take("a")
        clock.now += EXPIRY + 1
        one.beat()
    assert not two.take("a")


def test_an_observer_counts_only_the_time_it_has_watched(process: Process, clock: Clock) -> None:
    one = process()
    one.take("a")
    dies(one)
    clock.now += 10 * EXPIRY
    latecomer = process()
    assert not latecomer.take("a"), "it cannot know how long the count has stood still"
    clock.now += EXPIRY + 1
    assert latecomer.take("a")


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_wall_clock_that_jumps_neither_kills_nor_keeps_a_lease(
    tmp_path: Path, process: Process, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    one, two = process(), process()
    one.take("a")
    assert not two.take("a")
    then = time.time() + jump
    monkeypatch.setattr(time, "time", lambda: then)
    os.utime(lease_file(tmp_path), (then, then))
    assert not two.take("a")
    one.beat()
    os.utime(lease_file(tmp_path), (then, then))
    clock.now += EXPIRY - 1
    assert not two.take("a")
    dies(one)
    clock.now += EXPIRY + 1
    assert two.take("a")


def test_the_heartbeat_is_a_thread_that_ends_with_the_leases(tmp_path: Path) -> None:
    with Leases(tmp_path / "leases", heartbeat_s=0.01) as one:
        one.take("a")
        first = lease_file(tmp_path).read_bytes()
        deadline = time.monotonic() + 10
        while lease_file(tmp_path).read_bytes() == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(lease_file(tmp_path).read_bytes()) == len(first)
        assert "lease-heartbeat" in {thread.name for thread in threading.enumerate()}
    assert "lease-heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_of_two_thieves_one_gets_the_lease(tmp_path: Path, process: Process, clock: Clock) -> None:
    for attempt in range(20):
        dead, thieves = process(), [process() for _ in range(4)]
        dead.take("a")
        dies(dead)
        assert not any(thief.take("a") for thief in thieves)
        clock.now += EXPIRY + 1
        barrier, got = threading.Barrier(len(thieves)), []

        def steal(thief: Leases, barrier: threading.Barrier = barrier, got: list[Leases] = got) -> None:
            barrier.wait()
            if thief.take("a"):
                got.append(thief)

        threads = [threading.Thread(target=steal, args=(thief,)) for thief in thieves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1, f"attempt {attempt}"
        assert files(tmp_path) == ["a.json"]
        got[0].release("a")
        assert files(tmp_path) == []


def test_a_late_thief_does_not_touch_what_an_earlier_one_has_taken(
    tmp_path: Path, process: Process, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, early, late = process(), process(), process()
    dead.take("a")
    dies(dead)
    assert not early.take("a")
    assert not late.take("a")
    clock.now += EXPIRY + 1
    create, beaten = leases._create, []

    def overtaken(path: Path) -> Any:
        if path.suffix == leases.HEIR and not beaten:
            beaten.append(True)
            assert early.take("a")
        return create(path)

    monkeypatch.setattr(leases, "_create", overtaken)
    before = lease_file(tmp_path).stat().st_ino
    assert not late.take("a")
    assert beaten
    assert lease_file(tmp_path).stat().st_ino != before
    early.beat()
    assert "a" in early._held, "the early thief keeps its lease"
    assert files(tmp_path) == ["a.json"]
    assert not process().take("a")


def test_without_hard_links_another_s_lease_is_put_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", unsupported)
    path = tmp_path / "a.json"
    path.write_bytes(b"another's")
    leases._take_away(path, "ours")
    assert path.read_bytes() == b"another's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_lease_stolen_from_us_is_neither_written_nor_deleted_by_us(
    tmp_path: Path, process: Process, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = process(), process(), process()
    one.take("a")
    assert not two.take("a")
    clock.now += EXPIRY + 1
    assert two.take("a"), "one was paused and did not beat"
    theirs = lease_file(tmp_path).read_bytes()
    one.beat()
    assert "our lease of this slide was taken away" in caplog.text
    one.release("a")
    assert lease_file(tmp_path).read_bytes() == theirs
    assert not three.take("a")


def test_a_release_just_as_the_lease_is_stolen_leaves_the_thief_s(
    tmp_path: Path, process: Process, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = process(), process()
    one.take("a")
    assert not two.take("a")
    clock.now += EXPIRY + 1
    take_away, beaten = leases._take_away, []

    def overtaken(path: Path, owner: str) -> None:
        if not beaten:
            beaten.append(True)
            assert two.take("a")
        take_away(path, owner)

    monkeypatch.setattr(leases, "_take_away", overtaken)
    one.release("a")
    assert beaten
    two.beat()
    assert "a" in two._held
    assert files(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"[" * 10**5, b"\xff\xfe", b'{"heartbeat": 1}', b"<html>"]
)
def test_a_lease_file_that_says_nothing_is_dead_after_the_expiry(
    tmp_path: Path, process: Process, clock: Clock, content: bytes
) -> None:
    (tmp_path / "leases").mkdir()
    lease_file(tmp_path).write_bytes(content)
    one = process()
    assert one.holder("a") is None
    assert not one.take("a"), "a writer may be half way through it"
    clock.now += EXPIRY + 1
    assert one.take("a")
    assert one.holder("a") is not None


@pytest.mark.parametrize("wrong", [{"pid": 10**30}, {"pid": -1}, {"pid": "1"}, {"host": 3}, {"machine": None}])
def test_a_lease_with_values_that_cannot_be_ends_like_any_other(
    tmp_path: Path, process: Process, clock: Clock, wrong: dict[str, Any]
) -> None:
    one, two = process(), process()
    one.take("a")
    dies(one)
    table = json.loads(lease_file(tmp_path).read_bytes())
    lease_file(tmp_path).write_text(json.dumps({**table, **wrong}))
    two.take("a")
    clock.now += EXPIRY + 1
    assert two.take("a")


@pytest.mark.skipif(not processes.machine(), reason="this system does not say which of its processes run")
def test_a_holder_on_this_machine_that_was_killed_is_dead_at_once(tmp_path: Path, process: Process) -> None:
    folder = tmp_path / "leases"
    arguments = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        one = process()
        assert not one.take("a")
        holder.kill()
        deadline = time.monotonic() + 10
        while not one.take("a"):  # also while it is a zombie
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.skipif(not processes.machine(), reason="this system does not say which of its processes run")
@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, False),
        ({"started": "1"}, True),
        ({"pid": 2**22 + 1}, True),
        ({"pid": 2**22 + 1, "machine": "another boot or container"}, False),
        ({"pid": 2**22 + 1, "machine": ""}, False),
    ],
    ids=["it runs", "its number was given again", "it has ended", "it is elsewhere", "nothing is known"],
)
def test_a_process_is_asked_for_only_where_its_number_means_something(
    tmp_path: Path, process: Process, change: dict[str, Any], dead: bool
) -> None:
    one, two = process(), process()
    one.take("a")
    dies(one)
    table = json.loads(lease_file(tmp_path).read_bytes())
    lease_file(tmp_path).write_text(json.dumps({**table, **change}))
    assert two.take("a") == dead


def test_a_process_hidden_from_us_is_taken_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_yours(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(processes.os, "kill", not_yours)
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    assert not processes.has_ended(4, "1")


@pytest.mark.parametrize("step", ["before its first byte", "before the theft"])
def test_a_thief_that_dies_between_its_steps_leaves_nothing_that_blocks(
    tmp_path: Path, process: Process, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    dead, thief, third = process(), process(), process()
    dead.take("a")
    dies(dead)
    assert not thief.take("a")
    clock.now += EXPIRY + 1

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        if step == "before its first byte":
            patch.setattr(leases.holders, "content", killed)
        else:
            patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            thief.take("a")
    left = files(tmp_path)
    assert len(left) == 2
    assert left[0].endswith(".heir")
    for _ in range(3):
        assert not third.take("a")
        clock.now += EXPIRY + 1
    assert third.take("a")
    assert files(tmp_path) == ["a.json"]


def test_a_sweep_takes_away_what_a_thief_left(tmp_path: Path, process: Process, clock: Clock) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / ".a.123456789abc.heir").write_bytes(b"")
    one = process()
    one.sweep()
    assert len(files(tmp_path)) == 1, "its maker may be about to rename it"
    clock.now += EXPIRY + 1
    one.sweep()
    assert files(tmp_path) == []


def test_where_leases_cannot_be_kept_it_is_said_once_and_the_work_goes_on(
    tmp_path: Path, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "leases").write_text("a file where the folder should be")
    one = process()
    assert one.take("a")
    assert one.take("b")
    one.beat()
    one.release("a")
    said = [record for record in caplog.records if "leases cannot be kept" in record.getMessage()]
    assert len(said) == 1


def test_what_is_no_folder_where_leases_belong_is_named(tmp_path: Path, process: Process) -> None:
    (tmp_path / "leases").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"leases is a file, and a folder.*Move it away"), process():
        pass


def test_a_disk_that_is_full_at_the_first_byte_leaves_no_lease(
    tmp_path: Path, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leases.os, "pwrite", full)
    assert process().take("a")
    assert files(tmp_path) == []


def test_a_heartbeat_that_cannot_be_written_is_said_once(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = process()
    one.take("a")

    def full(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(leases.os, "pwrite", full)
    one.beat()
    one.beat()
    assert caplog.text.count("leases cannot be kept") == 1


def test_a_sweep_takes_away_the_dead_and_leaves_the_living(
    tmp_path: Path, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmsurv")
    one, two = process(), process()
    two.sweep()
    one.take("a")
    one.take("b")
    table = json.loads(lease_file(tmp_path).read_bytes())
    if not table["machine"]:
        pytest.skip("this system does not say which of its processes run")
    lease_file(tmp_path).write_text(json.dumps({**table, "started": "1"}))
    two.sweep()
    assert files(tmp_path) == ["b.json"]
    assert f"the lease of process {os.getpid()}" in caplog.text


def test_an_id_that_would_leave_the_folder_is_refused(process: Process) -> None:
    with pytest.raises(BadSlideIdError, match="path separator"):
        process().take("../a")


def test_a_holder_is_written_field_by_field(tmp_path: Path, process: Process) -> None:
    process().take("a")
    table = json.loads(lease_file(tmp_path).read_bytes())
    assert set(table) == {"heartbeat", *(field.name for field in dataclasses.fields(Holder))}
