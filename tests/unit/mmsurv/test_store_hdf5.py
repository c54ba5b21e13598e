"""A record's HDF5 file as others see it."""

import subprocess
import sys
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from mmsurv.store import FeatureStore, create_store
from mmsurv.store.testing import RECIPE, make_record


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = create_store(tmp_path / "store", recipe=RECIPE, dim=8, dtype="bfloat16")
    opened.write(make_record())
    return opened


def test_plain_h5py_reads_bfloat16_as_float32_of_the_same_values(store: FeatureStore) -> None:
    with h5py.File(store.record_path("slide-1")) as file:
        assert file["features"].dtype == np.float32
        values = file["features"][:]
    np.testing.assert_array_equal(values, make_record().features.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_float32_dataset_in_a_bfloat16_store_is_not_taken_for_bfloat16(store: FeatureStore) -> None:
    """h5py says float32 of both, so what is on disk is asked for."""
    path = store.record_path("slide-1")
    with h5py.File(path, "r+") as file:
        values = file["features"][:]
        del file["features"]
        file["features"] = values
    assert store.read_file(path).features.dtype == np.float32
    assert "not the bytes that were written" in store.verify("slide-1")[0]


def test_a_record_is_read_while_another_process_holds_a_lock_on_it(store: FeatureStore) -> None:
    """HDF5 locks files by default, also on network file systems where that fails or hangs."""
    path = store.record_path("slide-1")
    lock = f"import fcntl\nfile = open({str(path)!r})\nfcntl.flock(file, fcntl.LOCK_EX)"
    holder = f"{lock}\nprint('held', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="lock"):
            h5py.File(path, "r", locking=True)
        np.testing.assert_array_equal(store.features("slide-1"), store.read("slide-1").features)
        other.communicate("\n", timeout=60)
