"""What a store holds that is of no more use.

Owns that judgement. A record is never among it, nor anything a living writer may still need: such a file is younger
than the age that is given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsurv.errors import MmsurvError
from mmsurv.store.base import FeatureStore
from mmsurv.store.commit import PARTIAL

FOLDERS = ("", "slides", "failures", "leases")
"""Where writers put temporary files, below the store."""


@dataclass(frozen=True)
class Useless:
    """A file that may go."""

    path: Path
    reason: str
    size: int


def useless(store: FeatureStore, *, older_than_s: float) -> Iterator[Useless]:
    """Files that may go.

    Args:
        store: the store.
        older_than_s: seconds since a temporary file or a lease was last written to.
    """
    before = time.time() - older_than_s
    for folder in FOLDERS:
        for path in _files(store.path / folder, f".*{PARTIAL}"):
            yield from _if_older(path, before, "left by a writer that died, or a damaged record that was moved aside")
    for path in _files(store.path / "leases", "*"):
        if not path.name.endswith(PARTIAL):
            yield from _if_older(path, before, "a lease without a heartbeat")
    for failure in store.failures():
        path = store.failure_path(failure.slide_id)
        if _has_record(store, failure.slide_id) and path.is_file():
            yield Useless(path, f"failed ({failure.error}), but has a record since", path.stat().st_size)


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() or path.is_symlink())


def _if_older(path: Path, before: float, reason: str) -> Iterator[Useless]:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return  # its writer was alive, and is done
    if stat.st_mtime < before:
        yield Useless(path, reason, stat.st_size)


def _has_record(store: FeatureStore, slide_id: str) -> bool:
    try:
        return slide_id in store
    except MmsurvError:
        return False
