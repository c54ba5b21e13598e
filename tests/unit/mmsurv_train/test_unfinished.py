"""A training that was stopped is gone on with by the same request, refused to another, and forgotten when done."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsurv.errors import RunError
from mmsurv_train.unfinished import REQUEST, Unfinished

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
    assert caplog.text == ""


def test_another_request_is_refused_field_by_field_and_changes_nothing(stopped) -> None:
    other = {"recipes": {"run": {"fit": {"epochs": 5, "seed": 0}}}, "digests": {"clinical": "b" * 64}}
    with (
        pytest.raises(RunError, match=r"recipes\.run\.fit\.epochs  3 +→ 5\n.*delete that folder") as refused,
        stopped.going_on(other),
    ):
        pytest.fail("the block must not run")
    assert "digests.clinical" in str(refused.value)
    assert "seed" not in str(refused.value)
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


def test_a_request_that_was_damaged_is_named(stopped) -> None:
    (stopped.folder / REQUEST).write_text("{")
    with pytest.raises(RunError, match=r"request\.json: not JSON"), stopped.going_on(ASKED):
        pytest.fail("the block must not run")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"), Unfinished(tmp_path / "file" / "folder").going_on(ASKED):
        pytest.fail("the block must not run")
