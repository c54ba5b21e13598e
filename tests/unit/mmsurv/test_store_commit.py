"""Atomic publication, killed at every stage."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmsurv.store import open_store
from mmsurv.store.commit import publish

STAGES = ["before write", "mid-write", "before fsync", "before check", "before publish", "after publish"]

KILLED_WRITER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from mmsurv.store import commit, create_store, hdf5
    from mmsurv.store.testing import RECIPE, make_record

    stage, folder = sys.argv[1], Path(sys.argv[2])
    store = create_store(folder, recipe=RECIPE, dim=8)
    die = lambda *a, **k: os.kill(os.getpid(), 9)
    if stage == "before write": store.write_file = die
    if stage == "mid-write":
        def half(path, record):
            hdf5.Hdf5Store.write_file(store, path, record)
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


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_writer_leaves_a_whole_record_or_none(stage: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, stage, str(folder)], env=environment, check=False)
    assert killed.returncode == -9, "the writer was not killed where it should have been"

    store = open_store(folder)
    assert ("slide-1" in store) == (stage == "after publish")
    subprocess.run([sys.executable, "-c", KILLED_WRITER, "never", str(folder)], env=environment, check=True)
    assert store.slide_ids() == ["slide-1"]
    assert store.verify("slide-1") == []


def test_a_file_that_fails_its_check_is_not_published(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise ValueError("not what was written")

    with pytest.raises(ValueError, match="not what was written"):
        publish(tmp_path / "a", lambda path: path.write_text("x"), refuse)
    assert list(tmp_path.iterdir()) == []


def test_of_many_writers_one_publishes(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    script = KILLED_WRITER.replace("store.write(make_record())", "print(store.write(make_record()))")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, "never", str(folder)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    said = [writer.communicate()[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert sorted(said) == ["False", "False", "False", "True"]
    store = open_store(folder)
    assert store.verify("slide-1") == []
    assert store.leftovers() == []
