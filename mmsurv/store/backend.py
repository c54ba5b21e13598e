"""What a backend of the store (``hdf5``, ``zarr_zip``) says: how one record becomes one file and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmsurv.store.extent import Extent
from mmsurv.store.record import Scalar, SlideRecord


class Backend(ABC):
    """One file per record. Knows nothing of publication, recipes or checksums."""

    backend: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def write_file(self, path: Path, record: SlideRecord) -> None:
        """Write one record, with its attributes complete, as a new file at ``path``."""

    @abstractmethod
    def read_file(self, path: Path) -> SlideRecord:
        """Read a whole record with all its attributes. Raises CorruptRecordError if it cannot be read."""

    @abstractmethod
    def read_attributes(self, path: Path) -> dict[str, Scalar]:
        """Read a record's attributes only. Raises CorruptRecordError if they cannot be read."""

    @abstractmethod
    def read_extent(self, path: Path) -> Extent | None:
        """Where the features lie as plain bytes, or None if they do not."""

    @abstractmethod
    def read_shape(self, path: Path) -> tuple[int, int]:
        """Shape (N, D) of the features, without reading them."""

    @abstractmethod
    def read_rows(self, path: Path, rows: slice) -> np.ndarray:
        """Some rows of the features, in the store's dtype."""

    def problems_for_others(self, path: Path, record: SlideRecord) -> list[str]:
        """What another program would find different in a file that ``read_file`` read as this record.

        For backends whose files are not read by the format's own library; ``mmsurv store verify`` asks.
        """
        return []
