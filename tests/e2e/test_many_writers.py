"""Several processes on one store, some of which are killed. No torch: the encoder is one that can be seen through."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmsurv.demo.tissue import write_slide
from mmsurv.store import FeatureStore, open_store, processes

N_SLIDES = 40
PATIENCE_S = 120


def write_small_slides(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        uneven = np.random.default_rng(i).integers(-30, 30, (8, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)
        rgb = np.clip(np.array([190, 110, 160]) + uneven, 0, 255).astype(np.uint8)
        write_slide(folder / f"slide-{i:02d}.tiff", rgb, mpp=0.5, levels=1)
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_slides(tmp_path_factory.mktemp("many") / "slides", N_SLIDES)


def start(slides: Path, store: Path, *options: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "mmsurv_extract.testing", slides, "-o", store, *options]
    return subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> dict[str, list[str]]:
    """The summary of a process that ends by itself and well."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return json.loads(out)


def wait_until_all_work(crew: list[subprocess.Popen[str]], store: Path) -> None:
    """Return when each process of the crew has been seen to hold a lease."""
    deadline = time.monotonic() + PATIENCE_S
    seen: set[int] = set()
    while not {process.pid for process in crew} <= seen:
        assert time.monotonic() < deadline
        for path in (store / "leases").glob("*.json"):
            try:
                seen.add(json.loads(path.read_bytes())["pid"])
            except (OSError, ValueError):
                continue  # gone, or being written
        time.sleep(0.01)


def assert_whole(store: FeatureStore, expected: FeatureStore) -> None:
    assert store.slide_ids() == expected.slide_ids()
    assert store.failures() == []
    for slide_id in expected.slide_ids():
        assert store.verify(slide_id) == []
        np.testing.assert_array_equal(store.features(slide_id), expected.features(slide_id))


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("undisturbed") / "store"
    assert len(finish(start(slides, path))["done"]) == N_SLIDES
    return open_store(path)


@pytest.mark.skipif(not processes.machine(), reason="this system does not say which of its processes run")
def test_of_four_processes_two_are_killed_and_no_slide_is_missing_half_or_done_twice(
    slides: Path, tmp_path: Path, undisturbed: FeatureStore
) -> None:
    path = tmp_path / "store"
    crew = [start(slides, path, "--batch-size", 4, "--seconds", 0.05) for _ in range(4)]
    wait_until_all_work(crew, path)
    for victim in crew[:2]:
        assert victim.poll() is None, "the kill was to come in the middle"
        victim.kill()
    survivors = [finish(process) for process in crew[2:]]
    for victim in crew[:2]:
        victim.communicate()
    store = open_store(path)
    assert_whole(store, undisturbed)
    one, two = (set(summary["done"]) for summary in survivors)
    assert one.isdisjoint(two), "no slide was encoded twice"
    assert one
    assert two
    for summary in survivors:
        assert sorted(summary["done"] + summary["skipped"]) == store.slide_ids()
    assert len(store.leftovers()) <= 2
    assert list((path / "leases").iterdir()) == []


def test_without_leases_two_processes_get_in_each_other_s_way_and_the_store_is_whole(tmp_path: Path) -> None:
    slides, path = write_small_slides(tmp_path / "slides", 8), tmp_path / "store"
    finish(start(slides, tmp_path / "undisturbed"))
    path.mkdir()
    shutil.copy(tmp_path / "undisturbed" / "store.json", path)
    (path / "leases").symlink_to("/proc")  # a folder in which nothing can be made, not even by root
    summaries = [finish(process) for process in [start(slides, path) for _ in range(2)]]
    assert_whole(open_store(path), open_store(tmp_path / "undisturbed"))
    assert open_store(path).leftovers() == []
    for summary in summaries:
        assert len(summary["done"]) + len(summary["skipped"]) == 8


def test_processes_that_ask_for_more_and_for_fewer_tiles_leave_the_larger_number(tmp_path: Path) -> None:
    slides, path = write_small_slides(tmp_path / "slides", 6), tmp_path / "store"
    finish(start(slides, path, "--tiles", 2))
    for process in [start(slides, path, "--tiles", tiles) for tiles in (12, 5)]:
        finish(process)
    store = open_store(path)
    assert [store.n_tiles(slide_id) for slide_id in store.slide_ids()] == [12] * 6
    assert [store.verify(slide_id) for slide_id in store.slide_ids()] == [[]] * 6
