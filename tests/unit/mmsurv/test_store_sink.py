from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmsurv.store.sink import Sink


class FullDisk:
    """A raw file on a disk with room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file = file
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        if self._file.tell() + len(data) > self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)


def write(sink: Sink) -> None:
    with sink, h5py.File(sink, "w", libver=("v110", "v110")) as file:
        file.attrs.update({f"attribute {i}": "x" * 50 for i in range(30)})
        file.create_dataset("features", data=np.ones((100, 64), np.float16))
        file.create_dataset("mask", data=np.eye(64, dtype=np.uint8), compression="gzip")


def test_what_hdf5_writes_to_a_sink_is_an_hdf5_file(tmp_path: Path) -> None:
    write(Sink(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"][()].sum() == 6400
        assert len(file.attrs) == 30


@pytest.mark.parametrize("room", [0, 100, 1000, 5000, 12000, 15000])
def test_a_full_disk_is_one_plain_error_wherever_it_strikes(tmp_path: Path, room: int) -> None:
    sink = Sink(tmp_path / "a.h5")
    sink._file = FullDisk(sink._file, room)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left on device") as raised:
        write(sink)
    assert raised.value.errno == errno.ENOSPC


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"a\.h5"):
        Sink(tmp_path / "a.h5")
