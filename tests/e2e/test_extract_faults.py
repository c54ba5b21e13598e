"""What is left of ``mmsurv extract`` when it is killed, stopped, or runs out of disk, and how it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsurv.demo.tissue import write_slide
from mmsurv.store import FeatureStore, open_store

N_SLIDES = 2
OPTIONS = ("--encoder", "resnet18", "--weights", "random", "--tile-px", "64", "--batch-size", "8", "--device", "cpu")
PATIENCE_S = 120


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of tissue, each a second or more of work."""
    folder = tmp_path_factory.mktemp("slides")
    for i in range(N_SLIDES):
        rng = np.random.default_rng(i)
        uneven = rng.integers(-30, 30, (64, 64, 3)).repeat(16, axis=0).repeat(16, axis=1)
        rgb = np.clip(np.array([190, 110, 160]) + uneven, 0, 255).astype(np.uint8)
        write_slide(folder / f"{i}.tiff", rgb, mpp=0.5)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store of a run in which nothing happened."""
    path = tmp_path_factory.mktemp("undisturbed") / "store"
    assert finish(start(slides, path))[0] == 0
    return open_store(path)


def start(slides: Path, store: Path, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    """``mmsurv extract`` as a process of its own; ``limit_bytes`` bounds the size of any file it writes."""
    code = "from mmsurv.cli import main; main()"
    if limit_bytes is not None:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes},) * 2); {code}"
    arguments = [sys.executable, "-c", code, "extract", str(slides), "-o", str(store), *OPTIONS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same sums in the same order in every run
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that ends by itself."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def wait_for_second_slide(process: subprocess.Popen[str], store: Path) -> None:
    """Return while the second slide is being encoded: the first is just in the store."""
    deadline = time.monotonic() + PATIENCE_S
    while not (store / "slides" / "0.h5").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)


def assert_same(store: FeatureStore, expected: FeatureStore) -> None:
    assert store.slide_ids() == expected.slide_ids()
    assert store.failures() == []
    for slide_id in expected.slide_ids():
        ours, theirs = store.read(slide_id), expected.read(slide_id)
        assert ours.attributes["record_sha256"] == theirs.attributes["record_sha256"]
        np.testing.assert_array_equal(ours.features, theirs.features)


def test_kill_9_in_a_slide_and_the_same_command_again_is_as_if_nothing_had_happened(
    slides: Path, tmp_path: Path, undisturbed: FeatureStore
) -> None:
    process = start(slides, tmp_path / "store")
    wait_for_second_slide(process, tmp_path / "store")
    process.kill()
    process.communicate()
    store = open_store(tmp_path / "store")
    assert store.slide_ids() == ["0"], "the kill was to come while the second slide was encoded"
    assert store.verify("0") == []
    code, _, err = finish(start(slides, tmp_path / "store"))
    assert code == 0
    assert "0: in the store already" in err
    assert_same(store, undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_drops_the_slide_in_flight_and_leaves_a_whole_store(
    slides: Path, tmp_path: Path, undisturbed: FeatureStore, number: signal.Signals, code: int
) -> None:
    process = start(slides, tmp_path / "store")
    wait_for_second_slide(process, tmp_path / "store")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "1 slides encoded" in out
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    store = open_store(tmp_path / "store")
    assert store.slide_ids() == ["0"]
    assert store.leftovers() == []
    assert store.failures() == []
    np.testing.assert_array_equal(store.read("0").features, undisturbed.read("0").features)


def test_a_file_size_limit_stops_the_job_and_nothing_half_written_stays(
    slides: Path, tmp_path: Path, undisturbed: FeatureStore
) -> None:
    size = undisturbed.record_path("0").stat().st_size
    code, _, err = finish(start(slides, tmp_path / "store", limit_bytes=size // 2))
    assert code == 1
    assert "StoreError" in err
    assert "cannot be written: File too large. Slide 0 was dropped" in err
    assert "Traceback" not in err
    store = open_store(tmp_path / "store")
    assert store.slide_ids() == []
    assert store.leftovers() == []


@pytest.fixture
def small_disk(tmp_path: Path, undisturbed: FeatureStore) -> Iterator[Path]:
    """A tmpfs with room for one slide and a half."""
    size = undisturbed.record_path("0").stat().st_size
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1.5 * size)}", "tmpfs", str(point)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_a_full_disk_stops_the_job_and_with_more_room_it_goes_on(
    slides: Path, small_disk: Path, undisturbed: FeatureStore
) -> None:
    code, _, err = finish(start(slides, small_disk / "store"))
    assert code == 1
    assert "cannot be written: No space left on device. Slide 1 was dropped" in err
    assert "Make room" in err
    assert "Traceback" not in err
    store = open_store(small_disk / "store")
    assert store.slide_ids() == ["0"]
    assert store.verify("0") == []
    assert store.leftovers() == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert finish(start(slides, small_disk / "store"))[0] == 0
    assert_same(store, undisturbed)
