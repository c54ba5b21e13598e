"""A run goes to a free place, whole or not at all."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from mmsurv.errors import RunError
from mmsurv_train import place
from mmsurv_train import run as runs


def complete(folder: Path) -> None:
    """What tells a run, and one more file."""
    runs.write_json(folder / runs.METRICS, {})
    runs.write_csv(folder / runs.HISTORY, pd.DataFrame({"epoch": [1]}))


def test_an_interrupted_run_leaves_nothing(tmp_path) -> None:
    def interrupted() -> None:
        with place.new_run(tmp_path / "run") as folder:
            complete(folder)
            raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_overwritten(tmp_path) -> None:
    with place.new_run(tmp_path / "run") as folder:
        complete(folder)
    before = (tmp_path / "run" / runs.HISTORY).read_bytes()
    with pytest.raises(RunError, match="already holds a run"), place.new_run(tmp_path / "run"):
        pytest.fail("the block must not run")
    assert (tmp_path / "run" / runs.HISTORY).read_bytes() == before


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_is_used(tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("draft")
    with pytest.raises(RunError, match="is not empty"):
        place.check_free(tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        place.check_free(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with place.new_run(tmp_path / "empty") as folder:
        complete(folder)
    assert (tmp_path / "empty" / runs.METRICS).is_file()


def test_a_place_that_cannot_be_made_is_refused_and_nothing_is_left(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for taken in (tmp_path / "file" / "sub", tmp_path / "file" / "sub" / "run", tmp_path / "new" / ("x" * 300) / "run"):
        with pytest.raises(RunError, match=r"cannot be written .*name another place with -o"):
            place.check_free(taken)
    with pytest.raises(RunError, match="names no folder of its own"):
        place.check_free(tmp_path / "..")
    place.check_free(tmp_path / "several" / "new" / "folders")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_in_is_refused_before_the_work(tmp_path, monkeypatch) -> None:
    def refused(**_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(RunError, match=r"run: cannot be written \(Permission denied\)"):
        place.check_free(tmp_path / "run")


def test_a_full_disk_is_an_error_of_the_run_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (
        lambda folder: runs.write_csv(folder / runs.HISTORY, pd.DataFrame({"epoch": [1]})),
        lambda folder: runs.write_weights(folder, {"w": torch.ones(2)}),
    ):
        with pytest.raises(RunError, match="No space left on device"), place.new_run(tmp_path / "run") as folder:
            write(folder)
    assert list(tmp_path.iterdir()) == []


def test_every_file_and_folder_is_flushed_and_the_parent_after_the_rename(tmp_path, monkeypatch) -> None:
    flushed: list[tuple[str, bool]] = []
    monkeypatch.setattr(place, "flush_to_disk", lambda path: flushed.append((path.name, (tmp_path / "run").exists())))
    with place.new_run(tmp_path / "run") as folder:
        (folder / "fold-0").mkdir()
        (folder / "fold-0" / "x.csv").write_text("1\n")
    assert [name for name, _ in flushed[:2]] == ["fold-0", "x.csv"]
    assert flushed[2][0].startswith(".run.partial-")
    assert flushed[3:] == [(tmp_path.name, True)]
    assert not any(renamed for _, renamed in flushed[:3])


def test_a_place_taken_while_the_run_was_made_is_not_replaced(tmp_path) -> None:
    def overtaken() -> None:
        with place.new_run(tmp_path / "run") as folder:
            complete(folder)
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "other").write_text("someone else's")

    with pytest.raises(RunError, match="was it made meanwhile"):
        overtaken()
    assert (tmp_path / "run" / "other").read_text() == "someone else's"
