"""A training that was stopped is gone on with by the same request, refused to another, and forgotten when done."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest
import torch

from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.unfinished import REQUEST, Unfinished, threads

ASKED = {"recipes": {"run": {"fit": {"epochs": 3, "seed": 0}}}, "digests": {"clinical": "a" * 64}}


def stop(unfinished: Unfinished, *, with_state: bool) -> None:
    """Begin a training and be interrupted, before or after its state was first kept."""
    with unfinished.going_on(ASKED) as checkpoint:
        if with_state:
            checkpoint.folder.mkdir(parents=True)
            (checkpoint.folder / "state").write_text("epoch 2")
        raise KeyboardInterrupt("by the user")


@pytest.fixture
def stopped(tmp_path: Path) -> Unfinished:
    unfinished = Unfinished(tmp_path / ".run.checkpoint")
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        stop(unfinished, with_state=True)
    return unfinished


def test_the_state_of_a_stopped_training_is_kept_for_the_same_request(stopped, caplog) -> None:
    assert stopped.request() == ASKED
    with stopped.going_on(ASKED) as checkpoint:
        assert (checkpoint.folder / "state").read_text() == "epoch 2"
    stopped.delete()
    assert not stopped.folder.exists()
    assert stopped.request() is None


def test_stopping_says_where_the_state_is(tmp_path: Path, caplog) -> None:
    unfinished = Unfinished(tmp_path / ".run.checkpoint")
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        stop(unfinished, with_state=True)
    assert f"the same command goes on from {unfinished.folder}" in caplog.text


def test_a_training_that_was_stopped_before_it_had_a_state_leaves_nothing(tmp_path: Path, caplog) -> None:
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        stop(Unfinished(tmp_path / ".run.checkpoint"), with_state=False)
    assert list(tmp_path.iterdir()) == []
    assert "Nothing of the training was kept yet: the same command begins anew." in caplog.text


def test_a_training_that_failed_before_it_had_a_state_leaves_nothing_and_says_nothing(tmp_path: Path, caplog) -> None:
    with pytest.raises(RunError, match="no good"), Unfinished(tmp_path / ".run.checkpoint").going_on(ASKED):
        raise RunError("no good")
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""


def test_a_training_that_was_killed_before_it_had_a_state_binds_nobody(tmp_path: Path) -> None:
    unfinished = Unfinished(tmp_path / ".run.checkpoint")
    unfinished.folder.mkdir()
    (unfinished.folder / REQUEST).write_text('{"epochs": 3, "threads": 7}')
    assert unfinished.request() is None
    with unfinished.going_on({"epochs": 5}):
        assert torch.get_num_threads() != 7


def test_a_training_goes_on_with_the_threads_it_was_begun_with(tmp_path: Path, caplog) -> None:
    unfinished = Unfinished(tmp_path / ".run.checkpoint")
    now = torch.get_num_threads()
    with threads(now + 1), pytest.raises(KeyboardInterrupt, match="by the user"):
        stop(unfinished, with_state=True)
    with unfinished.going_on(ASKED):
        assert torch.get_num_threads() == now + 1
    assert torch.get_num_threads() == now
    assert f"goes on with {now + 1} threads, the number it was begun with" in caplog.text
    with threads(now + 2), unfinished.going_on(ASKED):
        assert torch.get_num_threads() == now + 1  # the first number stays


def test_two_trainings_at_one_place_are_refused_by_its_name_and_the_first_goes_on(tmp_path: Path) -> None:
    unfinished = Unfinished(tmp_path / ".run.checkpoint")
    with unfinished.going_on(ASKED):
        with (
            pytest.raises(RunError, match=r"another mmsurv is training there; .*\.run\.checkpoint\. Wait for it"),
            Unfinished(tmp_path / ".run.checkpoint").going_on(ASKED),
        ):
            pytest.fail("the block must not run")
        assert (unfinished.folder / REQUEST).is_file()
        unfinished.delete()
    with unfinished.going_on(ASKED):
        assert (unfinished.folder / REQUEST).is_file()


def test_whoever_gets_the_lock_of_a_folder_that_was_deleted_meanwhile_locks_the_new_one(
    tmp_path: Path, monkeypatch
) -> None:
    unfinished, flock = Unfinished(tmp_path / ".run.checkpoint"), fcntl.flock
    taken = []

    def late(file, how) -> None:
        flock(file, how)
        if not taken:
            unfinished.delete()  # by the process that held it
        taken.append(file)

    monkeypatch.setattr(fcntl, "flock", late)
    with (
        unfinished.going_on(ASKED),
        pytest.raises(RunError, match="another mmsurv is training there"),
        unfinished.going_on(ASKED),
    ):
        pytest.fail("the block must not run")
    assert len(taken) == 2


def test_another_request_is_refused_field_by_field_and_changes_nothing(stopped, caplog) -> None:
    caplog.clear()
    other = {"recipes": {"run": {"fit": {"epochs": 5, "seed": 0}}}, "digests": {"clinical": "b" * 64}}
    with (
        pytest.raises(RunError, match=r"recipes\.run\.fit\.epochs  3 +→ 5\n.*delete that folder") as refused,
        stopped.going_on(other),
    ):
        pytest.fail("the block must not run")
    assert "digests.clinical" in str(refused.value)
    assert "seed" not in str(refused.value)
    assert caplog.text == ""
    assert stopped.request() == ASKED
    assert (stopped.folder / "state" / "state").is_file()


def test_another_request_has_another_identity(tmp_path: Path) -> None:
    identities = []
    for epochs in (3, 3, 5):
        unfinished = Unfinished(tmp_path / "folder")
        with unfinished.going_on({"epochs": epochs}) as checkpoint:
            identities.append(checkpoint.identity)
        unfinished.delete()
    assert identities[0] == identities[1] != identities[2]


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    unfinished = Unfinished(tmp_path / ".run.checkpoint")
    with pytest.raises(RunError, match=r"cannot be written \(No space left"), unfinished.going_on(ASKED):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == []


def test_a_request_without_its_threads_is_named(stopped) -> None:
    (stopped.folder / REQUEST).write_text("{}")
    with pytest.raises(RunError, match=r"request\.json: damaged, it has no number of threads"), stopped.going_on(ASKED):
        pytest.fail("the block must not run")


def test_a_request_that_was_damaged_is_named(stopped) -> None:
    (stopped.folder / REQUEST).write_text("{")
    with pytest.raises(RunError, match=r"request\.json: not JSON"), stopped.going_on(ASKED):
        pytest.fail("the block must not run")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"), Unfinished(tmp_path / "file" / "folder").going_on(ASKED):
        pytest.fail("the block must not run")
