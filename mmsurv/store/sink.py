"""A file that HDF5 can be let write to when the disk may be full.

Owns the hand-over of write errors. When a write fails, HDF5 can neither finish nor close its file: it raises
RuntimeError from destructors and in the end takes the process down. So it is told that all went well, and the error
is raised once it has let go of the file.
"""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Any


class Sink(io.RawIOBase):
    """A new file, for h5py's file-object driver. Use as a context manager around the ``h5py.File``.

    Raises:
        OSError: on leaving the context: the first write that failed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)
        self._error: OSError | None = None

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._remember(error)
            return size or 0

    def write(self, data: Any) -> int:
        left = memoryview(data)
        size = left.nbytes
        try:
            while left.nbytes:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._remember(error)
        return size

    def _remember(self, error: OSError) -> None:
        self._error = self._error or error
