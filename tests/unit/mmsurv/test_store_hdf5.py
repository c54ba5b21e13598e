"""A record's HDF5 file as others see it."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from mmsurv.errors import CorruptRecordError
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


def unfilled(file: h5py.File) -> None:
    file.create_dataset("tissue", (10**12,), np.float32)


def unfilled_mask(file: h5py.File) -> None:
    file.create_dataset("mask", (1 << 24, 1 << 24), np.uint8, chunks=(1 << 10, 1 << 10), compression="gzip")


def half_a_mask(file: h5py.File) -> None:
    file.create_dataset("mask", (20, 30), np.uint8, chunks=(10, 30), compression="gzip")
    file["mask"][:10] = 1


def mask_that_unfolds_on(file: h5py.File) -> None:
    file.create_dataset("mask", (20, 30), np.uint8, chunks=(20, 30), compression="gzip")
    file["mask"].id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26)))


def compressed_features(file: h5py.File) -> None:
    file.create_dataset("features", data=np.zeros((60, 8), np.float32), compression="gzip")


def scaled_coords(file: h5py.File) -> None:
    file.create_dataset("coords", data=np.zeros((60, 2), np.int32), scaleoffset=0)


def elsewhere(file: h5py.File) -> None:
    file["coords"] = h5py.ExternalLink("other.h5", "/coords")


def nearby(file: h5py.File) -> None:
    file["coords"] = h5py.SoftLink("/rejected")


def raw_file(file: h5py.File) -> None:
    file.create_dataset("coords", (60, 2), np.int32, external=[("/etc/passwd", 0, 480)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((60, 2), np.int32)
    layout[:] = h5py.VirtualSource("other.h5", "coords", (60, 2))
    file.create_virtual_dataset("coords", layout)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tissue", unfilled, "tissue claim 4000000000000 bytes, the file holds 0 of them"),
        ("mask", unfilled_mask, r"mask is \(16777216, 16777216\), expected no more than 67108864 values"),
        ("mask", half_a_mask, "mask claim 600 bytes, the file holds [0-9]+ of them"),
        ("mask", mask_that_unfolds_on, "what should unfold to 600 bytes does not"),
        ("features", compressed_features, "features is not bytes compressed by gzip alone"),
        ("coords", scaled_coords, "coords is filtered, expected plain values"),
        ("coords", elsewhere, "coords is a link to elsewhere"),
        ("coords", nearby, "coords is a link to elsewhere"),
        ("coords", raw_file, "coords is kept in other files"),
        ("coords", virtual, "coords is kept in other files"),
    ],
)
def test_values_that_are_not_all_in_the_file_are_refused(store: FeatureStore, name: str, change, message: str) -> None:
    path = store.record_path("slide-1")
    with h5py.File(path, "r+") as file:
        del file[name]
        change(file)
    with pytest.raises(CorruptRecordError, match=rf"slide-1\.h5 is not a readable record: {message}"):
        store.read_file(path)
    assert re.search(message, store.verify("slide-1")[0])


def test_a_mask_of_many_chunks_is_read_as_h5py_reads_it(store: FeatureStore) -> None:
    path = store.record_path("slide-1")
    mask = np.random.default_rng(0).integers(0, 3, (107, 211), np.uint8)
    with h5py.File(path, "r+") as file:
        del file["mask"]
        file.create_dataset("mask", data=mask, chunks=(25, 40), compression="gzip")
    found = store.read_file(path).mask
    assert found is not None
    np.testing.assert_array_equal(found, mask)
