"""Atomic publication, killed at every stage."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmsurv.errors import StoreError
from mmsurv.store import FeatureStore, SlideRecord, create_store, open_store
from mmsurv.store.commit import publish
from mmsurv.store.factory import BACKENDS
from mmsurv.store.testing import RECIPE, make_record

STAGES = ["before write", "mid-write", "before fsync", "before check", "before publish", "after publish"]

KILLED_WRITER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from mmsurv.store import commit, create_store
    from mmsurv.store.testing import RECIPE, make_record

    stage, folder = sys.argv[1], Path(sys.argv[2])
    store = create_store(folder, recipe=RECIPE, dim=8, backend=sys.argv[3])
    die = lambda *a, **k: os.kill(os.getpid(), 9)
    if stage == "before write": store.write_file = die
    if stage == "mid-write":
        def half(path, record):
            type(store).write_file(store, path, record)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            die()
        store.write_file = half
    if stage == "before fsync": commit.flush_to_disk = die
    if stage == "before check": store._require_intact = die
    if stage == "before publish": commit.os.link = die
    if stage == "after publish": Path.unlink = die
    store.write(make_record())
""")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_writer_leaves_a_whole_record_or_none(stage: str, backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", KILLED_WRITER]
    killed = subprocess.run([*command, stage, str(folder), backend], env=environment, check=False)
    assert killed.returncode == -9, "the writer was not killed where it should have been"

    store = open_store(folder)
    assert ("slide-1" in store) == (stage == "after publish")
    subprocess.run([*command, "never", str(folder), backend], env=environment, check=True)
    assert store.slide_ids() == ["slide-1"]
    assert store.verify("slide-1") == []


def test_a_file_that_fails_its_check_is_not_published(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise ValueError("not what was written")

    with pytest.raises(ValueError, match="not what was written"):
        publish(tmp_path / "a", lambda path: path.write_text("x"), refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extend", [False, True], ids=["new", "extension"])
@pytest.mark.parametrize("stage", ["written", "checked"])
def test_a_temporary_file_that_someone_removes_is_written_again(
    stage: str, extend: bool, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8, backend=backend)
    if extend:
        store.write(make_record(tiles=10))
    step = "write_file" if stage == "written" else "_require_intact"
    original, removed = getattr(store, step), []

    def pruned(*arguments: object) -> None:
        original(*arguments)
        for leftover in store.leftovers() if not removed else []:
            leftover.unlink()
            removed.append(leftover)

    monkeypatch.setattr(store, step, pruned)
    assert store.write(make_record(tiles=30), extend=extend)
    assert len(removed) == 1
    assert store.n_tiles("slide-1") == 30
    assert store.verify("slide-1") == []
    assert store.leftovers() == []


def test_a_temporary_file_that_is_removed_each_time_is_not_written_for_ever(tmp_path: Path) -> None:
    def vanish(path: Path) -> None:
        path.write_text("x")
        path.unlink()

    with pytest.raises(StoreError, match=r"removed by another program 3 times.*Find out what removes files"):
        publish(tmp_path / "a", vanish, lambda path: None)


# Every writer stops where it would publish until all of them have come there.
TOGETHER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from mmsurv.store import commit, open_store, takeover
    from mmsurv.store.testing import make_record

    folder, meeting, name, tiles, n_writers = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), 4
    store = open_store(folder)
    home = takeover if name == "locked" else commit.os
    publishing = getattr(home, name)
    def together(*arguments):
        (meeting / f"{tiles}").touch()
        while len(list(meeting.iterdir())) < n_writers:
            time.sleep(0.001)
        return publishing(*arguments)
    setattr(home, name, together)
    print(store.write(make_record(tiles=tiles), extend=name == "locked"))
""")


def publish_together(tmp_path: Path, name: str) -> tuple[FeatureStore, list[str]]:
    (tmp_path / "meeting").mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(tmp_path / "store"), str(tmp_path / "meeting"), name, str(tiles)],
            stdout=subprocess.PIPE, text=True, env=environment,
        )
        for tiles in (20, 30, 40, 50)
    ]  # fmt: skip
    said = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    return open_store(tmp_path / "store"), said


def test_of_writers_at_the_same_moment_one_publishes(tmp_path: Path) -> None:
    create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    store, said = publish_together(tmp_path, "link")
    assert sorted(said) == ["False", "False", "False", "True"]
    assert store.n_tiles("slide-1") == (20, 30, 40, 50)[said.index("True")]
    assert store.verify("slide-1") == []
    assert store.leftovers() == []


def test_of_extensions_at_the_same_moment_the_longest_stays(tmp_path: Path) -> None:
    create_store(tmp_path / "store", recipe=RECIPE, dim=8).write(make_record(tiles=10))
    store, said = publish_together(tmp_path, "locked")
    assert said[-1] == "True"
    assert store.n_tiles("slide-1") == 50
    assert store.verify("slide-1") == []
    assert store.leftovers() == []


def test_an_extension_that_was_overtaken_is_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer extends the record further while this one is still writing: the larger one stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    store.write(make_record(tiles=10))
    writing = store.write_file

    def overtaken(path: Path, record: SlideRecord) -> None:
        monkeypatch.undo()
        open_store(store.path).write(make_record(tiles=50), extend=True)
        writing(path, record)

    monkeypatch.setattr(store, "write_file", overtaken)
    assert not store.write(make_record(tiles=30), extend=True)
    assert store.n_tiles("slide-1") == 50
    assert store.leftovers() == []
