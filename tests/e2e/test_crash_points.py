"""``kill -9`` at every stage of a commit, of new records and of extensions, in both backends.

The killed processes are forks of one that has loaded everything, each killed by itself at its stage.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mmsurv.demo.tissue import write_slide
from mmsurv.store import FeatureStore, open_store
from mmsurv_extract.testing import asking_for, see_through_job, see_through_store

STAGES = ["before write", "mid-write", "before fsync", "before check", "before publish", "after publish"]
FEW, MANY = 10, 30

KILLED = textwrap.dedent("""
    import json, os, signal, sys
    from pathlib import Path

    from mmsurv.store import commit, open_store
    from mmsurv_extract import testing

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def sabotage(stage, store, extending):
        kind = type(store)
        if stage == "before write":
            kind.write_file = die
        elif stage == "mid-write":
            whole = kind.write_file
            def half(self, path, record):
                whole(self, path, record)
                os.truncate(path, path.stat().st_size // 2)
                die()
            kind.write_file = half
        elif stage == "before fsync":
            flush = commit.flush_to_disk
            # A file of the store; the folder is flushed after publishing, and leases are not by this.
            commit.flush_to_disk = lambda path: die() if path.name.endswith(commit.PARTIAL) else flush(path)
        elif stage == "before check":
            read = kind.read_file
            kind.read_file = lambda self, path: die() if path.name.endswith(commit.PARTIAL) else read(self, path)
        else:
            home, name = (Path, "replace") if extending else (os, "link")
            publish = getattr(home, name)
            def published(*arguments):
                if stage == "after publish":
                    publish(*arguments)
                die()
            setattr(home, name, published)

    slides, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
    # Once undisturbed, so that what is loaded late is loaded here and not in every fork.
    testing.see_through_job([slides], testing.see_through_store(Path(sys.argv[3])), testing.asking_for(1))
    codes = []
    for path, stage, tiles, extending in plan:
        child = os.fork()
        if not child:
            sys.stderr.close()
            recipe = testing.asking_for(tiles)
            store = open_store(path)
            sabotage(stage, store, extending)
            testing.see_through_job([slides], store, recipe)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))
""")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    uneven = np.random.default_rng(0).integers(-30, 30, (16, 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
    write_slide(folder / "a.tiff", np.clip(np.array([190, 110, 160]) + uneven, 0, 255).astype(np.uint8), mpp=0.5)
    return folder


@pytest.fixture(scope="module")
def crashed(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool, str], Path]:
    """A store for each backend, kind of commit and stage, as the process that was killed there left it."""
    folder = tmp_path_factory.mktemp("crashed")
    stores, plan = {}, []
    for backend in ("hdf5", "zarr"):
        see_through_job([slides], see_through_store(folder / backend, backend=backend), asking_for(FEW))
        for extending in (False, True):
            for stage in STAGES:
                path = folder / f"{backend}-{extending}-{stage}"
                if extending:
                    shutil.copytree(folder / backend, path)
                else:
                    see_through_store(path, backend=backend)
                stores[backend, extending, stage] = path
                plan.append((str(path), stage, MANY, extending))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(slides), json.dumps(plan), str(folder / "first")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    codes = json.loads(done.stdout)
    assert codes == [-9] * len(plan), f"not all were killed where they should have been: {codes}"
    return stores


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    store = see_through_store(tmp_path_factory.mktemp("undisturbed") / "store")
    see_through_job([slides], store, asking_for(MANY))
    return store


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("extending", [False, True], ids=["new", "extension"])
@pytest.mark.parametrize("backend", ["hdf5", "zarr"])
def test_a_killed_commit_leaves_the_slide_whole_or_as_it_was_and_the_same_command_finishes(
    backend: str,
    extending: bool,
    stage: str,
    slides: Path,
    crashed: dict[tuple[str, bool, str], Path],
    undisturbed: FeatureStore,
) -> None:
    store = open_store(crashed[backend, extending, stage])
    published = stage == "after publish"
    held = MANY if published else FEW if extending else 0
    assert ("a" in store) == (held > 0)
    if held:
        assert store.verify("a") == []
        assert store.n_tiles("a") == held
        np.testing.assert_array_equal(store.features("a"), undisturbed.features("a")[:held])
    # An extension may leave the second name of the record that was there too.
    assert len(store.leftovers()) <= 1 + extending
    summary = see_through_job([slides], store, asking_for(MANY))
    did = {0: "done", FEW: "extended", MANY: "skipped"}[held]
    assert getattr(summary, did) == ["a"]
    assert summary.failed == []
    assert store.verify("a") == []
    ours, theirs = store.read("a"), undisturbed.read("a")
    for name in ("features", "coords", "tissue", "rejected", "rejected_reason", "mask"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert list((store.path / "leases").iterdir()) == [], "the dead process's lease is nobody's trouble"
